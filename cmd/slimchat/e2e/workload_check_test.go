package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
)

// verify finishes the workload and checks everything that must hold, on the server that runs now. It returns the number of
// messages that were acknowledged.
func (w *workload) verify(s *server) int {
	w.t.Helper()
	begin := time.Now()
	missing := w.finish()
	received := time.Now()
	w.checkHistory(s)
	w.t.Logf("the readers had it all after %s, the log was read in %s", received.Sub(begin).Round(time.Millisecond), time.Since(received).Round(time.Millisecond))
	w.checkOrder()
	w.checkRefused()
	w.requireNoProblems()
	require.Empty(w.t, missing)
	return w.report()
}

// report logs what was done and returns the number of acknowledged messages.
func (w *workload) report() int {
	promised, deliveries, repeats, connects := 0, 0, 0, int64(0)
	for _, c := range w.convs {
		promised += c.count(acked)
	}
	for _, r := range w.readers {
		deliveries += len(r.box.order)
		repeats += r.box.repeats
		connects += r.connects.Load()
	}
	publishing := int64(0)
	for _, p := range w.publishers {
		publishing += p.connects.Load()
	}
	w.t.Logf("%d messages acknowledged, %d refused, %d deliveries and %d repeats to %d clients over %d connections; publishers connected %d times",
		promised, w.refusals.Load(), deliveries, repeats, len(w.readers), connects, publishing)
	return promised
}

// checkHistory reads every conversation of users over REST: each message once, in order, where it was delivered from.
func (w *workload) checkHistory(s *server) {
	w.t.Helper()
	logins := map[string]login{}
	for _, r := range w.readers {
		logins[r.box.owner.User] = r.box.owner
	}
	for _, c := range w.convs {
		if c.to.Kind == im.KindUser {
			w.checkConversation(c, w.wholeHistory(s, logins[c.to.ID], c))
		}
	}
}

// wholeHistory is a conversation page by page, newest first.
func (w *workload) wholeHistory(s *server, who login, c *conversation) (all []message) {
	w.t.Helper()
	query := url.Values{"with": {c.sender.address()}, "limit": {"200"}}
	for {
		var got page
		status := s.call(who.Token, http.MethodGet, "/messages?"+query.Encode(), nil, &got)
		require.Equal(w.t, http.StatusOK, status)
		all = append(all, got.Items...)
		if got.Next == "" {
			return all
		}
		query.Set("cursor", got.Next)
	}
}

// checkConversation checks the log of one conversation, newest first.
func (w *workload) checkConversation(c *conversation, entries []message) {
	seen := make(map[int]bool, len(entries))
	above := uint64(0)
	lastN := 0
	for _, m := range slices.Backward(entries) {
		conv, n, ours := parseID(w.tag, m.ID)
		switch {
		case !ours || conv != c.index:
			w.problem(fmt.Sprintf("the log of conversation %d has message %q", c.index, m.ID))
			continue
		case seen[n]:
			w.problem(fmt.Sprintf("the log has message %s twice", m.ID))
		case m.Seq <= above:
			w.problem(fmt.Sprintf("history has position %d after %d", m.Seq, above))
		case n < lastN:
			w.problem(fmt.Sprintf("the log has message %s after number %d, which was sent later", m.ID, lastN))
		case m.From != c.sender.address() || m.Client != c.sender.Client || m.To != c.to.String():
			w.problem(fmt.Sprintf("the log has message %s from %s client %s to %s", m.ID, m.From, m.Client, m.To))
		}
		other, exists := c.place(n, m.Seq, false)
		switch {
		case !exists:
			w.problem(fmt.Sprintf("the log has message %s, which was never sent", m.ID))
		case other != 0:
			w.problem(fmt.Sprintf("the log has message %s at position %d, delivered was %d", m.ID, m.Seq, other))
		}
		seen[n], above, lastN = true, m.Seq, n
	}
	lost := 0
	for n, v := range c.verdict {
		switch {
		case v == acked && !seen[n]:
			lost++
		case v == declined && seen[n]:
			w.problem(fmt.Sprintf("message %s was refused and is in the log", messageID(w.tag, c.index, n)))
		}
	}
	if lost > 0 {
		w.problem(fmt.Sprintf("the log of conversation %d lacks %d acknowledged messages", c.index, lost))
	}
}

// checkOrder checks that every client got all that is new to it in the order of the log, over all its connections.
func (w *workload) checkOrder() {
	for _, r := range w.readers {
		b := r.box
		last, wrong := uint64(0), 0
		for _, at := range b.order {
			c := w.convs[at.conv]
			seq := c.seq[at.n]
			if b.role(c) == alsoMine {
				seq = c.copySeq[at.n]
			}
			switch {
			case seq == 0: // of a conversation that has no history, with a client that is not told positions
			case seq <= last:
				if wrong++; wrong <= 3 {
					b.problem("got %s at position %d after position %d", messageID(w.tag, c.index, int(at.n)), seq, last)
				}
			default:
				last = seq
			}
		}
	}
}

// checkRefused checks that nobody got what was refused.
func (w *workload) checkRefused() {
	for _, r := range w.readers {
		for _, at := range r.box.order {
			if c := w.convs[at.conv]; c.verdict[at.n] == declined {
				r.box.problem("got message %s, which was refused", messageID(w.tag, c.index, int(at.n)))
			}
		}
	}
}
