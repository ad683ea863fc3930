package e2e

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTooFast(t *testing.T) {
	s := startServer(t, withSetting("limits.publish_rate", 1), withSetting("limits.publish_burst", 5))
	for _, m := range makers(t) {
		t.Run(m.name, func(t *testing.T) {
			s := s.in(t)
			user := "alice-" + strconv.FormatInt(markers.Add(1), 10)
			alice, tablet := s.account(user, "phone"), s.login(user, "tablet")
			a, other := m.online(s, dialing{login: alice, Clean: true}), m.online(s, dialing{login: tablet, Clean: true})
			for i := range 5 {
				id := "m" + strconv.Itoa(i)
				require.Zero(t, a.publish(1, alice.inbox(), chat(id)).Code)
				other.got().take(id)
				a.got().take(id)
			}
			for {
				// A second may pass and with it one more may be taken.
				answer := a.publish(1, tablet.own(), chat("too much"))
				if m.v5 && answer.Code == 0 {
					continue
				}
				if m.v5 {
					require.EqualValues(t, 0x97, answer.Code)
					require.Regexp(t, "^rate_limited: ", answer.Reason)
				} else {
					event := a.got().refusal()
					require.Equal(t, "rate_limited", event.Code)
					require.Equal(t, "too much", event.ID)
				}
				break
			}
			require.Equal(t, http.StatusTooManyRequests, s.call(alice.Token, http.MethodPost, "/messages",
				map[string]any{"to": alice.address(), "id": "x", "type": "chat", "content": map[string]any{"type": "text", "data": ""}}, nil),
				"the limit is the client's, whatever way it takes")
			require.Zero(t, other.publish(1, alice.own(), chat("another client")).Code)
			a.got().take("another client")
		})
	}
}

func TestTooManyClients(t *testing.T) {
	s := startServer(t, withSetting("limits.clients_per_user", 2))
	one, two := s.account("alice", "one"), s.login("alice", "two")
	s.online5(one)
	second := s.online5(two)
	third := map[string]any{"username": "alice", "password": password, "client": map[string]any{"clientid": "three"}}
	var why refusal
	require.Equal(t, http.StatusConflict, s.call("", http.MethodPost, "/login", third, &why))
	require.Equal(t, "too_many_clients", why.Error.Code)
	second.disconnect()
	s.noticesGoing(two)
	three := s.login("alice", "three")
	_, ack := connectPaho5(s, dialing{login: two, Clean: true})
	require.EqualValues(t, 0x87, ack.Code, "the one that is not online has made room")
	s.online5(three)
}

func TestShutdownTellsDevices(t *testing.T) {
	s := startServer(t)
	node := newNode(t)
	alice := s.account("alice", "phone")
	laptop, watch := s.login("alice", "laptop"), s.login("alice", "watch")
	five := s.online5(alice)
	js, ack := node.connect(s, 5, dialing{login: laptop, Clean: true})
	require.Zero(t, ack.Code)
	three, ack := connectPaho3(s, dialing{login: watch, Clean: true})
	require.Zero(t, ack.Code)
	s.stop()
	require.Equal(t, 0x8B, five.gone())
	require.Equal(t, 0x8B, js.got().gone())
	require.Equal(t, -1, three.got().gone())
}
