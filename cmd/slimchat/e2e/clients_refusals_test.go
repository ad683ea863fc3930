package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// code is what a refusal is in the protocol version at hand.
func (w *world) code(v311, v5 byte) byte {
	if w.v5 {
		return v5
	}
	return v311
}

// refusedConnect wants a CONNECT to be refused.
func (w *world) refusedConnect(l login, want byte) {
	w.t.Helper()
	_, ack := w.connect(w.server, dialing{login: l, Clean: true})
	require.Equal(w.t, want, ack.Code, "CONNACK %s", ack.Reason)
	if w.v5 {
		require.NotEmpty(w.t, ack.Reason, "a refusal says why")
	}
}

func playRefusedConnections(w *world) {
	alice, eve := w.account("alice", "phone"), w.account("eve", "phone")
	laptop := w.also(eve, "laptop")
	notAuthorised := w.code(5, 0x87)
	for name, l := range map[string]login{
		"no token at all":       {User: alice.User, Client: "phone", Token: "letmein"},
		"a password":            {User: alice.User, Client: "phone", Token: password},
		"a token that was bent": {User: alice.User, Client: "phone", Token: bent(alice.Token)},
		"unsigned token":        {User: alice.User, Client: "phone", Token: unsigned(alice.Token)},
		"somebody else's token": {User: alice.User, Client: "phone", Token: eve.Token},
		"another name":          {User: "nobody", Client: "phone", Token: eve.Token},
	} {
		_, ack := w.connect(w.server, dialing{login: l, Clean: true})
		require.Equal(w.t, notAuthorised, ack.Code, "%s: %s", name, ack.Reason)
	}
	w.refusedConnect(login{User: "a/b", Client: "phone", Token: alice.Token}, w.code(4, 0x86))
	w.refusedConnect(login{User: eve.User, Client: "phone", Token: laptop.Token}, notAuthorised)
	w.refusedConnect(login{User: eve.User, Client: "tablet", Token: eve.Token}, notAuthorised)
	w.online(alice)
}

// bent is a token whose signature does not fit.
func bent(token string) string {
	middle := len(token) / 2
	other := byte('A')
	if token[middle] == other {
		other = 'B'
	}
	return token[:middle] + string(other) + token[middle+1:]
}

// unsigned is a token that claims to need no signature: {"alg":"none","typ":"JWT"}.
func unsigned(token string) string {
	claims := strings.Split(token, ".")[1]
	return "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + claims + "."
}

func playExpiredToken(w *world) {
	alice := w.account("alice", "phone")
	brief := login{User: alice.User, Client: "watch", Token: w.run("token", alice.User, "--client", "watch", "--ttl", "1s")}
	var ack connack
	eventually(w.t, func() bool {
		var d device
		if d, ack = w.connect(w.server, dialing{login: brief, Clean: true}); d != nil {
			d.disconnect()
		}
		return ack.Code != 0
	}, "the token must end")
	require.Equal(w.t, w.code(5, 0x87), ack.Code)
	require.Equal(w.t, http.StatusUnauthorized, w.call(brief.Token, http.MethodGet, "/clients", nil, nil))
}

func playLogout(w *world) {
	alice := w.account("alice", "phone")
	laptop := w.also(alice, "laptop")
	a, other := w.online(alice), w.online(laptop)
	begin := time.Now()
	w.logout(alice)
	bye := a.got().gone()
	require.Less(w.t, time.Since(begin), time.Second, "the live session ends at once")
	if w.v5 {
		require.Equal(w.t, 0x87, bye)
	}
	w.refusedConnect(alice, w.code(5, 0x87))
	require.Equal(w.t, http.StatusUnauthorized, w.call(alice.Token, http.MethodGet, "/clients", nil, nil))
	w.nothingMore(other) // which is not concerned
	w.online(w.also(alice, "phone"))
}

func playSignedOut(w *world) {
	alice := w.account("alice", "phone")
	laptop := w.also(alice, "laptop")
	a, other := w.online(alice), w.online(laptop)
	begin := time.Now()
	require.Equal(w.t, http.StatusNoContent, w.call(alice.Token, http.MethodDelete, "/clients/laptop", nil, nil))
	bye := other.got().gone()
	require.Less(w.t, time.Since(begin), time.Second, "the live session ends at once")
	if w.v5 {
		require.Equal(w.t, 0x87, bye)
	}
	w.refusedConnect(laptop, w.code(5, 0x87))
	w.nothingMore(a)
}

func playRefusedSubscriptions(w *world) {
	alice, bob := w.account("alice", "phone"), w.account("bob", "phone")
	laptop := w.also(bob, "laptop")
	refusal := w.code(0x80, 0x87)
	d, _ := w.reconnect(w.server, dialing{login: alice, Clean: true})
	for _, filter := range []string{
		bob.inbox(), bob.own(), laptop.own(), bob.inbox() + "/#", "$IM/node/e2e", "$IM/room/secret",
		"$IM/domain/elsewhere/user/" + alice.User, "news/today", "#", "+/user/" + alice.User, "$SYS/#",
	} {
		require.Equal(w.t, refusal, d.subscribe(filter), filter)
	}
	for _, filter := range []string{alice.inbox(), alice.own(), "$IM/#", "$IM/user/+", "$IM/user/" + alice.User + "/#", "$IM/domain/localhost/user/" + alice.User} {
		require.EqualValues(w.t, 1, d.subscribe(filter), filter)
	}
	from := w.online(w.account("carol", "phone"))
	from.publish(1, bob.inbox(), chat("a secret"))
	w.nothingMore(d)
}

// refusals are publishes that must not be taken.
var refusals = []struct {
	name    string
	to      string // the topic; empty: the other's inbox
	payload string // {alice} and {bob} are filled in
	code    string // of the error event
	reason  byte   // of 5.0
	unread  bool   // so that the event cannot tell the id
}{
	{"forged from", "", `{"id":"x","from":"{bob}","type":"chat","content":{"type":"text","data":""}}`, "forged_from", 0x87, false},
	{"forged from with another client", "", `{"id":"x","from":"{alice}/client/other","type":"chat","content":{"type":"text","data":""}}`, "forged_from", 0x87, false},
	{"wrong to", "", `{"id":"x","to":"{alice}","type":"chat","content":{"type":"text","data":""}}`, "wrong_to", 0x99, false},
	{"not JSON", "", `hello`, "malformed", 0x99, true},
	{"half of JSON", "", `{"id":"x","type":"chat"`, "malformed", 0x99, true},
	{"not an object", "", `["x"]`, "malformed", 0x99, true},
	{"nothing", "", ``, "malformed", 0x99, true},
	{"no id", "", `{"type":"chat","content":{"type":"text","data":""}}`, "invalid_field", 0x99, true},
	{"no type", "", `{"id":"x","content":{"type":"text","data":""}}`, "invalid_field", 0x99, false},
	{"no content", "", `{"id":"x","type":"chat"}`, "invalid_field", 0x99, false},
	{"an unknown type", "", `{"id":"x","type":"spam","content":{"type":"text","data":""}}`, "invalid_field", 0x99, false},
	{"too large", "", `{"id":"x","type":"chat","content":{"type":"text","data":"` + strings.Repeat("x", 65<<10) + `"}}`, "too_large", 0x97, true},
	{"to nobody", "$IM/user/nobody-at-all", chat("x"), "not_found", 0x90, false},
	{"to a client that is not there", "$IM/{bob}/client/none", chat("x"), "not_found", 0x90, false},
	{"to a room of others", "$IM/room/secret", `{"id":"x","type":"grpchat","content":{"type":"text","data":""}}`, "not_a_member", 0x87, false},
	{"chat to a room", "$IM/room/secret", chat("x"), "invalid_field", 0x99, false},
	{"to another domain", "$IM/domain/elsewhere/user/bob", chat("x"), "unknown_domain", 0x90, false},
	{"to no address", "$IM/users/bob", chat("x"), "invalid_address", 0x90, true},
	{"outside of $IM", "news/today", chat("x"), "invalid_address", 0x90, true},
}

func playRefusedPublishes(w *world) {
	alice, bob := w.account("alice", "phone"), w.account("bob", "phone")
	a, b := w.online(alice), w.online(bob)
	fill := strings.NewReplacer("{alice}", alice.address(), "{bob}", bob.address())
	for _, r := range refusals {
		topic := bob.inbox()
		if r.to != "" {
			topic = fill.Replace(r.to)
		}
		for _, qos := range []byte{1, 2, 0} {
			what := fmt.Sprintf("%s at QoS %d", r.name, qos)
			answer := a.publish(qos, topic, fill.Replace(r.payload))
			if w.v5 && qos > 0 {
				require.Equal(w.t, r.reason, answer.Code, "%s: %s", what, answer.Reason)
				require.True(w.t, strings.HasPrefix(answer.Reason, r.code+": "), "%s: %s", what, answer.Reason)
				continue
			}
			event := a.got().refusal()
			require.Equal(w.t, r.code, event.Code, what)
			require.NotEmpty(w.t, event.Message, what)
			if !r.unread {
				require.Equal(w.t, "x", event.ID, what)
			}
		}
	}
	require.Zero(w.t, a.publish(1, bob.inbox(), chat("good")).Code, "the connection is none the worse")
	b.got().take("good")
	w.nothingMore(a, b)
}
