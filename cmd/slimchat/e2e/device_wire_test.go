package e2e

import (
	"errors"
	"net"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// wire is a device that speaks single packets, for what no client library lets one do.
type wire struct {
	s  *server
	v  packet.Version
	nc net.Conn
	r  *packet.Reader
}

// wire opens a connection and sends nothing.
func (s *server) wire(v packet.Version) *wire {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.addr.MQTT)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { nc.Close() })
	return &wire{s: s, v: v, nc: nc, r: packet.NewReader(nc, 0)}
}

// wired is a connected 5.0 device; change may alter its CONNECT.
func (s *server) wired(l login, change ...func(*packet.Connect)) *wire {
	s.t.Helper()
	w := s.wire(packet.V5)
	ack := w.hello(l, change...)
	require.Zero(s.t, ack.Code, "CONNACK %s", ack.Props.Bytes(packet.ReasonString))
	return w
}

func (w *wire) hello(l login, change ...func(*packet.Connect)) *packet.Connack {
	w.s.t.Helper()
	p := &packet.Connect{
		Version: w.v, CleanStart: true, KeepAlive: 60, ClientID: []byte(l.Client),
		HasUsername: true, Username: []byte(l.User), HasPassword: true, Password: []byte(l.Token),
	}
	for _, f := range change {
		f(p)
	}
	w.write(packet.AppendConnect(nil, p))
	var ack packet.Connack
	require.NoError(w.s.t, ack.Decode(w.v, w.frame(packet.CONNACK)))
	return &ack
}

func (w *wire) write(b []byte) {
	w.s.t.Helper()
	_, err := w.nc.Write(b)
	require.NoError(w.s.t, err)
}

// frame is the next packet, which must be of this type.
func (w *wire) frame(want packet.Type) []byte {
	w.s.t.Helper()
	require.NoError(w.s.t, w.nc.SetReadDeadline(time.Now().Add(patience)))
	f, err := w.r.Next()
	require.NoError(w.s.t, err, "waiting for %s", want)
	require.Equal(w.s.t, want, packet.TypeOf(f[0]), "% x", f)
	return f
}

// silent makes sure that nothing was under way: the answer to a ping comes next.
func (w *wire) silent() {
	w.s.t.Helper()
	w.write(packet.AppendPingreq(nil))
	w.frame(packet.PINGRESP)
}

// closed waits for the end of the connection and returns the reason of the server's DISCONNECT, 0 without one.
func (w *wire) closed() packet.Reason {
	w.s.t.Helper()
	var reason packet.Reason
	require.NoError(w.s.t, w.nc.SetReadDeadline(time.Now().Add(patience)))
	for {
		f, err := w.r.Next()
		if err != nil {
			var late net.Error
			require.False(w.s.t, errors.As(err, &late) && late.Timeout(), "the connection stays open")
			return reason
		}
		if packet.TypeOf(f[0]) == packet.DISCONNECT {
			var p packet.Disconnect
			require.NoError(w.s.t, p.Decode(w.v, f))
			reason = p.Reason
		}
	}
}

// subscribe asks for filters at QoS 1 and returns the codes.
func (w *wire) subscribe(change func(*packet.Subscribe), filters ...string) []byte {
	w.s.t.Helper()
	p := packet.Subscribe{PacketID: 9}
	for _, f := range filters {
		p.Filters = append(p.Filters, packet.Subscription{Filter: []byte(f), QoS: 1})
	}
	if change != nil {
		change(&p)
	}
	w.write(packet.AppendSubscribe(nil, w.v, &p))
	var ack packet.SubAnswer
	require.NoError(w.s.t, ack.Decode(w.v, w.frame(packet.SUBACK)))
	return ack.Codes
}

// publish sends a message without waiting for an answer.
func (w *wire) publish(qos byte, id uint16, topic, payload string, change ...func(*packet.Publish)) {
	w.s.t.Helper()
	p := &packet.Publish{QoS: qos, PacketID: id, Topic: []byte(topic), Payload: []byte(payload)}
	for _, f := range change {
		f(p)
	}
	w.write(packet.AppendPublish(nil, w.v, p))
}

func (w *wire) ack(t packet.Type, id uint16) {
	w.s.t.Helper()
	w.write(packet.AppendAck(nil, w.v, &packet.Ack{Type: t, PacketID: id}))
}

// answer is the next packet, an acknowledgement of this type for id; it returns the reason.
func (w *wire) answer(want packet.Type, id uint16) packet.Reason {
	w.s.t.Helper()
	var p packet.Ack
	require.NoError(w.s.t, p.Decode(w.v, w.frame(want)))
	require.Equal(w.s.t, id, p.PacketID)
	return p.Reason
}

// receive is the next delivery, not acknowledged.
func (w *wire) receive() *packet.Publish {
	w.s.t.Helper()
	p := &packet.Publish{}
	require.NoError(w.s.t, p.Decode(w.v, append([]byte(nil), w.frame(packet.PUBLISH)...)))
	return p
}
