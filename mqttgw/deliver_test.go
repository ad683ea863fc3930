package mqttgw_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
	"github.com/slimchat/slimchat/msglog"
)

func TestPropertiesAreCarriedThrough(t *testing.T) {
	s := newStack(t, nil)
	five, old := s.connect(packet.V5, "bob", "b1"), s.connect(packet.V311, "bob", "b2")
	five.subscribe("$IM/user/bob")
	old.subscribe("$IM/user/bob")
	alice := s.connect(packet.V5, "alice", "a1")
	fill := func(p *packet.Publish) {
		p.Props.SetUint(packet.PayloadFormat, 1)
		p.Props.SetUint(packet.MessageExpiry, 90)
		p.Props.SetBytes(packet.ContentType, []byte("application/json"))
		p.Props.SetBytes(packet.ResponseTopic, []byte("$IM/user/alice"))
		p.Props.SetBytes(packet.CorrelationData, []byte{0, 255})
		p.Props.AddUser([]byte("mood"), []byte("schön"))
		p.Props.AddUser([]byte("seq"), []byte("forged"))
	}
	alice.publish(1, 1, "$IM/user/bob", chat("1"), fill)
	alice.publish(1, 2, "$IM/user/bob", chat("2"))
	alice.ack(packet.PUBACK, 1)
	alice.ack(packet.PUBACK, 2)
	got := five.take()
	require.EqualValues(t, 1, got.Props.Uint(packet.PayloadFormat, 0))
	require.InDelta(t, 90, got.Props.Uint(packet.MessageExpiry, 0), 2)
	require.Equal(t, "application/json", string(got.Props.Bytes(packet.ContentType)))
	require.Equal(t, "$IM/user/alice", string(got.Props.Bytes(packet.ResponseTopic)))
	require.Equal(t, []byte{0, 255}, got.Props.Bytes(packet.CorrelationData))
	require.Equal(t, "schön", string(got.Props.User[0].Value))
	first := seqOf(t, got)
	got = five.take()
	require.Equal(t, packet.UserProperty{Key: []byte("seq"), Value: strconv.AppendUint(nil, seqOf(t, got), 10)}, got.Props.User[0])
	require.Greater(t, seqOf(t, got), first)
	require.False(t, got.Props.Has(packet.MessageExpiry))
	require.Contains(t, string(old.take().Payload), `"1"`)
}

// seqOf is the position that the gateway has set: its property is the last one.
func seqOf(t *testing.T, p *packet.Publish) uint64 {
	t.Helper()
	last := p.Props.User[len(p.Props.User)-1]
	require.Equal(t, "seq", string(last.Key))
	seq, err := strconv.ParseUint(string(last.Value), 10, 64)
	require.NoError(t, err)
	return seq
}

// A message over the client's maximum packet size is skipped as if it had been taken, and
// does not come again.
func TestMaximumPacketSize(t *testing.T) {
	s := newStack(t, nil)
	keep := func(p *packet.Connect) {
		p.CleanStart = false
		p.Props.SetUint(packet.SessionExpiry, 60)
		p.Props.SetUint(packet.MaximumPacketSize, 600)
	}
	bob := s.connect(packet.V5, "bob", "b1", keep)
	bob.subscribe("$IM/user/bob")
	alice := s.connect(packet.V5, "alice", "a1")
	pad := strings.Repeat("x", 600)
	for i := range uint16(300) { // more than the window, so that each must be accounted for
		alice.publish(1, i+1, "$IM/user/bob", padded(int(i), pad))
		require.Equal(t, packet.Success, alice.ack(packet.PUBACK, i+1).Reason)
	}
	alice.publish(1, 1, "$IM/user/bob", chat("small"))
	alice.ack(packet.PUBACK, 1)
	require.Contains(t, string(bob.take().Payload), `"small"`)
	bob.silent()
	require.EqualValues(t, 300, s.gw.Stats().Oversized)
	bob.write(packet.AppendDisconnect(nil, packet.V5, &packet.Disconnect{}))
	bob.closed()
	bob = s.connect(packet.V5, "bob", "b1", keep)
	bob.silent()
}

func padded(id int, pad string) []byte {
	return fmt.Appendf(nil, `{"id":"%d","type":"chat","content":{"type":"text","data":%q}}`, id, pad)
}

// A device that does not read holds no more than the output limit, loses nothing, and
// gets everything in order when it reads again.
func TestSlowReader(t *testing.T) {
	const count = 3000
	s := newStack(t, func(o *setup) {
		o.gateway.Limits.Output = 16 << 10
		o.log.Durability = msglog.DurabilityProcess
		o.engine.Window = 1000
	})
	bob := s.connect(packet.V311, "bob", "b1")
	bob.subscribe("$IM/user/bob")
	alice := s.connect(packet.V311, "alice", "a1")
	pad := strings.Repeat("x", 500)
	for i := 0; i < count; i += 50 {
		for j := range 50 {
			alice.publish(1, uint16(j+1), "$IM/user/bob", padded(i+j, pad))
		}
		for j := range 50 {
			alice.ack(packet.PUBACK, uint16(j+1))
		}
	}
	for i := range count {
		var m struct{ ID string }
		require.NoError(t, json.Unmarshal(bob.take().Payload, &m))
		require.Equal(t, strconv.Itoa(i), m.ID)
	}
	bob.silent()
	require.NotZero(t, s.gw.Stats().OutputFull)
}

func TestSubscribe(t *testing.T) {
	cases := []struct {
		filter       string
		code3, code5 byte
	}{
		{"$IM/#", 1, 1},
		{"$IM/user/alice", 1, 1},
		{"$IM/user/alice/client/a1", 1, 1},
		{"$IM/domain/" + domain + "/user/alice", 1, 1},
		{"$IM/user/bob", 0x80, 0x87},
		{"$IM/user/alice/client/a2", 0x80, 0x87},
		{"#", 0x80, 0x87},
		{"news", 0x80, 0x87},
		{"$IM/#/x", 0x80, 0x8F},
		{"$IM/us+er", 0x80, 0x8F},
		{"$share/g/$IM/#", 0x80, 0x9E},
	}
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s := newStack(t, nil)
		d := s.connect(v, "alice", "a1")
		filters, want := []string{}, []byte{}
		for _, c := range cases {
			filters = append(filters, c.filter)
			if v == packet.V5 {
				want = append(want, c.code5)
			} else {
				want = append(want, c.code3)
			}
		}
		require.Equal(t, want, d.subscribe(filters...))
		d.write(packet.AppendUnsubscribe(nil, v, &packet.Unsubscribe{PacketID: 3, Filters: [][]byte{[]byte("$IM/#"), []byte("$IM/room/r"), []byte("a/#/b")}}))
		var ack packet.SubAnswer
		require.NoError(t, ack.Decode(v, d.frame(packet.UNSUBACK)))
		if v == packet.V5 {
			require.Equal(t, []byte{0, 0x11, 0x8F}, ack.Codes)
		}
	})
}

func TestSubscriptionIdentifiersAreRefused(t *testing.T) {
	s := newStack(t, nil)
	d := s.connect(packet.V5, "alice", "a1")
	p := packet.Subscribe{PacketID: 1, Filters: []packet.Subscription{{Filter: []byte("$IM/#")}}}
	p.Props.SubscriptionIDs = []uint32{5}
	d.write(packet.AppendSubscribe(nil, packet.V5, &p))
	var ack packet.SubAnswer
	require.NoError(t, ack.Decode(packet.V5, d.frame(packet.SUBACK)))
	require.Equal(t, []byte{0xA1}, ack.Codes)
}

// What a client was sent and did not acknowledge comes again when it comes again.
func TestUnacknowledgedIsRepeated(t *testing.T) {
	s := newStack(t, nil)
	keep := func(p *packet.Connect) {
		p.CleanStart = false
		p.Props.SetUint(packet.ReceiveMaximum, 5)
		p.Props.SetUint(packet.SessionExpiry, 60)
	}
	bob := s.connect(packet.V5, "bob", "b1", keep)
	bob.subscribe("$IM/user/bob")
	alice := s.connect(packet.V5, "alice", "a1")
	for i := range uint16(12) {
		alice.publish(1, i+1, "$IM/user/bob", chat(strconv.Itoa(int(i))))
		alice.ack(packet.PUBACK, i+1)
	}
	for range 5 {
		bob.receive()
	}
	bob.silent() // the receive maximum holds back the rest
	require.NoError(t, bob.nc.Close())
	bob = s.connect(packet.V5, "bob", "b1", keep)
	for i := range 12 {
		p := bob.take()
		require.Equal(t, i < 5, p.Dup, "message %d", i)
		require.Contains(t, string(p.Payload), fmt.Sprintf(`"id":"%d"`, i))
	}
}

// The remaining time of a message is told; one that has run out is not delivered.
func TestMessageExpiry(t *testing.T) {
	s := newStack(t, nil)
	alice := s.connect(packet.V5, "alice", "a1")
	expire := func(seconds uint32) func(*packet.Publish) {
		return func(p *packet.Publish) { p.Props.SetUint(packet.MessageExpiry, seconds) }
	}
	alice.publish(1, 1, "$IM/user/bob", chat("at-once"), expire(0))
	alice.publish(1, 2, "$IM/user/bob", chat("soon"), expire(1))
	alice.publish(1, 3, "$IM/user/bob", chat("later"), expire(1000))
	sent := time.Now()
	for i := range uint16(3) {
		alice.ack(packet.PUBACK, i+1)
	}
	require.Eventually(t, func() bool { return time.Since(sent) > 1100*time.Millisecond }, patience, 10*time.Millisecond)
	bob := s.connect(packet.V5, "bob", "b1")
	bob.subscribe("$IM/user/bob")
	got := bob.take()
	require.Contains(t, string(got.Payload), "later")
	require.LessOrEqual(t, got.Props.Uint(packet.MessageExpiry, 0), uint32(999))
	bob.silent()
}
