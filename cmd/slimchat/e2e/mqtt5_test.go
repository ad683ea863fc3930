package e2e

import (
	"strconv"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/stretchr/testify/require"
)

// paho5Maker makes Paho 5.0 clients.
var paho5Maker = maker{name: "paho-5.0", v5: true, connect: connectPaho5}

// online5 is a Paho 5.0 device that is connected and subscribed to everything of its own.
func (s *server) online5(l login) *paho5 {
	s.t.Helper()
	d, ok := paho5Maker.online(s, dialing{login: l, Clean: true}).(*paho5)
	require.True(s.t, ok)
	return d
}

// TestMQTT5 is what 5.0 alone has, with a real client library.
func TestMQTT5(t *testing.T) {
	s := startServer(t, fast)
	for name, test := range map[string]func(s *server, alice, bob login){
		"connack says what there is": connackSaysWhatThereIs,
		"assigned identifier":        assignedIdentifier,
		"session present":            sessionPresent,
		"session expiry":             sessionExpiry,
		"properties travel along":    propertiesTravelAlong,
		"seq rises":                  seqRises,
		"message expiry":             messageExpiry,
		"topic alias":                topicAlias,
		"will with properties":       willWithProperties,
		"unsubscribe":                unsubscribe,
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			prefix := strconv.FormatInt(markers.Add(1), 10)
			test(s, s.account("alice"+prefix, "phone"), s.account("bob"+prefix, "phone"))
		})
	}
}

func connackSaysWhatThereIs(s *server, alice, _ login) {
	d, _ := dialPaho5(s, dialing{login: alice, Clean: true}, func(c *paho.Connect) { c.KeepAlive = 0 })
	defer d.drop()
	p := d.(*paho5).ack.Properties
	require.EqualValues(s.t, 100, *p.ReceiveMaximum)
	require.NotNil(s.t, p.TopicAliasMaximum)
	require.Greater(s.t, *p.MaximumPacketSize, uint32(64<<10))
	require.NotNil(s.t, p.ServerKeepAlive, "no keep-alive is too long for us")
	require.Nil(s.t, p.MaximumQoS, "publishes at QoS 2 are taken")
	require.True(s.t, p.WildcardSubAvailable)
	require.False(s.t, p.RetainAvailable)
	require.False(s.t, p.SharedSubAvailable)
	require.False(s.t, p.SubIDAvailable)
}

func assignedIdentifier(s *server, alice, _ login) {
	nameless := alice
	nameless.Client = ""
	d, ack := connectPaho5(s, dialing{login: nameless, Clean: true})
	require.Equal(s.t, "phone", ack.Assigned, "an empty identifier takes the token's")
	require.EqualValues(s.t, 1, d.subscribe(alice.own()))
	d.got().who = alice
	s.nothingMore(d)
	d.disconnect()
	d, ack = connectPaho5(s, dialing{login: alice, Clean: true})
	require.Empty(s.t, ack.Assigned)
	d.disconnect()
}

func sessionPresent(s *server, alice, _ login) {
	connect := func(clean bool, expiry uint32) (device, bool) {
		d, ack := paho5Maker.reconnect(s, dialing{login: alice, Clean: clean, Expiry: expiry})
		return d, ack.Present
	}
	d, present := connect(false, 3600)
	require.False(s.t, present, "there was none yet")
	require.EqualValues(s.t, 1, d.subscribe("$IM/#"))
	d.disconnect()
	s.noticesGoing(alice)
	d, present = connect(false, 3600)
	require.True(s.t, present)
	d.disconnect()
	s.noticesGoing(alice)
	d, present = connect(true, 3600)
	require.False(s.t, present, "clean start")
	require.EqualValues(s.t, 1, d.subscribe("$IM/#"))
	d.drop()
	s.noticesGoing(alice)
	d, present = connect(false, 0)
	require.True(s.t, present, "it does not matter how the connection was lost")
	d.disconnect()
	s.noticesGoing(alice)
	d, present = connect(false, 0)
	require.False(s.t, present, "expiry 0 ends the session with its connection")
	d.disconnect()
	s.noticesGoing(alice)
}

func sessionExpiry(s *server, alice, _ login) {
	d := paho5Maker.online(s, dialing{login: alice, Clean: true, Expiry: 1})
	d.disconnect()
	s.noticesGoing(alice)
	time.Sleep(1500 * time.Millisecond) // nothing tells that a session has expired
	again, ack := paho5Maker.reconnect(s, dialing{login: alice, Expiry: 1})
	require.False(s.t, ack.Present)
	again.disconnect()

	p := paho5Maker.online(s, dialing{login: alice, Clean: true, Expiry: 3600}).(*paho5)
	require.NoError(s.t, p.client.Disconnect(&paho.Disconnect{Properties: &paho.DisconnectProperties{SessionExpiryInterval: paho.Uint32(0)}}))
	s.noticesGoing(alice)
	_, ack = paho5Maker.reconnect(s, dialing{login: alice})
	require.False(s.t, ack.Present, "DISCONNECT may shorten it")
}

func propertiesTravelAlong(s *server, alice, bob login) {
	a := s.online5(alice)
	got := make(chan *paho.Publish, 8)
	b, _ := connectPaho5(s, dialing{login: bob, Clean: true})
	defer b.disconnect()
	b.(*paho5).client.AddOnPublishReceived(func(r paho.PublishReceived) (bool, error) {
		got <- r.Packet
		return true, nil
	})
	require.EqualValues(s.t, 1, b.subscribe("$IM/#"))
	sent := &paho.Publish{
		QoS: 1, Topic: bob.inbox(), Payload: []byte(chat("m1")),
		Properties: &paho.PublishProperties{
			ContentType: "application/json", ResponseTopic: alice.own(), CorrelationData: []byte{0, 1, 255}, PayloadFormat: paho.Byte(1),
			User: paho.UserProperties{{Key: "b", Value: "2"}, {Key: "a", Value: "1"}, {Key: "b", Value: "3"}, {Key: "seq", Value: "999999999"}},
		},
	}
	require.Zero(s.t, a.send(sent).Code)
	b.got().take("m1")
	p := (<-got).Properties
	require.Equal(s.t, sent.Properties.ContentType, p.ContentType)
	require.Equal(s.t, sent.Properties.ResponseTopic, p.ResponseTopic)
	require.Equal(s.t, sent.Properties.CorrelationData, p.CorrelationData)
	require.Equal(s.t, sent.Properties.PayloadFormat, p.PayloadFormat)
	require.Nil(s.t, p.MessageExpiry)
	var plain paho.UserProperties
	var seqs []string
	for _, u := range p.User {
		if u.Key == "seq" {
			seqs = append(seqs, u.Value)
		} else {
			plain = append(plain, u)
		}
	}
	require.Equal(s.t, sent.Properties.User[:3], plain, "in order, and twice what came twice")
	require.Len(s.t, seqs, 1, "nobody can forge the position")
	require.NotEqual(s.t, "999999999", seqs[0])
}

func seqRises(s *server, alice, bob login) {
	a, b := s.online5(alice), s.online5(bob)
	var last uint64
	for i := range 20 {
		id := "m" + strconv.Itoa(i)
		require.Zero(s.t, a.publish(byte(1+i%2), bob.inbox(), chat(id)).Code)
		seq, err := strconv.ParseUint(b.take(id).user("seq"), 10, 64)
		require.NoError(s.t, err)
		require.Greater(s.t, seq, last)
		last = seq
	}
	require.Equal(s.t, last, s.history(bob, "with", alice.address(), "limit", "1").Items[0].Seq, "the same position as in the history")
}

func messageExpiry(s *server, alice, bob login) {
	a := s.online5(alice)
	for id, seconds := range map[string]uint32{"brief": 1, "long": 3600} {
		p := &paho.Publish{QoS: 1, Topic: bob.inbox(), Payload: []byte(chat(id)), Properties: &paho.PublishProperties{MessageExpiry: &seconds}}
		require.Zero(s.t, a.send(p).Code)
	}
	eventually(s.t, func() bool { return len(s.history(bob, "with", alice.address()).Items) == 1 }, "the brief message must go from the history")
	d, _ := connectPaho5(s, dialing{login: bob, Clean: true})
	b := d.(*paho5)
	left := make(chan *uint32, 8)
	b.client.AddOnPublishReceived(func(r paho.PublishReceived) (bool, error) {
		left <- r.Packet.Properties.MessageExpiry
		return true, nil
	})
	require.EqualValues(s.t, 1, b.subscribe("$IM/#"))
	b.take("long")
	seconds := <-left
	require.NotNil(s.t, seconds)
	require.Less(s.t, *seconds, uint32(3600), "the time that it waited is taken off")
	require.Greater(s.t, *seconds, uint32(3500))
	s.nothingMore(b)
	b.disconnect()
}

func topicAlias(s *server, alice, bob login) {
	a, b := s.online5(alice), s.online5(bob)
	send := func(topic, id string) byte {
		return a.send(&paho.Publish{QoS: 1, Topic: topic, Payload: []byte(chat(id)), Properties: &paho.PublishProperties{TopicAlias: paho.Uint16(1)}}).Code
	}
	require.Zero(s.t, send(bob.inbox(), "m1"))
	require.Zero(s.t, send("", "m2"))
	require.Equal(s.t, bob.inbox(), b.take("m1", "m2").Topic)
	require.Zero(s.t, send(alice.inbox()+"/client/phone", "m3"), "an alias may get another meaning")
	require.Zero(s.t, send("", "m4"))
	a.take("m3", "m4")
	s.nothingMore(b)
}

func willWithProperties(s *server, alice, bob login) {
	b := s.online5(bob)
	connect := func(id string, delay uint32) device {
		d, ack := dialPaho5(s, dialing{login: alice, Expiry: 3600, Will: &testament{bob.inbox(), chat(id), 1}}, func(c *paho.Connect) {
			c.WillProperties.WillDelayInterval = &delay
			c.WillProperties.User = paho.UserProperties{{Key: "last", Value: "will"}}
		})
		require.Zero(s.t, ack.Code)
		return d
	}
	connect("at once", 0).drop()
	require.Equal(s.t, "will", b.take("at once").user("last"))
	connect("delayed", 2).drop()
	s.nothingMore(b)
	b.take("delayed")
	connect("came back", 2).drop()
	connect("came back", 2).disconnect()
	time.Sleep(2500 * time.Millisecond) // nothing tells that a will is not published
	s.nothingMore(b)
}

func unsubscribe(s *server, alice, bob login) {
	a, b := s.online5(alice), s.online5(bob)
	ack, err := b.client.Unsubscribe(s.t.Context(), &paho.Unsubscribe{Topics: []string{"$IM/#", bob.own()}})
	require.NoError(s.t, err)
	require.Equal(s.t, []byte{0, 0x11}, ack.Reasons)
	require.EqualValues(s.t, 1, b.subscribe(bob.own()))
	require.Zero(s.t, a.publish(1, bob.inbox(), chat("m1")).Code)
	s.nothingMore(b)
	require.EqualValues(s.t, 1, b.subscribe(bob.inbox()))
	b.take("m1") // it waited
}
