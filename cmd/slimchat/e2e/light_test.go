package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// What a test with thousands of clients uses, so that the test itself costs little: logins made as the operator makes them,
// and connections that are no more than a socket and the packet codec.

// mint makes the users, which share one password hash, and logs clients of theirs in without asking the server: clients(i) are
// the client identifiers of users[i].
func (s *server) mint(users []string, clients func(i int) []string) [][]login {
	s.t.Helper()
	ctx := s.t.Context()
	store, err := models.Open(ctx, "sqlite:"+s.data+"/slimchat.db")
	require.NoError(s.t, err)
	defer store.Close()
	quiet := slog.New(slog.DiscardHandler)
	authority, err := token.New(ctx, token.Options{Domain: "localhost", Keys: store, Log: quiet})
	require.NoError(s.t, err)
	defer authority.Close()
	accounts := account.New(account.Options{Store: store, Tokens: authority, Log: quiet, ClientsPerUser: 10_000})
	all := make([][]login, len(users))
	for i, user := range users {
		_, err := store.CreateUser(ctx, models.User{UID: user})
		require.NoError(s.t, err)
		for _, c := range clients(i) {
			session, err := accounts.Mint(ctx, im.User(user), account.Device{Type: "test", AppID: "e2e", ClientID: c}, time.Hour)
			require.NoError(s.t, err)
			all[i] = append(all[i], login{User: user, Client: c, Token: session.Token})
		}
	}
	return all
}

// names are n user names.
func names(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return list
}

// oneClient gives every user a single client.
func oneClient(int) []string { return []string{"c"} }

// dial connects a light 5.0 client whose session lasts.
func (s *server) dial(ctx context.Context, l login) (*client.Conn, error) {
	return client.Connect(ctx, client.Options{
		Address: s.addr.MQTT, Version: packet.V5, ClientID: l.Client, User: l.User, Password: l.Token, SessionExpiry: 3600,
	})
}

// pump publishes the n messages that next makes, at QoS 1 and with as many in flight as the server takes. Each of them must be
// acknowledged without complaint.
func pump(conn *client.Conn, n int, next func(i int) (topic, payload string)) error {
	sent, acked := 0, 0
	var out []byte
	for acked < n {
		out = out[:0]
		for ; sent < n && sent-acked < conn.SendMax; sent++ {
			topic, payload := next(sent)
			p := packet.Publish{QoS: 1, PacketID: uint16(sent%60_000 + 1), Topic: []byte(topic), Payload: []byte(payload)}
			out = packet.AppendPublish(out, conn.Version, &p)
		}
		if len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return err
			}
		}
		for again := true; again; again = acked < sent && conn.Reader.Buffered() {
			frame, err := conn.Reader.Next()
			if err != nil {
				return fmt.Errorf("waiting for PUBACK: %w", err)
			}
			var ack packet.Ack
			if err := ack.Decode(conn.Version, frame); err != nil {
				return err
			}
			if want := uint16(acked%60_000 + 1); ack.PacketID != want || ack.Reason.Failed() {
				return fmt.Errorf("PUBACK %d with reason 0x%02X, want one for %d: %s", ack.PacketID, uint8(ack.Reason), want, ack.Props.Bytes(packet.ReasonString))
			}
			acked++
		}
	}
	return nil
}

// subscribeLight subscribes at a QoS and returns what was delivered before SUBACK.
func subscribeLight(conn *client.Conn, filter string, qos byte) (early [][]byte, err error) {
	err = conn.Subscribe(filter, qos, func(frame []byte) error {
		early = append(early, append([]byte(nil), frame...))
		return nil
	})
	return early, err
}

// idOf is the id of a delivered message, found without parsing all of it; ids in these tests need no escapes.
func idOf(body []byte) string {
	const mark = `"id":"`
	for i := 0; i+len(mark) < len(body); i++ {
		if string(body[i:i+len(mark)]) == mark {
			rest := body[i+len(mark):]
			for j, c := range rest {
				if c == '"' {
					return string(rest[:j])
				}
			}
		}
	}
	return ""
}

// seqOf is the position that a delivery carries.
func seqOf(p *packet.Publish) (seq uint64) {
	for _, u := range p.Props.User {
		if string(u.Key) == "seq" {
			for _, c := range u.Value {
				seq = seq*10 + uint64(c-'0')
			}
		}
	}
	return seq
}
