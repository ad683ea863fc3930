package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

func TestSingleFlows(t *testing.T) {
	s := startServer(t, fast)
	alice, bob := s.account("alice", "phone"), s.account("bob", "phone")
	b := s.online5(bob)

	t.Run("exactly once", func(t *testing.T) {
		w := s.in(t).wired(alice)
		w.publish(2, 7, bob.inbox(), chat("m1"))
		require.Zero(t, w.answer(packet.PUBREC, 7))
		w.publish(2, 7, bob.inbox(), chat("m1"), func(p *packet.Publish) { p.Dup = true })
		require.Zero(t, w.answer(packet.PUBREC, 7), "it is not released yet, so this is the same one")
		w.ack(packet.PUBREL, 7)
		require.Zero(t, w.answer(packet.PUBCOMP, 7))
		w.publish(2, 7, bob.inbox(), chat("m2"))
		require.Zero(t, w.answer(packet.PUBREC, 7), "the identifier is free again")
		b.take("m1", "m2")
		s.in(t).nothingMore(b)
	})
	t.Run("repeated on another connection", func(t *testing.T) {
		w := s.in(t).wired(alice)
		w.publish(1, 1, bob.inbox(), chat("once"))
		require.Zero(t, w.answer(packet.PUBACK, 1))
		w = s.in(t).wired(alice)
		w.publish(1, 5, bob.inbox(), chat("once"), func(p *packet.Publish) { p.Dup = true })
		require.Zero(t, w.answer(packet.PUBACK, 5))
		b.take("once")
		s.in(t).nothingMore(b)
	})
	t.Run("acknowledged in the order of the publishes", func(t *testing.T) {
		w := s.in(t).wired(alice)
		var all []byte
		for id := uint16(1); id <= 100; id++ {
			payload := chat("pipelined")
			if id%3 == 0 {
				payload = "not JSON"
			}
			all = packet.AppendPublish(all, w.v, &packet.Publish{QoS: 1, PacketID: id, Topic: []byte(bob.inbox()), Payload: []byte(payload)})
		}
		w.write(all)
		for id := uint16(1); id <= 100; id++ {
			reason := w.answer(packet.PUBACK, id)
			require.Equal(t, id%3 == 0, reason == packet.InvalidPayloadFormat, "%d: %x", id, reason)
		}
		b.take("pipelined")
		s.in(t).nothingMore(b)
	})
	t.Run("receive maximum of one", func(t *testing.T) {
		carol := s.in(t).account("carol", "phone")
		w := s.in(t).wired(carol, func(p *packet.Connect) { p.Props.SetUint(packet.ReceiveMaximum, 1) })
		require.Equal(t, []byte{1}, w.subscribe(nil, "$IM/#"))
		a := s.in(t).online5(alice)
		for _, id := range []string{"r1", "r2", "r3"} {
			require.Zero(t, a.publish(1, carol.inbox(), chat(id)).Code)
		}
		for _, id := range []string{"r1", "r2", "r3"} {
			p := w.receive()
			require.Contains(t, string(p.Payload), id)
			w.silent()
			w.ack(packet.PUBACK, p.PacketID)
		}
		w.silent()
	})
	t.Run("unacknowledged comes again", func(t *testing.T) {
		dave := s.in(t).account("dave", "phone")
		a := s.in(t).online5(alice)
		w := s.in(t).wired(dave, func(p *packet.Connect) { p.Props.SetUint(packet.SessionExpiry, 3600) })
		w.subscribe(nil, "$IM/#")
		a.publish(1, dave.inbox(), chat("unacknowledged"))
		first := w.receive()
		require.False(t, first.Dup)
		w.nc.Close()
		w = s.in(t).wired(dave, func(p *packet.Connect) { p.CleanStart = false })
		again := w.receive()
		require.True(t, again.Dup)
		require.Equal(t, string(first.Payload), string(again.Payload))
		w.ack(packet.PUBACK, again.PacketID)
		w.silent()
	})
	t.Run("a message over the client's maximum packet size", func(t *testing.T) {
		erin := s.in(t).account("erin", "phone")
		w := s.in(t).wired(erin, func(p *packet.Connect) { p.Props.SetUint(packet.MaximumPacketSize, 512) })
		w.subscribe(nil, "$IM/#")
		a := s.in(t).online5(alice)
		large := strings.Replace(chat("large"), "text of large", strings.Repeat("x", 1000), 1)
		require.Zero(t, a.publish(1, erin.inbox(), large).Code)
		require.Zero(t, a.publish(1, erin.inbox(), chat("small")).Code)
		require.Contains(t, string(w.receive().Payload), "small")
	})
	t.Run("no local", func(t *testing.T) {
		w := s.in(t).wired(alice)
		require.Equal(t, []byte{1}, w.subscribe(func(p *packet.Subscribe) { p.Filters[0].NoLocal = true }, alice.inbox()))
		w.publish(1, 1, alice.inbox(), chat("to myself"))
		require.Zero(t, w.answer(packet.PUBACK, 1))
		w.silent()
	})
	t.Run("no problem information", func(t *testing.T) {
		w := s.in(t).wired(alice, func(p *packet.Connect) { p.Props.SetUint(packet.RequestProblemInfo, 0) })
		w.publish(1, 1, bob.inbox(), "not JSON")
		var ack packet.Ack
		require.NoError(t, ack.Decode(w.v, w.frame(packet.PUBACK)))
		require.Equal(t, packet.InvalidPayloadFormat, ack.Reason)
		require.True(t, ack.Props.Empty())
	})
}

// TestSubscriptionsThatAreNot has what SUBACK refuses with a code of its own.
func TestSubscriptionsThatAreNot(t *testing.T) {
	s := startServer(t)
	alice := s.account("alice", "phone")
	w := s.wired(alice)
	require.Equal(t, []byte{0x9E, 1, 0x87}, w.subscribe(nil, "$share/group/"+alice.inbox(), alice.inbox(), "$IM/user/bob"),
		"each filter is answered by itself")
	require.Equal(t, []byte{0xA1}, w.subscribe(func(p *packet.Subscribe) { p.Props.SubscriptionIDs = []uint32{5} }, alice.inbox()))
	require.Equal(t, []byte{1}, w.subscribe(func(p *packet.Subscribe) { p.Filters[0].QoS = 2 }, alice.inbox()), "1 is the most")
	require.Equal(t, []byte{0}, w.subscribe(func(p *packet.Subscribe) { p.Filters[0].QoS = 0 }, alice.inbox()))
}

// TestBrokenProtocol has what ends a connection, with the reason, and nobody else's.
func TestBrokenProtocol(t *testing.T) {
	s := startServer(t, fast)
	alice, bob := s.account("alice", "phone"), s.account("bob", "phone")
	b := s.online5(bob)
	for name, test := range map[string]struct {
		want packet.Reason
		do   func(w *wire)
	}{
		"retained": {packet.RetainNotSupported, func(w *wire) {
			w.publish(1, 1, bob.inbox(), chat("x"), func(p *packet.Publish) { p.Retain = true })
		}},
		"alias over the maximum": {packet.InvalidTopicAlias, func(w *wire) {
			w.publish(1, 1, bob.inbox(), chat("x"), func(p *packet.Publish) { p.Props.SetUint(packet.TopicAlias, 60_000) })
		}},
		"alias of nothing": {packet.ProtocolError, func(w *wire) {
			w.publish(1, 1, "", chat("x"), func(p *packet.Publish) { p.Props.SetUint(packet.TopicAlias, 3) })
		}},
		"wildcard in a topic":      {packet.MalformedPacket, func(w *wire) { w.publish(1, 1, "$IM/user/+", chat("x")) }},
		"packet that is too large": {packet.PacketTooLarge, func(w *wire) { w.write([]byte{0x32, 0xFF, 0xFF, 0xFF, 0x7F}) }},
		"unknown packet type":      {packet.MalformedPacket, func(w *wire) { w.write([]byte{0x00, 0x00}) }},
		"endless length":           {packet.MalformedPacket, func(w *wire) { w.write([]byte{0x32, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F}) }},
		"second CONNECT": {packet.ProtocolError, func(w *wire) {
			w.write(packet.AppendConnect(nil, &packet.Connect{Version: packet.V5, ClientID: []byte("x")}))
		}},
		"more than the receive maximum": {packet.ReceiveMaximumExceeded, func(w *wire) {
			var all []byte
			for id := uint16(1); id <= 101; id++ {
				all = packet.AppendPublish(all, w.v, &packet.Publish{QoS: 2, PacketID: id, Topic: []byte(alice.own()), Payload: []byte(chat("flood"))})
			}
			w.write(all)
		}},
		"keep-alive": {packet.KeepAliveTimeout, func(*wire) {}},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			begin := time.Now()
			w := s.wired(alice, func(p *packet.Connect) {
				if test.want == packet.KeepAliveTimeout {
					p.KeepAlive = 1
				}
			})
			test.do(w)
			require.Equal(t, test.want, w.closed(), "the reason of DISCONNECT")
			if test.want == packet.KeepAliveTimeout {
				require.InDelta(t, 1.5, time.Since(begin).Seconds(), 0.6, "one and a half times the keep-alive")
			}
			s.nothingMore(b)
		})
	}
}

func TestOtherProtocols(t *testing.T) {
	s := startServer(t)
	// MQTT 3.1: protocol name MQIsdp, level 3; the code is that of 3.1.1.
	w := s.wire(packet.V311)
	w.write(append([]byte{0x10, 15, 0, 6}, "MQIsdp\x03\x02\x00\x3c\x00\x01x"...))
	require.Equal(t, []byte{0x20, 2, 0, 1}, w.frame(packet.CONNACK))
	w.closed()
	// A level that is yet to come.
	w = s.wire(packet.V5)
	w.write(append([]byte{0x10, 14, 0, 4}, "MQTT\x06\x02\x00\x3c\x00\x00\x01x"...))
	var ack packet.Connack
	require.NoError(t, ack.Decode(packet.V5, w.frame(packet.CONNACK)))
	require.EqualValues(t, 0x84, ack.Code)
	w.closed()
	// Something else altogether.
	w = s.wire(packet.V5)
	w.write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	w.closed()
	// No user name.
	w = s.wire(packet.V5)
	require.EqualValues(t, 0x86, w.hello(login{Client: "x"}, func(p *packet.Connect) { p.HasUsername, p.HasPassword = false, false }).Code)
}
