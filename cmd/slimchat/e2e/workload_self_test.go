package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// ledgerOf is a workload without a server: one conversation from alice to bob, and bob's client with its connection.
func ledgerOf(t *testing.T, messages int) (*workload, *reader, *stream) {
	t.Helper()
	w := &workload{t: t, tag: "t", size: func(int, int) int { return 10 }, complaints: map[string]complaint{}, cancel: func() {}}
	c := &conversation{sender: login{User: "alice", Client: "app"}, to: im.User("bob")}
	w.convs = []*conversation{c}
	r := newReader(w, login{User: "bob", Client: "phone"}, habits{version: packet.V5}, 1)
	r.box.connected()
	w.readers = []*reader{r}
	for range messages {
		c.settle(c.next(), acked)
	}
	return w, r, &stream{version: packet.V5}
}

// arrive makes message n arrive at a position, after a change to it.
func arrive(r *reader, s *stream, n int, seq uint64, change func(*packet.Publish)) {
	body := fmt.Sprintf(`{"id":"t.0.%d","type":"chat","content":{"type":"text","data":"%s"},"from":"user/alice","client":"app","to":"user/bob","thread":"","ts":1}`,
		n, r.w.text(0, n))
	p := &packet.Publish{QoS: 1, PacketID: 1, Topic: []byte("$IM/user/bob"), Payload: []byte(body)}
	p.Props.AddUser([]byte("seq"), fmt.Append(nil, seq))
	if change != nil {
		change(p)
	}
	r.box.receive(s, p)
}

func replace(old, text string) func(*packet.Publish) {
	return func(p *packet.Publish) { p.Payload = []byte(strings.Replace(string(p.Payload), old, text, 1)) }
}

// TestLedgerFindsFaults shows the ledger what servers must never do, one at a time.
func TestLedgerFindsFaults(t *testing.T) {
	for _, test := range []struct {
		name, problem string
		fault         func(w *workload, r *reader, s *stream)
	}{
		{"none", "", func(_ *workload, r *reader, s *stream) {
			arrive(r, s, 2, 12, nil)
		}},
		{"repeat on another connection", "", func(_ *workload, r *reader, s *stream) {
			arrive(r, &stream{version: packet.V5}, 1, 11, nil)
			arrive(r, s, 2, 12, nil)
		}},
		{"repeat on the same connection", "on the same connection", func(_ *workload, r *reader, s *stream) {
			arrive(r, s, 1, 11, nil)
		}},
		{"repeat at another position", "at 11 before", func(_ *workload, r *reader, s *stream) {
			arrive(r, &stream{version: packet.V5}, 1, 13, nil)
		}},
		{"first delivery out of order", "for the first time after", func(_ *workload, r *reader, _ *stream) {
			arrive(r, &stream{version: packet.V5}, 2, 9, nil)
		}},
		{"another sender", "says from", func(_ *workload, r *reader, s *stream) {
			arrive(r, s, 2, 12, replace(`"from":"user/alice"`, `"from":"user/mallory"`))
		}},
		{"another client", "says from", func(_ *workload, r *reader, s *stream) {
			arrive(r, s, 2, 12, replace(`"client":"app"`, `"client":"web"`))
		}},
		{"another content", "another content", func(_ *workload, r *reader, s *stream) {
			arrive(r, s, 2, 12, replace(`"data":"All`, `"data":"all`))
		}},
		{"another topic", "came on", func(_ *workload, r *reader, s *stream) {
			arrive(r, s, 2, 12, func(p *packet.Publish) { p.Topic = []byte("$IM/user/alice") })
		}},
		{"never sent", "never sent", func(_ *workload, r *reader, s *stream) { arrive(r, s, 9, 12, nil) }},
		{"not ours", "nobody sent", func(_ *workload, r *reader, s *stream) {
			arrive(r, s, 2, 12, replace(`"t.0.2"`, `"x"`))
		}},
		{"stranger", "not for it", func(w *workload, _ *reader, s *stream) {
			x := newReader(w, login{User: "mallory", Client: "phone"}, habits{version: packet.V5}, 2)
			x.box.connected()
			arrive(x, s, 2, 12, nil)
		}},
		{"refused and delivered", "was refused", func(w *workload, r *reader, s *stream) {
			w.convs[0].settle(2, declined)
			arrive(r, s, 2, 12, nil)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, r, s := ledgerOf(t, 3)
			arrive(r, s, 1, 11, nil)
			test.fault(w, r, s)
			w.checkOrder()
			w.checkRefused()
			if test.problem == "" {
				require.Empty(t, w.sample())
				return
			}
			require.NotEmpty(t, w.sample())
			require.Contains(t, w.sample()[0], test.problem)
		})
	}
}

// TestLedgerFindsLosses: what was promised and did not come is missing, what was not promised is not.
func TestLedgerFindsLosses(t *testing.T) {
	w, r, s := ledgerOf(t, 3)
	w.convs[0].next() // sent and not answered
	arrive(r, s, 1, 11, nil)
	arrive(r, s, 3, 13, nil)
	n, first := r.box.lacks()
	require.Equal(t, 1, n)
	require.Equal(t, []string{"t.0.2@0"}, first)
}

// TestLedgerReadsTheLog: each message once, in the order of sending, where it was delivered from.
func TestLedgerReadsTheLog(t *testing.T) {
	entry := func(n int, seq uint64) message {
		return message{ID: messageID("t", 0, n), Seq: seq, From: "user/alice", Client: "app", To: "user/bob"}
	}
	for _, test := range []struct {
		name, problem string
		log           []message // newest first
	}{
		{"whole", "", []message{entry(3, 13), entry(2, 12), entry(1, 11)}},
		{"twice", "twice", []message{entry(2, 14), entry(3, 13), entry(2, 12), entry(1, 11)}},
		{"lost", "lacks 1 ", []message{entry(3, 13), entry(1, 11)}},
		{"out of order", "sent later", []message{entry(2, 13), entry(3, 12), entry(1, 11)}},
		{"moved", "delivered was 11", []message{entry(3, 13), entry(2, 12), entry(1, 10)}},
		{"foreign", `has message "x"`, []message{entry(3, 13), entry(2, 12), entry(1, 11), {ID: "x"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, r, s := ledgerOf(t, 3)
			arrive(r, s, 1, 11, nil)
			w.checkConversation(w.convs[0], test.log)
			if test.problem == "" {
				require.Empty(t, w.sample())
				return
			}
			require.Contains(t, strings.Join(w.sample(), "\n"), test.problem)
		})
	}
}
