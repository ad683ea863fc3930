package mqttgw_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
	"github.com/slimchat/slimchat/router"
)

var refusedPublishes = []struct {
	name, topic string
	payload     []byte
	reason      packet.Reason
	code        im.Code
}{
	{"not JSON", "$IM/user/bob", []byte("hello"), 0x99, im.CodeMalformed},
	{"no id", "$IM/user/bob", []byte(`{"type":"chat","content":{"type":"text"}}`), 0x99, im.CodeInvalid},
	{"forged from", "$IM/user/bob", []byte(`{"id":"x","from":"user/dave","type":"chat","content":{"type":"text"}}`), 0x87, im.CodeForgedFrom},
	{"wrong to", "$IM/user/bob", []byte(`{"id":"x","to":"user/carol","type":"chat","content":{"type":"text"}}`), 0x99, im.CodeWrongTo},
	{"nobody", "$IM/user/zoe", chat("x"), 0x90, im.CodeNotFound},
	{"no address", "$IM/planet/mars", chat("x"), 0x90, im.CodeInvalidAddress},
	{"outside $IM", "news", chat("x"), 0x90, im.CodeInvalidAddress},
	{"another domain", "$IM/domain/else.test/user/bob", chat("x"), 0x90, im.CodeUnknownDomain},
	{"too large", "$IM/user/bob", bytes.Repeat([]byte(" "), 66<<10), 0x97, im.CodeTooLarge},
}

func TestRefusedPublish5(t *testing.T) {
	s := newStack(t, nil)
	bob := s.connect(packet.V5, "bob", "b1")
	bob.subscribe("$IM/#")
	alice := s.connect(packet.V5, "alice", "a1")
	quiet := s.connect(packet.V5, "carol", "c1", func(p *packet.Connect) { p.Props.SetUint(packet.RequestProblemInfo, 0) })
	for i, c := range refusedPublishes {
		id := uint16(i + 1)
		alice.publish(1, id, c.topic, c.payload)
		ack := alice.ack(packet.PUBACK, id)
		require.Equal(t, c.reason, ack.Reason, c.name)
		require.Contains(t, string(ack.Props.Bytes(packet.ReasonString)), string(c.code), c.name)
		alice.publish(2, id, c.topic, c.payload)
		require.Equal(t, c.reason, alice.ack(packet.PUBREC, id).Reason, c.name)

		quiet.publish(1, id, c.topic, c.payload)
		ack = quiet.ack(packet.PUBACK, id)
		require.True(t, ack.Reason.Failed() && ack.Props.Empty(), "%s: %+v", c.name, ack)
	}
	// The identifiers are free again, and the connection is good.
	alice.publish(2, 1, "$IM/user/bob", chat("good"))
	require.Equal(t, packet.Success, alice.ack(packet.PUBREC, 1).Reason)
	require.Contains(t, string(bob.take().Payload), `"good"`)
	bob.silent()
}

func TestRefusedPublish311(t *testing.T) {
	s := newStack(t, nil)
	alice := s.connect(packet.V311, "alice", "a1")
	alice.subscribe("$IM/user/alice")
	for i, c := range refusedPublishes {
		for qos := range uint8(3) {
			id := uint16(i*3) + uint16(qos) + 1
			alice.publish(qos, id, c.topic, c.payload)
			var event *packet.Publish
			for n := range 2 { // the acknowledgement and the event, in either order
				if n == 0 && qos == 0 {
					continue
				}
				f, err := alice.r.Next()
				require.NoError(t, err)
				if packet.TypeOf(f[0]) == packet.PUBLISH {
					event = &packet.Publish{}
					require.NoError(t, event.Decode(alice.v, bytes.Clone(f)))
					continue
				}
				require.Equal(t, []packet.Type{0, packet.PUBACK, packet.PUBREC}[qos], packet.TypeOf(f[0]), c.name)
			}
			require.NotNil(t, event, c.name)
			var m struct {
				ID, From, To, Type string
				TS                 int64
				Content            struct {
					Type string
					Data struct{ ID, Code, Message, To string }
				}
			}
			require.NoError(t, json.Unmarshal(event.Payload, &m), "%s", event.Payload)
			require.Equal(t, "event", m.Type)
			require.Equal(t, "error", m.Content.Type)
			require.Equal(t, "node/n1", m.From)
			require.Equal(t, "user/alice", m.To)
			require.Equal(t, string(c.code), m.Content.Data.Code, c.name)
			require.NotEmpty(t, m.Content.Data.Message)
			require.NotEmpty(t, m.ID)
			require.NotZero(t, m.TS)
		}
	}
}

// heldRouter keeps publishes until the test lets them go.
type heldRouter struct {
	mu    sync.Mutex
	dones []router.Done
	got   chan router.Publish
}

func (r *heldRouter) Publish(_ context.Context, _ im.Principal, p router.Publish, done router.Done) {
	p.Payload = bytes.Clone(p.Payload)
	r.mu.Lock()
	r.dones = append(r.dones, done)
	r.mu.Unlock()
	r.got <- p
}

func (r *heldRouter) finish(i int, err error) {
	r.mu.Lock()
	done := r.dones[i]
	r.mu.Unlock()
	done(router.Receipt{ID: "x"}, err)
}

func (r *heldRouter) next(t *testing.T) router.Publish {
	t.Helper()
	select {
	case p := <-r.got:
		return p
	case <-time.After(patience):
		t.Fatal("nothing was published")
		return router.Publish{}
	}
}

func newHeld(t *testing.T, inflight int) (*stack, *heldRouter) {
	held := &heldRouter{got: make(chan router.Publish, 1000)}
	return newStack(t, func(o *setup) {
		o.gateway.Router, o.gateway.Limits.Inflight = held, inflight
	}), held
}

// The router answers in another order than it was asked; acknowledgements keep the order
// of the publishes, and none comes before its answer.
func TestAcknowledgementsKeepTheOrder(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s, held := newHeld(t, 20)
		d := s.connect(v, "alice", "a1")
		for i := range uint16(6) {
			d.publish(1+uint8(i%2), 100-i, "$IM/user/bob", chat(fmt.Sprint(i)))
			held.next(t)
		}
		for _, i := range []int{3, 1, 5} {
			held.finish(i, nil)
		}
		d.silent()
		held.finish(0, nil)
		d.ack(packet.PUBACK, 100)
		d.ack(packet.PUBREC, 99)
		d.silent()
		held.finish(4, nil)
		d.silent()
		held.finish(2, im.Errorf(im.CodeForbidden, "", "no"))
		reason := d.ack(packet.PUBACK, 98).Reason
		require.Equal(t, v == packet.V5, reason == packet.NotAuthorized)
		d.ack(packet.PUBREC, 97)
		d.ack(packet.PUBACK, 96)
		d.ack(packet.PUBREC, 95)
	})
}

func TestQoS2IsPublishedOnce(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s, held := newHeld(t, 20)
		d := s.connect(v, "alice", "a1")
		dup := func(p *packet.Publish) { p.Dup = true }
		d.publish(2, 7, "$IM/user/bob", chat("a"))
		require.False(t, held.next(t).Again)
		d.publish(2, 7, "$IM/user/bob", chat("a"), dup) // before PUBREC
		d.silent()
		held.finish(0, nil)
		d.ack(packet.PUBREC, 7)
		d.publish(2, 7, "$IM/user/bob", chat("a"), dup) // after PUBREC
		d.ack(packet.PUBREC, 7)
		for n := range 2 { // the second PUBREL is for nothing
			d.write(packet.AppendAck(nil, v, &packet.Ack{Type: packet.PUBREL, PacketID: 7}))
			reason := d.ack(packet.PUBCOMP, 7).Reason
			require.Equal(t, v == packet.V5 && n == 1, reason == packet.PacketIDNotFound)
		}
		d.publish(2, 7, "$IM/user/bob", chat("b"), dup)
		require.True(t, held.next(t).Again)
		held.finish(1, nil)
		d.ack(packet.PUBREC, 7)
		require.Empty(t, held.got)
	})
}

// What comes first on a session that goes on may be a repetition, marked or not.
func TestFirstPublishesAfterReconnect(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s, held := newHeld(t, 2)
		keep := func(p *packet.Connect) {
			p.CleanStart = false
			p.Props.SetUint(packet.SessionExpiry, 60)
		}
		d := s.connect(v, "alice", "a1", keep)
		d.subscribe("$IM/#")
		d.publish(0, 0, "$IM/user/bob", chat("first"))
		require.False(t, held.next(t).Again)
		held.finish(0, nil)
		d = s.connect(v, "alice", "a1", keep)
		for i, again := range []bool{true, true, true, true, false} {
			d.publish(0, 0, "$IM/user/bob", chat("x"))
			require.Equal(t, again, held.next(t).Again, "publish %d", i)
			held.finish(i+1, nil)
		}
	})
}

// 5.0 clients know the receive maximum and are cut when they pass it; 3.1.1 clients and
// QoS 0 are slowed down.
func TestReceiveMaximum(t *testing.T) {
	s, held := newHeld(t, 3)
	five := s.connect(packet.V5, "alice", "a1")
	for i := range uint16(4) {
		five.publish(1, i+1, "$IM/user/bob", chat("x"))
	}
	require.Equal(t, packet.ReceiveMaximumExceeded, five.closed())
	for range 3 {
		held.next(t)
	}

	for _, qos := range []uint8{0, 1, 2} {
		d := s.connect(packet.V311, "bob", "b1")
		first := len(held.dones)
		for i := range uint16(10) {
			d.publish(qos, i+1, "$IM/user/bob", chat(fmt.Sprint(i)))
		}
		for i := range 10 {
			held.next(t)
			if i >= 2 { // never more than three at a time
				require.Empty(t, held.got)
				held.finish(first+i-2, nil)
			}
		}
		held.finish(first+8, nil)
		held.finish(first+9, nil)
		for i := range uint16(10) {
			if qos > 0 {
				d.ack([]packet.Type{0, packet.PUBACK, packet.PUBREC}[qos], i+1)
			}
		}
	}
	require.NotZero(t, s.gw.Stats().Blocked)
}

func TestTopicAlias(t *testing.T) {
	s, held := newHeld(t, 20)
	d := s.connect(packet.V5, "alice", "a1")
	alias := func(n uint32) func(*packet.Publish) {
		return func(p *packet.Publish) { p.Props.SetUint(packet.TopicAlias, n) }
	}
	d.publish(0, 0, "$IM/user/bob", chat("1"), alias(16))
	require.Equal(t, im.User("bob"), held.next(t).To)
	d.publish(0, 0, "$IM/domain/"+domain+"/user/carol", chat("2"), alias(1))
	require.Equal(t, im.User("carol"), held.next(t).To)
	d.publish(0, 0, "", chat("3"), alias(16))
	require.Equal(t, im.User("bob"), held.next(t).To)
	d.publish(0, 0, "$IM/user/alice", chat("4"), alias(16)) // replaced
	require.Equal(t, im.User("alice"), held.next(t).To)
	d.publish(0, 0, "", chat("5"), alias(16))
	require.Equal(t, im.User("alice"), held.next(t).To)
	d.publish(0, 0, "", chat("6"), alias(2))
	require.Equal(t, packet.ProtocolError, d.closed())

	d = s.connect(packet.V5, "alice", "a1")
	d.publish(0, 0, "$IM/user/bob", chat("7"), alias(17))
	require.Equal(t, packet.InvalidTopicAlias, d.closed())
}

func TestPropertiesOfPublishReachTheRouter(t *testing.T) {
	s, held := newHeld(t, 20)
	d := s.connect(packet.V5, "alice", "a1")
	d.publish(1, 1, "$IM/user/bob", chat("1"), func(p *packet.Publish) {
		p.Props.SetUint(packet.PayloadFormat, 1)
		p.Props.SetUint(packet.MessageExpiry, 90)
		p.Props.SetBytes(packet.ContentType, []byte("application/json"))
		p.Props.SetBytes(packet.ResponseTopic, []byte("$IM/user/alice"))
		p.Props.SetBytes(packet.CorrelationData, []byte{0, 255})
		p.Props.AddUser([]byte("k"), []byte("1"))
		p.Props.AddUser([]byte("k"), []byte("2"))
	})
	got := held.next(t)
	require.Equal(t, 90*time.Second, got.Expiry)
	require.Equal(t, im.Properties{
		User: []im.Property{{Key: "k", Value: "1"}, {Key: "k", Value: "2"}}, ContentType: "application/json",
		ResponseTopic: "$IM/user/alice", Correlation: "\x00\xff", PayloadUTF8: true,
	}, got.Props)
	held.finish(0, nil)
	d.ack(packet.PUBACK, 1)

	d.publish(1, 2, "$IM/user/bob", chat("2"), func(p *packet.Publish) {
		for range im.MaxProperties + 1 {
			p.Props.AddUser([]byte("k"), []byte("v"))
		}
	})
	require.Equal(t, packet.QuotaExceeded, d.ack(packet.PUBACK, 2).Reason)
}

// What a client may not send ends its connection with the reason, and nobody else's.
func TestProtocolErrors(t *testing.T) {
	s := newStack(t, nil)
	bystander := s.connect(packet.V5, "bob", "b1")
	cases := []struct {
		name   string
		send   string
		reason packet.Reason
	}{
		{"second CONNECT", string(packet.AppendConnect(nil, hello(packet.V5, "alice", "a1"))), 0x82},
		{"CONNACK", "\x20\x03\x00\x00\x00", 0x82},
		{"PINGRESP", "\xd0\x00", 0x82},
		{"PUBREC", "\x50\x02\x00\x01", 0x82},
		{"AUTH", "\xf0\x00", 0x82},
		{"retained", "\x31\x04\x00\x01a\x00", 0x9A},
		{"subscription identifier", "\x30\x06\x00\x01a\x02\x0b\x01", 0x82},
		{"QoS 3", "\x36\x06\x00\x01a\x00\x01\x00", 0x81},
		{"reserved type", "\x00\x00", 0x81},
		{"too large", "\x30\xff\xff\xff\x7f", 0x95},
		{"id 0", "\x32\x06\x00\x01a\x00\x00\x00", 0x82},
	}
	for _, c := range cases {
		d := s.connect(packet.V5, "alice", "a1")
		d.write([]byte(c.send))
		require.Equal(t, c.reason, d.closed(), c.name)
		old := s.connect(packet.V311, "alice", "a1")
		if c.name == "subscription identifier" || c.name == "retained" {
			continue // 3.1.1 has neither property nor refusal
		}
		old.write([]byte(c.send))
		old.closed()
	}
	bystander.silent()
}

// The event of a refusal comes on the user's topic where the subscriptions cover that, for it
// is addressed to the user, and on the client's where they cover nothing else.
func TestTopicOfErrorEvents(t *testing.T) {
	s := newStack(t, nil)
	for _, c := range []struct {
		filters []string
		topic   string
	}{
		{[]string{"$IM/#"}, "$IM/user/alice"},
		{[]string{"$IM/user/alice/client/a1", "$IM/user/alice"}, "$IM/user/alice"},
		{[]string{"$IM/user/alice"}, "$IM/user/alice"},
		{[]string{"$IM/user/alice/client/a1"}, "$IM/user/alice/client/a1"},
	} {
		d := s.connect(packet.V311, "alice", "a1")
		d.subscribe(c.filters...)
		d.publish(0, 0, "$IM/user/bob", []byte("hello"))
		got := d.receive()
		require.Equal(t, c.topic, string(got.Topic), "%v", c.filters)
		require.Contains(t, string(got.Payload), `"to":"user/alice"`)
		require.NoError(t, d.nc.Close())
	}
}
