package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// conversing is a conversation of alice and bob that a test reads: 30 messages by turns, m00 to m29, with those of other
// conversations between them.
type conversing struct {
	*server
	alice, bob login
	ids        []string
	seqs       map[string]uint64
}

func newConversing(s *server) *conversing {
	s.t.Helper()
	c := &conversing{server: s, alice: s.account("alice", "phone"), bob: s.account("bob", "phone"), seqs: make(map[string]uint64)}
	carol := s.account("carol", "phone")
	s.login("alice", "laptop") // so that copies of what she sends are in the log
	a, b, other := s.online5(c.alice), s.online5(c.bob), s.online5(carol)
	for i := range 30 {
		id := fmt.Sprintf("m%02d", i)
		from, to := a, c.bob
		if i%2 == 1 {
			from, to = b, c.alice
		}
		thread, kind := "", "chat"
		if i%5 == 0 {
			thread = "fifth"
		}
		if i%7 == 0 {
			kind = "event"
		}
		body := fmt.Sprintf(`{"id":%q,"type":%q,"thread":%q,"content":{"type":"text","data":%d}}`, id, kind, thread, i)
		require.Zero(s.t, from.publish(1, to.inbox(), body).Code)
		require.Zero(s.t, other.publish(1, to.inbox(), chat("noise "+id)).Code)
		c.ids = append(c.ids, id)
	}
	all := s.history(c.alice, "with", "user/bob", "limit", "200")
	newestFirst := slices.Clone(c.ids)
	slices.Reverse(newestFirst)
	require.Equal(s.t, newestFirst, ids(all.Items), "everything, newest first, and nothing of others")
	require.Empty(s.t, all.Next)
	for _, m := range all.Items {
		c.seqs[m.ID] = m.Seq
	}
	return c
}

// newest is the messages [from, to) with the newest first.
func (c *conversing) newest(from, to int) []string {
	part := slices.Clone(c.ids[from:to])
	slices.Reverse(part)
	return part
}

// get is a page that alice asks for.
func (c *conversing) get(query ...string) page {
	c.t.Helper()
	return c.history(c.alice, append([]string{"with", "user/bob"}, query...)...)
}

func TestHistory(t *testing.T) {
	c := newConversing(startServer(t, fast))
	position := func(id string) string { return strconv.FormatUint(c.seqs[id], 10) }

	t.Run("both sides see the same", func(*testing.T) {
		require.Equal(t, c.get().Items, c.history(c.bob, "with", "user/alice").Items)
		require.Equal(t, c.get().Items, c.history(c.bob, "with", "domain/localhost/user/alice").Items)
	})
	t.Run("paging", func(*testing.T) {
		for _, limit := range []int{1, 7, 10, 30, 31} {
			var got []string
			query := []string{"limit", strconv.Itoa(limit)}
			for {
				p := c.get(query...)
				require.LessOrEqual(t, len(p.Items), limit)
				got = append(got, ids(p.Items)...)
				if p.Next == "" {
					break
				}
				query = []string{"limit", strconv.Itoa(limit), "cursor", p.Next}
			}
			require.Equal(t, c.newest(0, 30), got, "limit %d", limit)
		}
	})
	t.Run("before, after and around", func(*testing.T) {
		for _, at := range []string{"m12", position("m12")} {
			require.Equal(t, c.newest(7, 12), ids(c.get("before", at, "limit", "5").Items), "before %s", at)
			require.Equal(t, c.newest(13, 18), ids(c.get("after", at, "limit", "5").Items), "after %s", at)
			require.Equal(t, c.newest(10, 15), ids(c.get("around", at, "limit", "5").Items), "around %s", at)
		}
		require.Empty(t, c.get("before", "m00").Items)
		require.Empty(t, c.get("after", "m29").Items)
		require.Equal(t, c.newest(27, 30), ids(c.get("around", "m29", "limit", "3").Items), "at the end")
		require.Equal(t, c.newest(0, 2), ids(c.get("around", "m00", "limit", "3").Items), "at the beginning")
	})
	t.Run("forward paging", func(*testing.T) {
		var got []string
		query := []string{"after", "m09", "limit", "6"}
		for {
			p := c.get(query...)
			oldestFirst := ids(p.Items)
			slices.Reverse(oldestFirst)
			got = append(got, oldestFirst...)
			if p.Next == "" {
				break
			}
			query = []string{"limit", "6", "cursor", p.Next}
		}
		require.Equal(t, c.ids[10:], got)
	})
	t.Run("filters", func(*testing.T) {
		require.Equal(t, []string{"m25", "m20", "m15", "m10", "m05", "m00"}, ids(c.get("thread", "fifth").Items))
		require.Equal(t, []string{"m28", "m21", "m14", "m07", "m00"}, ids(c.get("type", "event").Items))
		require.Len(t, c.get("from", "user/bob").Items, 15)
		for _, m := range c.get("from", "user/bob").Items {
			require.Equal(t, "user/bob", m.From)
		}
		require.Equal(t, []string{"m00"}, ids(c.get("thread", "fifth", "type", "event", "from", "user/alice").Items))
		require.Equal(t, []string{"m20", "m15"}, ids(c.get("thread", "fifth", "before", "m25", "limit", "2").Items))
	})
	t.Run("a message is as it was delivered", func(*testing.T) {
		m := c.get("around", "m05", "limit", "1").Items[0]
		require.Equal(t, "m05", m.ID)
		require.Equal(t, "user/bob", m.From)
		require.Equal(t, "user/alice", m.To)
		require.Equal(t, "phone", m.Client)
		require.Equal(t, "fifth", m.Thread)
		require.Equal(t, "5", string(m.Content.Data))
	})
	t.Run("after a restart", func(*testing.T) {
		before := c.get("limit", "30").Items
		c.kill()
		c.start()
		require.Equal(t, before, c.get("limit", "30").Items)
	})
	t.Run("refused", func(t *testing.T) { refusedHistory(t, c) })
}

func refusedHistory(t *testing.T, c *conversing) {
	for query, want := range map[string]struct {
		status int
		field  string
	}{
		"":                                {http.StatusBadRequest, "with"},
		"with=bob":                        {http.StatusBadRequest, "with"},
		"with=user/bob/client/phone":      {http.StatusBadRequest, "with"},
		"with=room/secret":                {http.StatusForbidden, "with"},
		"with=domain/elsewhere/user/bob":  {http.StatusNotFound, "with"},
		"with=user/bob&before=never":      {http.StatusNotFound, "before"},
		"with=user/bob&before=1&after=2":  {http.StatusBadRequest, "after"},
		"with=user/bob&limit=0":           {http.StatusBadRequest, "limit"},
		"with=user/bob&limit=many":        {http.StatusBadRequest, "limit"},
		"with=user/bob&cursor=x":          {http.StatusBadRequest, "cursor"},
		"with=user/bob&cursor=" + "b1%00": {http.StatusBadRequest, "cursor"},
		"with=user/bob&sort=newest":       {http.StatusBadRequest, "sort"},
		"with=user/bob&from=nobody":       {http.StatusBadRequest, "from"},
		"with=user/bob&around=" + fmt.Sprint(uint64(1)<<63): {http.StatusNotFound, "around"},
	} {
		var why refusal
		require.Equal(t, want.status, c.call(c.alice.Token, http.MethodGet, "/messages?"+query, nil, &why), "%s: %+v", query, why)
		require.Equal(t, want.field, why.Error.Field, query)
	}
	require.Equal(t, http.StatusUnauthorized, c.call("", http.MethodGet, "/messages?with=user/bob", nil, nil))
	// Nobody reads what others say: a stranger's history with one of the two has nothing of theirs.
	eve := c.account("eve", "phone")
	require.Empty(t, c.history(eve, "with", "user/bob").Items)
	require.Empty(t, c.history(eve, "with", "user/bob", "from", "user/alice").Items)
	require.Equal(t, http.StatusNotFound, c.call(eve.Token, http.MethodGet, "/messages?"+url.Values{"with": {"user/bob"}, "around": {"m05"}}.Encode(), nil, nil))
}

// TestRESTRefusals sends over REST what the router must not take.
func TestRESTRefusals(t *testing.T) {
	s := startServer(t, fast)
	alice, bob := s.account("alice", "phone"), s.account("bob", "phone")
	b := s.online5(bob)
	content := `"content":{"type":"text","data":""}`
	for name, test := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"forged from":          {`{"id":"x","to":"user/bob","from":"user/bob","type":"chat",` + content + `}`, http.StatusForbidden, "forged_from"},
		"no to":                {`{"id":"x","type":"chat",` + content + `}`, http.StatusBadRequest, "invalid_field"},
		"no such user":         {`{"id":"x","to":"user/nobody","type":"chat",` + content + `}`, http.StatusNotFound, "not_found"},
		"no address":           {`{"id":"x","to":"bob","type":"chat",` + content + `}`, http.StatusBadRequest, "invalid_address"},
		"another domain":       {`{"id":"x","to":"domain/b/user/bob","type":"chat",` + content + `}`, http.StatusNotFound, "unknown_domain"},
		"a room of others":     {`{"id":"x","to":"room/secret","type":"grpchat",` + content + `}`, http.StatusForbidden, "not_a_member"},
		"not JSON":             {`hello`, http.StatusBadRequest, "malformed"},
		"no content":           {`{"id":"x","to":"user/bob","type":"chat"}`, http.StatusBadRequest, "invalid_field"},
		"the same field twice": {`{"id":"x","to":"user/bob","to":"user/eve","type":"chat",` + content + `}`, http.StatusBadRequest, "invalid_field"},
		"too large":            {`{"id":"x","to":"user/bob","type":"chat","content":{"type":"text","data":"` + strings.Repeat("x", 65<<10) + `"}}`, http.StatusRequestEntityTooLarge, "too_large"},
	} {
		var why refusal
		require.Equal(t, test.status, s.call(alice.Token, http.MethodPost, "/messages", test.body, &why), name)
		require.Equal(t, test.code, why.Error.Code, name)
	}
	good := `{"id":"good","to":"user/bob","type":"chat",` + content + `,"ts":1,"client":"forged","seq":5}`
	var first, again sent
	require.Equal(t, http.StatusAccepted, s.call(alice.Token, http.MethodPost, "/messages", good, &first))
	require.Equal(t, http.StatusAccepted, s.call(alice.Token, http.MethodPost, "/messages/", good, &again))
	require.Equal(t, first, again, "the same message, not sent twice")
	got := b.take("good")
	require.Equal(t, "phone", got.Client)
	require.Equal(t, first.TS, got.TS)
	require.Equal(t, strconv.FormatUint(first.Seq, 10), got.user("seq"))
	require.NotContains(t, got.Body, `"seq"`)
	var nameless sent
	require.Equal(t, http.StatusAccepted, s.call(alice.Token, http.MethodPost, "/messages", `{"to":"user/bob","type":"chat",`+content+`}`, &nameless))
	require.NotEmpty(t, nameless.ID, "an id is made up")
	b.take(nameless.ID)
	s.nothingMore(b)
}
