package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// world is what a scenario plays in: a server, a make of client, and people of its own.
type world struct {
	*server
	maker
	prefix string
}

// person is the name of a user that only this scenario has.
func (w *world) person(name string) string { return w.prefix + "-" + name }

// account registers a person and logs its first client in.
func (w *world) account(name, client string) login {
	w.t.Helper()
	return w.server.account(w.person(name), client)
}

// also logs another client of the same person in.
func (w *world) also(l login, client string) login {
	w.t.Helper()
	return w.server.login(l.User, client)
}

// online is a device of a login that is connected and subscribed to everything of its own.
func (w *world) online(l login) device {
	w.t.Helper()
	return w.maker.online(w.server, dialing{login: l, Clean: true})
}

// scenarios are what every make of client must be able to live through (wire.md sections 2 and 3).
var scenarios = []struct {
	name string
	play func(w *world)
}{
	{"send and receive", playSendAndReceive},
	{"every quality of service", playEveryQoS},
	{"offline delivery after reconnect", playOfflineDelivery},
	{"clean session keeps the inbox", playCleanSessionKeepsInbox},
	{"second client of the same user", playSecondClient},
	{"message to one client only", playOneClientOnly},
	{"node and user", playNode},
	{"refused connections", playRefusedConnections},
	{"expired token", playExpiredToken},
	{"logout ends the session", playLogout},
	{"signed out from another client", playSignedOut},
	{"refused publishes", playRefusedPublishes},
	{"refused subscriptions", playRefusedSubscriptions},
	{"takeover", playTakeover},
	{"will", playWill},
	{"over MQTT to REST and back", playREST},
}

func TestClients(t *testing.T) {
	s := startServer(t, fast)
	for _, m := range makers(t) {
		t.Run(m.name, func(t *testing.T) {
			for _, scenario := range scenarios {
				t.Run(scenario.name, func(t *testing.T) {
					prefix := strings.NewReplacer(" ", "", ".", "").Replace(m.name + "-" + scenario.name)
					scenario.play(&world{server: s.in(t), maker: m, prefix: strings.ToLower(prefix)})
				})
			}
		})
	}
}

func playSendAndReceive(w *world) {
	alice, bob, carol := w.account("alice", "phone"), w.account("bob", "phone"), w.account("carol", "phone")
	a, b, c := w.online(alice), w.online(bob), w.online(carol)
	body := `{"id":"akx292","type":"chat","thread":"t1","content":{"type":"text","data":"hi \u00fc 你好"},"mood":{"level":3.50},"ts":5,"client":"nobody"}`
	require.Zero(w.t, a.publish(1, bob.inbox(), body).Code)
	got := b.got().next()
	require.Equal(w.t, bob.inbox(), got.Topic)
	require.EqualValues(w.t, 1, got.QoS)
	require.False(w.t, got.Dup)
	require.Equal(w.t, "akx292", got.ID)
	require.Equal(w.t, alice.address(), got.From)
	require.Equal(w.t, "phone", got.Client)
	require.Equal(w.t, bob.address(), got.To)
	require.Equal(w.t, "chat", got.Type)
	require.Equal(w.t, "t1", got.Thread)
	require.Equal(w.t, `"hi \u00fc 你好"`, string(got.Content.Data), "byte for byte")
	require.Contains(w.t, got.Body, `"mood":{"level":3.50}`, "other fields are kept")
	require.Greater(w.t, got.TS, int64(1_700_000_000_000), "the broker's time")

	require.Zero(w.t, b.publish(1, alice.inbox(), chat("answer")).Code)
	require.Equal(w.t, bob.address(), a.got().take("answer").From)
	// The same id again is acknowledged and not delivered again.
	require.Zero(w.t, a.publish(1, bob.inbox(), body).Code)
	w.nothingMore(a, b, c)
}

func playEveryQoS(w *world) {
	alice, bob := w.account("alice", "phone"), w.account("bob", "phone")
	a, b := w.online(alice), w.online(bob)
	for qos, id := range []string{"at-most-once", "at-least-once", "exactly-once"} {
		require.Zero(w.t, a.publish(byte(qos), bob.inbox(), chat(id)).Code)
		require.EqualValues(w.t, 1, b.got().take(id).QoS, "published at QoS %d", qos)
	}
	w.nothingMore(a, b)
}

func playOfflineDelivery(w *world) {
	alice, bob := w.account("alice", "phone"), w.account("bob", "phone")
	a := w.online(alice)
	b := w.maker.online(w.server, dialing{login: bob, Expiry: 3600})
	a.publish(1, bob.inbox(), chat("m1"))
	b.got().take("m1")
	w.nothingMore(b) // and so m1 is acknowledged
	b.disconnect()
	for _, id := range []string{"m2", "m3", "m4"} {
		require.Zero(w.t, a.publish(1, bob.inbox(), chat(id)).Code)
	}
	b, ack := w.reconnect(w.server, dialing{login: bob, Expiry: 3600})
	require.True(w.t, ack.Present, "the session is there, with its subscriptions")
	b.got().take("m2", "m3", "m4")
	a.publish(1, bob.inbox(), chat("m5"))
	b.got().take("m5")
	w.nothingMore(b)
}

func playCleanSessionKeepsInbox(w *world) {
	alice, bob := w.account("alice", "phone"), w.account("bob", "phone")
	a, b := w.online(alice), w.online(bob)
	a.publish(1, bob.inbox(), chat("m1"))
	b.got().take("m1")
	w.nothingMore(b)
	b.disconnect()
	a.publish(1, bob.inbox(), chat("m2"))
	b, ack := w.reconnect(w.server, dialing{login: bob, Clean: true})
	require.False(w.t, ack.Present)
	a.publish(1, bob.inbox(), chat("m3"))
	require.EqualValues(w.t, 1, b.subscribe(bob.inbox()))
	b.got().take("m2", "m3")
	require.EqualValues(w.t, 1, b.subscribe(bob.own()))
	w.nothingMore(b)
}

func playSecondClient(w *world) {
	alice, bob := w.account("alice", "phone"), w.account("bob", "phone")
	laptop := w.also(alice, "laptop")
	a, second, b := w.online(alice), w.online(laptop), w.online(bob)
	a.publish(1, bob.inbox(), chat("question"))
	b.got().take("question")
	copied := second.got().take("question")
	require.Equal(w.t, alice.inbox(), copied.Topic, "a copy comes on the sender's own topic")
	require.Equal(w.t, alice.address(), copied.From)
	require.Equal(w.t, bob.address(), copied.To)
	require.Equal(w.t, "phone", copied.Client)

	b.publish(1, alice.inbox(), chat("answer"))
	require.Equal(w.t, a.got().take("answer").Body, second.got().take("answer").Body)

	second.publish(1, bob.inbox(), chat("thanks"))
	b.got().take("thanks")
	require.Equal(w.t, "laptop", a.got().take("thanks").Client)

	// What one of them has taken still waits for the other.
	second.disconnect()
	b.publish(1, alice.inbox(), chat("later"))
	a.got().take("later")
	a.publish(1, bob.inbox(), chat("sent meanwhile"))
	b.got().take("sent meanwhile")
	second = w.online(laptop)
	second.got().take("later", "sent meanwhile")
	w.nothingMore(a, second, b)
}

func playOneClientOnly(w *world) {
	alice, bob := w.account("alice", "phone"), w.account("bob", "phone")
	laptop := w.also(bob, "laptop")
	a, b, other := w.online(alice), w.online(bob), w.online(laptop)
	a.publish(1, laptop.own(), chat("for the laptop"))
	got := other.got().take("for the laptop")
	require.Equal(w.t, laptop.own(), got.Topic)
	require.Equal(w.t, bob.address()+"/client/laptop", got.To)
	other.disconnect()
	a.publish(1, laptop.own(), chat("for the laptop, later"))
	a.publish(1, bob.inbox(), chat("for both"))
	b.got().take("for both")
	other = w.online(laptop)
	other.got().take("for the laptop, later", "for both")
	w.nothingMore(a, b, other)
}

func playNode(w *world) {
	alice := w.account("alice", "phone")
	name := w.person("thermometer")
	id := login{User: name, Client: name, Token: w.run("token", "--node", name, "--register")}
	a := w.online(alice)
	n, ack := w.reconnect(w.server, dialing{login: id, Clean: true})
	require.Zero(w.t, ack.Code)
	require.EqualValues(w.t, 1, n.subscribe("$IM/node/"+name))
	require.Zero(w.t, a.publish(1, "$IM/node/"+name, chat("how warm?")).Code)
	require.Equal(w.t, "$IM/node/"+name, n.got().take("how warm?").Topic)
	require.Zero(w.t, n.publish(1, alice.inbox(), chat("21 degrees")).Code)
	require.Equal(w.t, "node/"+name, a.got().take("21 degrees").From)
}

func playTakeover(w *world) {
	alice, bob := w.account("alice", "phone"), w.account("bob", "phone")
	b := w.online(bob)
	first := w.maker.online(w.server, dialing{login: alice, Expiry: 3600})
	second, ack := w.reconnect(w.server, dialing{login: alice, Expiry: 3600})
	require.True(w.t, ack.Present)
	bye := first.got().gone()
	if w.v5 {
		require.Equal(w.t, 0x8E, bye)
	}
	b.publish(1, alice.inbox(), chat("for the second"))
	second.got().take("for the second")
	w.nothingMore(second)
	require.Empty(w.t, first.got().messages)
}

func playWill(w *world) {
	alice, bob := w.account("alice", "phone"), w.account("bob", "phone")
	b := w.online(bob)
	last := &testament{Topic: bob.inbox(), Payload: chat("last words"), QoS: 1}
	a := w.maker.online(w.server, dialing{login: alice, Clean: true, Will: last})
	if w.name == "paho-3.1.1" {
		// This library cannot vanish: another connection of the same client ends the first one without its goodbye.
		a2, _ := w.reconnect(w.server, dialing{login: alice, Clean: true})
		defer a2.disconnect()
	} else {
		a.drop()
	}
	got := b.got().take("last words")
	require.Equal(w.t, alice.address(), got.From)
	require.Equal(w.t, "phone", got.Client)

	last.Payload = chat("never said")
	a = w.maker.online(w.server, dialing{login: alice, Clean: true, Will: last})
	a.disconnect()
	w.nothingMore(b)

	// A will is checked like any other message.
	forged := &testament{Topic: bob.inbox(), Payload: `{"id":"f","from":"user/eve","type":"chat","content":{"type":"text","data":""}}`, QoS: 1}
	a = w.maker.online(w.server, dialing{login: alice, Clean: true, Will: forged})
	a2, _ := w.reconnect(w.server, dialing{login: alice, Clean: true})
	a.got().gone()
	a2.publish(1, bob.inbox(), chat("after the will"))
	b.got().take("after the will")
	w.nothingMore(b)
}

func playREST(w *world) {
	alice, bob := w.account("alice", "phone"), w.account("bob", "phone")
	b := w.online(bob)
	answer := w.post(alice, map[string]any{
		"to": bob.address(), "id": "by-rest", "type": "chat", "content": map[string]any{"type": "text", "data": "hi"},
	})
	require.Equal(w.t, "by-rest", answer.ID)
	got := b.got().take("by-rest")
	require.Equal(w.t, answer.TS, got.TS)
	require.Equal(w.t, alice.address(), got.From)
	b.publish(1, alice.inbox(), chat("by-mqtt"))
	both := w.history(alice, "with", bob.address()).Items
	require.Equal(w.t, []string{"by-mqtt", "by-rest"}, ids(both))
	require.Equal(w.t, answer.Seq, both[1].Seq)
	require.Equal(w.t, both, w.history(bob, "with", alice.address()).Items, "both sides see the same conversation")
	w.nothingMore(b)
}
