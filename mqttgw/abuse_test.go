package mqttgw_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// Streams with flipped, missing and added bytes end their own connection at the worst.
func TestGarbageTouchesNobodyElse(t *testing.T) {
	s := newStack(t, nil)
	bystander := s.connect(packet.V5, "bob", "b1")
	bystander.subscribe("$IM/#")
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		v := bothVersions[round%2]
		stream := packet.AppendConnect(nil, hello(v, "alice", "a1"))
		head := len(stream)
		stream = packet.AppendSubscribe(stream, v, &packet.Subscribe{PacketID: 1, Filters: []packet.Subscription{{Filter: []byte("$IM/#"), QoS: 1}}})
		for qos := range uint8(3) {
			stream = packet.AppendPublish(stream, v, &packet.Publish{QoS: qos, PacketID: 7, Topic: []byte("$IM/user/carol"), Payload: chat("x")})
		}
		stream = packet.AppendAck(stream, v, &packet.Ack{Type: packet.PUBREL, PacketID: 7})
		if round%3 == 0 {
			head = 0
		}
		for range 1 + rnd.IntN(4) {
			at := head + rnd.IntN(len(stream)-head)
			switch rnd.IntN(3) {
			case 0:
				stream[at] ^= 1 << rnd.IntN(8)
			case 1:
				stream = append(stream[:at], stream[at+1:]...)
			case 2:
				stream = bytes.Join([][]byte{stream[:at], {byte(rnd.Uint32())}, stream[at:]}, nil)
			}
		}
		d := s.dial(v)
		_, _ = d.nc.Write(stream) // it may be refused halfway
		require.NoError(t, d.nc.Close())
	}
	require.Eventually(t, func() bool { return s.gw.Stats().Connections == 1 }, patience, 10*time.Millisecond)
	bystander.silent()
	require.NotZero(t, s.gw.Stats().Malformed)
}

// A packet that begins must end in time, whatever the keep-alive.
func TestSlowPacket(t *testing.T) {
	s := newStack(t, func(o *setup) { o.gateway.Timeouts.Packet = time.Second })
	d := s.connect(packet.V5, "alice", "a1")
	d.write([]byte("\x30\x20\x00\x05"))
	require.Equal(t, packet.KeepAliveTimeout, d.closed())
	// One that does is fine, however many follow.
	d = s.connect(packet.V5, "alice", "a1")
	frame := packet.AppendPublish(nil, packet.V5, &packet.Publish{QoS: 1, PacketID: 1, Topic: []byte("$IM/user/bob"), Payload: chat("x")})
	for range 20 {
		d.write(frame[:10])
		begin := time.Now()
		require.Eventually(t, func() bool { return time.Since(begin) > 60*time.Millisecond }, patience, 5*time.Millisecond)
		d.write(frame[10:])
		d.ack(packet.PUBACK, 1)
	}
}

// Too fast: the excess is refused with a reason, at every QoS, and slows down its sender.
func TestTooFast(t *testing.T) {
	s := newStack(t, func(o *setup) { o.router.PublishRate, o.router.PublishBurst = 10, 20 })
	alice := s.connect(packet.V5, "alice", "a1")
	alice.subscribe("$IM/user/alice")
	var refused int
	begin := time.Now()
	for i := range uint16(200) {
		alice.publish(1, i+1, "$IM/user/bob", chat(fmt.Sprint(i)))
		if alice.ack(packet.PUBACK, i+1).Reason == packet.QuotaExceeded {
			refused++
		}
	}
	require.Greater(t, refused, 100)
	require.Greater(t, time.Since(begin), time.Duration(refused-1)*time.Millisecond)
	for i := range 100 {
		alice.publish(0, 0, "$IM/user/bob", chat(fmt.Sprintf("q%d", i)))
	}
	require.Contains(t, string(alice.receive().Payload), `"rate_limited"`)
	require.Contains(t, string(alice.receive().Payload), `"rate_limited"`)
}

// Many devices come at once; those that find no turn in time are told that it is busy.
func TestHandshakesAreBounded(t *testing.T) {
	s := newStack(t, func(o *setup) {
		o.gateway.Limits.Handshakes = 1
		o.gateway.Timeouts.Call = 500 * time.Millisecond
	})
	s.auth.mu.Lock() // nobody's token is checked
	first := s.dial(packet.V5)
	first.write(packet.AppendConnect(nil, hello(packet.V5, "alice", "a1")))
	// The second waits for the first, or the other way round: one of them is told.
	second := s.dial(packet.V5)
	second.write(packet.AppendConnect(nil, hello(packet.V5, "bob", "b1")))
	require.Eventually(t, func() bool { return s.gw.Stats().Refused == 1 }, patience, 5*time.Millisecond)
	s.auth.mu.Unlock()
	codes := []uint8{}
	for _, d := range []*device{first, second} {
		var ack packet.Connack
		require.NoError(t, ack.Decode(packet.V5, d.frame(packet.CONNACK)))
		codes = append(codes, ack.Code)
	}
	require.ElementsMatch(t, []uint8{0, 0x89}, codes)
}
