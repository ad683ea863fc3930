package mqttgw_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

const patience = 10 * time.Second

// device is a client that speaks packets, so that a test sees exactly what is sent.
type device struct {
	t  testing.TB
	v  packet.Version
	nc net.Conn
	r  *packet.Reader
}

func newDevice(t testing.TB, v packet.Version, nc net.Conn) *device {
	t.Cleanup(func() { _ = nc.Close() })
	return &device{t: t, v: v, nc: nc, r: packet.NewReader(nc, 0)}
}

// dial opens a TCP connection and sends nothing.
func (s *stack) dial(v packet.Version) *device {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	require.NoError(s.t, err)
	return newDevice(s.t, v, nc)
}

// hello is a CONNECT of owner's client with a good token.
func hello(v packet.Version, owner, client string) *packet.Connect {
	return &packet.Connect{
		Version: v, CleanStart: true, KeepAlive: 60, ClientID: []byte(client),
		HasUsername: true, Username: []byte(owner), HasPassword: true, Password: []byte(owner + "/" + client),
	}
}

// connect is a device that is connected.
func (s *stack) connect(v packet.Version, owner, client string, change ...func(*packet.Connect)) *device {
	s.t.Helper()
	d := s.dial(v)
	p := hello(v, owner, client)
	for _, f := range change {
		f(p)
	}
	ack := d.hello(p)
	require.Zero(s.t, ack.Code, "CONNACK: %s", ack.Props.Bytes(packet.ReasonString))
	return d
}

func (d *device) hello(p *packet.Connect) *packet.Connack {
	d.t.Helper()
	d.write(packet.AppendConnect(nil, p))
	var ack packet.Connack
	require.NoError(d.t, ack.Decode(d.v, d.frame(packet.CONNACK)))
	return &ack
}

func (d *device) write(b []byte) {
	d.t.Helper()
	_, err := d.nc.Write(b)
	require.NoError(d.t, err)
}

// frame is the next packet, which must be of type want.
func (d *device) frame(want packet.Type) []byte {
	d.t.Helper()
	require.NoError(d.t, d.nc.SetReadDeadline(time.Now().Add(patience)))
	f, err := d.r.Next()
	require.NoError(d.t, err, "waiting for %s", want)
	require.Equal(d.t, want, packet.TypeOf(f[0]))
	return f
}

// closed waits for the end of the connection; a 5.0 device returns the reason it got.
func (d *device) closed() packet.Reason {
	d.t.Helper()
	reason := packet.Success
	require.NoError(d.t, d.nc.SetReadDeadline(time.Now().Add(patience)))
	for {
		f, err := d.r.Next()
		if err != nil {
			var late net.Error
			require.False(d.t, errors.As(err, &late) && late.Timeout(), "the connection stays open")
			if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
				require.NoError(d.t, err)
			}
			return reason
		}
		if packet.TypeOf(f[0]) == packet.DISCONNECT {
			var p packet.Disconnect
			require.NoError(d.t, p.Decode(d.v, f))
			reason = p.Reason
		}
	}
}

// subscribe subscribes at QoS 1 and returns the codes.
func (d *device) subscribe(filters ...string) []byte {
	d.t.Helper()
	p := packet.Subscribe{PacketID: 1}
	for _, f := range filters {
		p.Filters = append(p.Filters, packet.Subscription{Filter: []byte(f), QoS: 1})
	}
	d.write(packet.AppendSubscribe(nil, d.v, &p))
	var ack packet.SubAnswer
	require.NoError(d.t, ack.Decode(d.v, d.frame(packet.SUBACK)))
	return ack.Codes
}

func chat(id string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"type":"chat","content":{"type":"text","data":"hi"}}`, id)
}

// publish sends a message and returns its frame's packet for the test to change nothing.
func (d *device) publish(qos uint8, id uint16, topic string, payload []byte, change ...func(*packet.Publish)) {
	d.t.Helper()
	p := &packet.Publish{QoS: qos, PacketID: id, Topic: []byte(topic), Payload: payload}
	for _, f := range change {
		f(p)
	}
	d.write(packet.AppendPublish(nil, d.v, p))
}

// ack is the next packet, an acknowledgement of type want for id.
func (d *device) ack(want packet.Type, id uint16) *packet.Ack {
	d.t.Helper()
	var p packet.Ack
	require.NoError(d.t, p.Decode(d.v, d.frame(want)))
	require.Equal(d.t, id, p.PacketID)
	return &p
}

// take is the next delivery, acknowledged.
func (d *device) take() *packet.Publish {
	d.t.Helper()
	p := d.receive()
	if p.QoS == 1 {
		d.write(packet.AppendAck(nil, d.v, &packet.Ack{Type: packet.PUBACK, PacketID: p.PacketID}))
	}
	return p
}

// receive is the next delivery, not acknowledged.
func (d *device) receive() *packet.Publish {
	d.t.Helper()
	p := &packet.Publish{}
	require.NoError(d.t, p.Decode(d.v, append([]byte(nil), d.frame(packet.PUBLISH)...)))
	return p
}

// silent makes sure that nothing was on its way to the device: the answer to a ping comes
// next.
func (d *device) silent() {
	d.t.Helper()
	d.write(packet.AppendPingreq(nil))
	d.frame(packet.PINGRESP)
}
