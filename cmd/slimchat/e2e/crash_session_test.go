package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// openSession connects a client that keeps its session for an hour.
func openSession(t *testing.T, s *server, who login) *client.Conn {
	t.Helper()
	conn, err := client.Connect(t.Context(), client.Options{
		Address: s.addr.MQTT, Version: packet.V5, ClientID: who.Client, User: who.User, Password: who.Token, SessionExpiry: 3600,
	})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// nextMessage reads the next message and acknowledges it; its id is empty when none comes for a while.
func nextMessage(t *testing.T, conn *client.Conn, wait time.Duration) (id string) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(wait)))
	frame, err := conn.Reader.Next()
	if err != nil {
		return ""
	}
	return takeMessage(t, conn, frame)
}

func takeMessage(t *testing.T, conn *client.Conn, frame []byte) (id string) {
	t.Helper()
	var p packet.Publish
	require.NoError(t, p.Decode(conn.Version, frame))
	var m message
	require.NoError(t, json.Unmarshal(p.Payload, &m))
	_, err := conn.Write(packet.AppendAck(nil, conn.Version, &packet.Ack{Type: packet.PUBACK, PacketID: p.PacketID}))
	require.NoError(t, err)
	return m.ID
}

// subscribeAndTake subscribes and returns the id of the first message that comes.
func subscribeAndTake(t *testing.T, conn *client.Conn, wait time.Duration) (id string) {
	t.Helper()
	require.NoError(t, conn.Subscribe("$IM/#", 1, func(frame []byte) error {
		if m := takeMessage(t, conn, frame); id == "" {
			id = m
		}
		return nil
	}))
	if id == "" {
		id = nextMessage(t, conn, wait)
	}
	return id
}

func (s *server) sendTo(from login, to, id string) {
	s.t.Helper()
	s.post(from, map[string]any{"to": to, "id": id, "type": "chat", "content": map[string]any{"type": "text", "data": "hi"}})
}

// A client that has been connected for the first time is owed what is sent from then on, even if the server dies before it has
// had time to write anything about that client, and although another client of the user has acknowledged it all.
func TestKillAfterFirstConnection(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 0))
	s := startServer(t, roomy)
	alice, phone := s.account("alice", "app"), s.account("bob", "phone")
	for round := range 8 {
		laptop := s.login("bob", fmt.Sprint("laptop", round))
		first := openSession(t, s, phone)
		if !first.SessionPresent {
			require.NoError(t, first.Subscribe("$IM/#", 1, nil))
		}
		openSession(t, s, laptop) // and has not subscribed yet
		id := fmt.Sprint("m", round)
		s.sendTo(alice, "user/bob", id)
		for got := ""; got != id; {
			got = nextMessage(t, first, patience)
			require.NotEmpty(t, got)
		}
		require.NoError(t, first.Disconnect())
		time.Sleep(time.Duration(rng.Int64N(int64(600 * time.Millisecond)))) // what is written when is the server's affair
		s.kill()
		s.start()
		require.Equal(t, id, subscribeAndTake(t, openSession(t, s, laptop), 3*time.Second), "round %d", round)
	}
}

// A SUBACK is a promise: after a crash a session has its subscriptions, or the server says that there is no session, so that
// the client subscribes again [MQTT-3.2.2-2].
func TestKillAfterSubscribe(t *testing.T) {
	s := startServer(t, roomy)
	alice, bob := s.account("alice", "app"), s.account("bob", "phone")
	require.NoError(t, openSession(t, s, bob).Disconnect())
	s.restart()
	conn := openSession(t, s, bob)
	require.NoError(t, conn.Subscribe(bob.inbox(), 1, nil))
	s.kill()
	s.start()
	s.sendTo(alice, "user/bob", "m1")
	conn = openSession(t, s, bob)
	if conn.SessionPresent {
		require.Equal(t, "m1", nextMessage(t, conn, 3*time.Second), "the session is present and has no subscription")
	} else {
		require.Equal(t, "m1", subscribeAndTake(t, conn, 3*time.Second))
	}
}
