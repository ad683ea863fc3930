package mqttgw_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

func TestConnectIsRefused(t *testing.T) {
	s := newStack(t, nil)
	cases := []struct {
		name   string
		change func(*packet.Connect)
		auth   error
		code3  uint8 // 0: not in 3.1.1
		code5  packet.Reason
	}{
		{"bad token", func(p *packet.Connect) { p.Password = []byte("nonsense") }, nil, 5, 0x87},
		{"no password", func(p *packet.Connect) { p.HasPassword = false }, nil, 4, 0x86},
		{"empty password", func(p *packet.Connect) { p.Password = nil }, nil, 4, 0x86},
		{"no user name", func(p *packet.Connect) { p.HasUsername, p.HasPassword = false, false }, nil, 4, 0x86},
		{"user name is no id", func(p *packet.Connect) { p.Username = []byte("a/b") }, nil, 4, 0x86},
		{"password is not UTF-8", func(p *packet.Connect) { p.Password = []byte{0xff} }, nil, 4, 0x86},
		{"somebody else's token", func(p *packet.Connect) { p.Username = []byte("bob") }, nil, 5, 0x87},
		{"another client's token", func(p *packet.Connect) { p.ClientID = []byte("a2") }, nil, 5, 0x87},
		{"client id is none", func(p *packet.Connect) { p.ClientID = []byte("a/1") }, nil, 2, 0x85},
		{"will outside $IM", func(p *packet.Connect) { p.Will, p.WillTopic = true, []byte("x") }, nil, 5, 0x90},
		{"retained will", func(p *packet.Connect) {
			p.Will, p.WillRetain, p.WillTopic = true, true, []byte("$IM/user/bob")
		}, nil, 0, 0x9A},
		{"enhanced authentication", func(p *packet.Connect) { p.Props.SetBytes(packet.AuthMethod, []byte("X")) }, nil, 0, 0x8C},
		{"tiny maximum packet size", func(p *packet.Connect) { p.Props.SetUint(packet.MaximumPacketSize, 20) }, nil, 0, 0x95},
		{"authentication down", nil, fmt.Errorf("no bucket: %w", mqttgw.ErrAuthUnavailable), 3, 0x88},
		{"authentication broken", nil, fmt.Errorf("surprise"), 3, 0x88},
		{"authentication busy", nil, mqttgw.ErrAuthBusy, 3, 0x89},
		{"shape", nil, mqttgw.ErrBadCredentials, 4, 0x86},
		{"client id", nil, mqttgw.ErrBadClientID, 2, 0x85},
	}
	for _, v := range bothVersions {
		for _, c := range cases {
			want := uint8(c.code5)
			if v == packet.V311 {
				if want = c.code3; want == 0 {
					continue
				}
			}
			s.auth.refuse(c.auth)
			p := hello(v, "alice", "a1")
			if c.change != nil {
				c.change(p)
			}
			d := s.dial(v)
			require.Equal(t, want, d.hello(p).Code, "%s, MQTT %s", c.name, v)
			d.closed()
		}
	}
	require.Zero(t, s.gw.Stats().Sessions)
}

func TestEmptyClientIdentifier(t *testing.T) {
	s := newStack(t, nil)
	p := hello(packet.V5, "alice", "a1")
	p.ClientID = nil
	ack := s.dial(packet.V5).hello(p)
	require.Zero(t, ack.Code)
	require.Equal(t, "a1", string(ack.Props.Bytes(packet.AssignedClientID)))

	p.Version = packet.V311
	require.Zero(t, s.dial(packet.V311).hello(p).Code)
	p.CleanStart = false
	require.EqualValues(t, 2, s.dial(packet.V311).hello(p).Code)
}

func TestConnackSaysWhatThereIs(t *testing.T) {
	s := newStack(t, func(o *setup) {
		o.gateway.Limits.PacketSize, o.gateway.Limits.Inflight = 70_000, 33
		o.gateway.Timeouts.KeepAlive = 5 * time.Minute
	})
	p := hello(packet.V5, "alice", "a1")
	p.KeepAlive = 0
	ack := s.dial(packet.V5).hello(p)
	for id, want := range map[packet.PropertyID]uint32{
		packet.ReceiveMaximum: 33, packet.MaximumPacketSize: 70_000, packet.ServerKeepAlive: 300,
		packet.TopicAliasMaximum: 16, packet.RetainAvailable: 0, packet.SharedSubAvailable: 0, packet.SubIDAvailable: 0,
	} {
		require.True(t, ack.Props.Has(id), "property %#x", uint8(id))
		require.Equal(t, want, ack.Props.Uint(id, 9999), "property %#x", uint8(id))
	}
	require.False(t, ack.Props.Has(packet.AssignedClientID))
	require.False(t, ack.Props.Has(packet.MaximumQoS), "QoS 2 is taken")
}

// Raw bytes that are no CONNECT, or none of a version that there is.
func TestFirstBytes(t *testing.T) {
	s := newStack(t, func(o *setup) { o.gateway.Timeouts.Connect = time.Second })
	cases := []struct{ name, send, want string }{
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", ""},
		{"PINGREQ first", "\xc0\x00", ""},
		{"nothing", "", ""},
		{"half a CONNECT", "\x10\x20\x00\x04MQ", ""},
		{"a huge CONNECT", "\x10\xff\xff\xff\x7f", ""},
		{"MQTT 3.1", "\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01a", "\x20\x02\x00\x01"},
		{"MQTT 6", "\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x01a", "\x20"},
		{"malformed 3.1.1", "\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01a", ""},
	}
	for _, c := range cases {
		d := s.dial(packet.V311)
		d.write([]byte(c.send))
		got := make([]byte, 64)
		require.NoError(t, d.nc.SetReadDeadline(time.Now().Add(patience)))
		n, err := d.nc.Read(got)
		if c.want == "" {
			require.Error(t, err, c.name)
			require.Zero(t, n, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.Contains(t, string(got[:n]), c.want, c.name)
	}
	d := s.dial(packet.V5)
	d.write([]byte("\x10\x0d\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x00"))
	d.write([]byte{0, 0})
	var ack packet.Connack
	require.NoError(t, ack.Decode(packet.V5, d.frame(packet.CONNACK)))
	require.EqualValues(t, 0x81, ack.Code, "malformed 5.0")
}

// CONNECT and what follows may come in one segment, or byte by byte.
func TestPipelinedAndSliced(t *testing.T) {
	s := newStack(t, nil)
	all := packet.AppendConnect(nil, hello(packet.V311, "alice", "a1"))
	all = packet.AppendPublish(all, packet.V311, &packet.Publish{QoS: 1, PacketID: 5, Topic: []byte("$IM/user/bob"), Payload: chat("p")})
	all = packet.AppendPingreq(all)
	for _, step := range []int{len(all), 1, 7} {
		d := s.dial(packet.V311)
		for rest := all; len(rest) > 0; rest = rest[min(step, len(rest)):] {
			d.write(rest[:min(step, len(rest))])
		}
		d.frame(packet.CONNACK)
		seen := map[packet.Type]bool{}
		for range 2 {
			f, err := d.r.Next()
			require.NoError(t, err)
			seen[packet.TypeOf(f[0])] = true
		}
		require.True(t, seen[packet.PUBACK] && seen[packet.PINGRESP], "in steps of %d", step)
	}
}

func TestKeepAlive(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s := newStack(t, nil)
		d := s.connect(v, "alice", "a1", func(p *packet.Connect) { p.KeepAlive = 1 })
		begin := time.Now()
		reason := d.closed()
		if took := time.Since(begin); took < 1400*time.Millisecond || took > 5*time.Second {
			t.Errorf("closed after %v, keep-alive is 1 s", took)
		}
		if v == packet.V5 {
			require.Equal(t, packet.KeepAliveTimeout, reason)
		}
		require.EqualValues(t, 1, s.gw.Stats().KeepAlive)
	})
}

func TestTakeover(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s := newStack(t, nil)
		first := s.connect(v, "alice", "a1")
		second := s.connect(v, "alice", "a1")
		if reason := first.closed(); v == packet.V5 {
			require.Equal(t, packet.SessionTakenOver, reason)
		}
		require.Equal(t, []byte{1}, second.subscribe("$IM/user/alice"))
		second.publish(1, 1, "$IM/user/alice", chat("to-myself"))
		for range 2 { // the acknowledgement and the message, in either order
			f, err := second.r.Next()
			require.NoError(t, err)
			require.Contains(t, []packet.Type{packet.PUBACK, packet.PUBLISH}, packet.TypeOf(f[0]))
		}
		require.EqualValues(t, 1, s.gw.Stats().TakenOver)
	})
}

func TestLimitsOfConnections(t *testing.T) {
	t.Run("in all", func(t *testing.T) {
		s := newStack(t, func(o *setup) { o.gateway.Limits.Connections = 2 })
		s.connect(packet.V5, "alice", "a1")
		bob := s.connect(packet.V5, "bob", "b1")
		require.EqualValues(t, 0x89, s.dial(packet.V5).hello(hello(packet.V5, "carol", "c1")).Code)
		bob.write(packet.AppendDisconnect(nil, packet.V5, &packet.Disconnect{}))
		bob.closed()
		require.Eventually(t, func() bool {
			return s.dial(packet.V5).hello(hello(packet.V5, "carol", "c1")).Code == 0
		}, patience, 50*time.Millisecond)
	})
	t.Run("of a principal", func(t *testing.T) {
		s := newStack(t, func(o *setup) { o.gateway.Limits.PerPrincipal = 2 })
		s.connect(packet.V311, "alice", "a1")
		s.connect(packet.V311, "alice", "a2")
		require.EqualValues(t, 3, s.dial(packet.V311).hello(hello(packet.V311, "alice", "a3")).Code)
		require.EqualValues(t, 0x9F, s.dial(packet.V5).hello(hello(packet.V5, "alice", "a3")).Code)
		s.connect(packet.V311, "alice", "a2") // takes over
		s.connect(packet.V311, "bob", "b1")
	})
}
