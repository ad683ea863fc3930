package mqttgw_test

import (
	"encoding/json"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// What comes while a connection ends was given to nobody: the next connection gets it, at
// QoS 0 too.
func TestNothingIsLostWhileAConnectionEnds(t *testing.T) {
	s := newStack(t, func(o *setup) { o.gateway.Timeouts.Linger = time.Minute })
	keep := func(p *packet.Connect) {
		p.CleanStart = false
		p.Props.SetUint(packet.SessionExpiry, 60)
	}
	bob := s.connect(packet.V5, "bob", "b1", keep)
	p := packet.Subscribe{PacketID: 1, Filters: []packet.Subscription{{Filter: []byte("$IM/user/bob"), QoS: 0}}}
	bob.write(packet.AppendSubscribe(nil, packet.V5, &p))
	bob.frame(packet.SUBACK)
	witness, alice := s.connect(packet.V5, "bob", "b2"), s.connect(packet.V5, "alice", "a1")
	witness.subscribe("$IM/user/bob")

	bob.write([]byte{0, 0}) // ends it; and it is not closed
	bob.frame(packet.DISCONNECT)
	for i := range uint16(3) {
		alice.publish(1, i+1, "$IM/user/bob", chat("m"+strconv.Itoa(int(i))))
		alice.ack(packet.PUBACK, i+1)
		witness.take()
	}
	require.EqualValues(t, 3, s.gw.Stats().Sessions, "the first is still ending")
	require.NoError(t, bob.nc.Close())
	require.Eventually(t, func() bool { return s.gw.Stats().Sessions == 2 }, patience, time.Millisecond)
	bob = s.connect(packet.V5, "bob", "b1", keep)
	for i := range 3 {
		require.Contains(t, string(bob.take().Payload), `"m`+strconv.Itoa(i)+`"`)
	}
	bob.silent()
}

// pipes is a listener of connections without any buffer, so that a write takes as long as
// its reader.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// pipe is a device on a connection without buffers.
func (s *stack) pipe(v packet.Version) *device {
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- s.gw.Serve(l) }()
	s.served = append(s.served, served)
	near, far := net.Pipe()
	l.conns <- far
	return newDevice(s.t, v, near)
}

// slowly reads a little at a time.
type slowly struct {
	io.Reader
	tick *time.Ticker
}

func (r slowly) Read(p []byte) (int, error) {
	<-r.tick.C
	return r.Reader.Read(p[:min(len(p), 4096)])
}

// A device that takes far longer than the write timeout for what waits for it lives as long
// as it makes progress. One that makes none is cut.
func TestSlowReaderThatMakesProgress(t *testing.T) {
	const count = 6
	s := newStack(t, func(o *setup) {
		o.gateway.Limits.Output = 1 << 20
		o.gateway.Timeouts.Write = time.Second
	})
	bob := s.pipe(packet.V311)
	require.Zero(t, bob.hello(hello(packet.V311, "bob", "b1")).Code)
	bob.subscribe("$IM/user/bob")
	alice := s.connect(packet.V311, "alice", "a1")
	for i := range count {
		alice.publish(1, uint16(i+1), "$IM/user/bob", padded(i, strings.Repeat("x", 50_000)))
	}
	for i := range count {
		alice.ack(packet.PUBACK, uint16(i+1))
	}
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	bob.r = packet.NewReader(slowly{bob.nc, tick}, 1<<20)
	begin := time.Now()
	for i := range count {
		var m struct{ ID string }
		require.NoError(t, json.Unmarshal(bob.receive().Payload, &m))
		require.Equal(t, strconv.Itoa(i), m.ID)
	}
	require.Greater(t, time.Since(begin), 2*time.Second, "it was slow indeed")
	require.Zero(t, s.gw.Stats().WriteErrors)

	alice.publish(1, 9, "$IM/user/bob", padded(9, strings.Repeat("x", 50_000)))
	alice.ack(packet.PUBACK, 9)
	require.Eventually(t, func() bool { return s.gw.Stats().WriteErrors == 1 }, patience, time.Millisecond)
}
