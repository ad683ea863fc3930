package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/httpapi"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models/dbtest"
	"github.com/slimchat/slimchat/router"
)

type item struct {
	ID, From, To, Client, Type, Thread string
	Content                            json.RawMessage
	TS                                 int64
	Seq                                uint64
}

// page reads a page of history.
func (e *env) page(tok, query string) (items []item, next string) {
	e.t.Helper()
	a := e.must(200, "GET", "/messages?"+query, tok, "")
	var out struct {
		Items []item
		Next  string
	}
	require.NoError(e.t, json.Unmarshal(a.body, &out))
	return out.Items, out.Next
}

func ids(items []item) string {
	list := make([]string, len(items))
	for i, it := range items {
		list[i] = it.ID
	}
	return strings.Join(list, " ")
}

// sendText sends a message and returns its position.
func (e *env) sendText(tok, to, id, extra string) uint64 {
	e.t.Helper()
	a := e.must(202, "POST", "/messages", tok, fmt.Sprintf(
		`{"id":%q,"to":%q,"type":"chat","content":{"type":"text","data":"<&> %s"}%s}`, id, to, id, extra))
	require.Equal(e.t, id, a.json["id"])
	seq, _ := a.json["seq"].(float64)
	require.Positive(e.t, seq)
	return uint64(seq)
}

func TestSendAndHistory(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.addUser("alice")
		e.addUser("bob")
		alice, bob := e.login("alice", "phone"), e.login("bob", "laptop")
		e.login("alice", "laptop") // so that copies are kept, which history leaves out
		seq := e.sendText(alice, "user/bob", "m1", `,"thread":"t1","extra":{"a":[1]}`)
		e.sendText(bob, "domain/here.org/user/alice", "m2", "")
		made := e.must(202, "POST", "/messages", alice, `{"to":"user/bob","type":"chat","content":{"type":"text","data":"x"}}`)
		id, _ := made.json["id"].(string)
		require.NotEmpty(t, id, "an id is made up")

		for _, tc := range []struct{ tok, with string }{{alice, "user/bob"}, {bob, "domain/here.org/user/alice"}} {
			items, next := e.page(tc.tok, "with="+url.QueryEscape(tc.with))
			require.Equal(t, id+" m2 m1", ids(items))
			require.Empty(t, next)
			m1 := items[2]
			require.Equal(t, "user/alice", m1.From)
			require.Equal(t, "user/bob", m1.To)
			require.Equal(t, "phone", m1.Client)
			require.Equal(t, "t1", m1.Thread)
			require.Equal(t, seq, m1.Seq)
			require.Positive(t, m1.TS)
			require.Equal(t, `{"type":"text","data":"<&> m1"}`, string(m1.Content), "byte for byte")
		}
		again := e.must(202, "POST", "/messages", alice, `{"id":"m1","to":"user/bob","type":"chat","content":{"type":"text","data":"again"}}`)
		require.EqualValues(t, seq, again.json["seq"], "the same id is the same message")
		items, _ := e.page(alice, "with=user/alice")
		require.Empty(t, items, "notes to oneself are another conversation")
	})
}

// forgetful is a publisher whose answers get lost, though the messages do not.
type forgetful struct{ httpapi.Publisher }

func (f forgetful) Publish(ctx context.Context, sender im.Principal, p router.Publish, done router.Done) {
	f.Publisher.Publish(ctx, sender, p, func(r router.Receipt, err error) {
		if err == nil && r.Duplicate {
			done(r, nil)
			return
		}
		done(router.Receipt{}, im.Errorf(im.CodeUnavailable, "", "the log did not answer"))
	})
}

// Who leaves the id to us can still send again without sending twice.
func TestSendingAgainAfterNoAnswer(t *testing.T) {
	e := start(t, dbtest.SQLite(t), func(_ *account.Options, d *httpapi.Deps) { d.Publisher = forgetful{d.Publisher} })
	e.addUser("alice")
	tok := e.login("alice", "phone")
	body := ` {"to":"user/alice","type":"chat","content":{"type":"text","data":"x"}}`
	a := e.refused(503, "unavailable", "POST", "/messages", tok, body)
	id := a.header.Get("X-Message-Id")
	require.NotEmpty(t, id)
	require.Contains(t, string(a.body), id)
	again := e.must(202, "POST", "/messages", tok, strings.Replace(body, "{", `{"id":"`+id+`",`, 1))
	require.Equal(t, id, again.json["id"])
	items, _ := e.page(tok, "with=user/alice")
	require.Equal(t, id, ids(items))

	_, field := e.refused(400, "invalid_field", "POST", "/messages", tok, strings.Replace(body, "{", `{"id":"",`, 1)).err()
	require.Equal(t, "id", field)
}

func TestRefusedMessages(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	e.addUser("alice")
	e.addUser("bob")
	tok := e.login("alice", "phone")
	body := func(to, extra string) string {
		return fmt.Sprintf(`{"to":%q,"type":"chat","content":{"type":"text","data":"x"}%s}`, to, extra)
	}
	e.refused(404, "not_found", "POST", "/messages", tok, body("user/nobody", ""))
	e.refused(404, "not_found", "POST", "/messages", tok, body("user/bob/client/none", ""))
	e.refused(403, "forged_from", "POST", "/messages", tok, body("user/bob", `,"from":"user/carol"`))
	e.refused(413, "too_large", "POST", "/messages", tok, body("user/bob", `,"x":"`+strings.Repeat("x", 65<<10)+`"`))
	e.refused(403, "not_a_member", "GET", "/messages?with=room/r", tok, "")
	e.refused(404, "unknown_domain", "GET", "/messages?with=domain/there.org/user/bob", tok, "")
	e.refused(404, "not_found", "GET", "/messages?with=user/bob&around=nothing", tok, "")
}

func TestHistoryPages(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	e.addUser("alice")
	e.addUser("bob")
	alice, bob := e.login("alice", "phone"), e.login("bob", "laptop")
	seqs := make([]uint64, 13)
	for i := 1; i <= 12; i++ {
		tok, to, extra := alice, "user/bob", ""
		if i%3 == 0 {
			tok, to = bob, "user/alice"
		}
		if i%4 == 0 {
			extra = `,"thread":"t"`
		}
		seqs[i] = e.sendText(tok, to, fmt.Sprintf("m%d", i), extra)
	}

	walk := func(query string) (pages []string) {
		t.Helper()
		items, next := e.page(alice, query)
		pages = append(pages, ids(items))
		for next != "" {
			require.Less(t, len(pages), 20, "the pages never end")
			var rest []string
			for _, part := range strings.Split(query, "&") {
				if name, _, _ := strings.Cut(part, "="); name != "before" && name != "after" && name != "around" {
					rest = append(rest, part)
				}
			}
			items, next = e.page(alice, strings.Join(rest, "&")+"&cursor="+next)
			if len(items) > 0 {
				pages = append(pages, ids(items))
			}
		}
		return pages
	}
	for name, tc := range map[string]struct {
		query string
		want  []string
	}{
		"newest first":    {"limit=5", []string{"m12 m11 m10 m9 m8", "m7 m6 m5 m4 m3", "m2 m1"}},
		"before an id":    {"limit=4&before=m6", []string{"m5 m4 m3 m2", "m1"}},
		"before a seq":    {fmt.Sprintf("limit=9&before=%d", seqs[6]), []string{"m5 m4 m3 m2 m1"}},
		"after an id":     {"limit=3&after=m7", []string{"m10 m9 m8", "m12 m11"}},
		"after a seq":     {fmt.Sprintf("after=%d", seqs[10]), []string{"m12 m11"}},
		"after the last":  {"after=m12", []string{""}},
		"before first":    {"before=m1", []string{""}},
		"around":          {"limit=4&around=m6", []string{"m8 m7 m6 m5", "m4 m3 m2 m1"}},
		"around one":      {"limit=1&around=m6", []string{"m6", "m5", "m4", "m3", "m2", "m1"}},
		"around the last": {"limit=4&around=m12", []string{"m12 m11 m10 m9", "m8 m7 m6 m5", "m4 m3 m2 m1"}},
		"their messages":  {"from=user/bob&limit=3", []string{"m12 m9 m6", "m3"}},
		"own messages":    {"from=domain/here.org/user/alice&limit=20", []string{"m11 m10 m8 m7 m5 m4 m2 m1"}},
		"a thread":        {"thread=t", []string{"m12 m8 m4"}},
		"a type":          {"type=event", []string{""}},
		"two filters":     {"thread=t&from=user/alice&type=chat", []string{"m8 m4"}},
		"filter, after":   {"thread=t&after=m1&limit=2", []string{"m8 m4", "m12"}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, walk("with=user/bob&"+tc.query)) })
	}
}

// A conversation is read by its two sides and nobody else.
func TestHistoryIsPrivate(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	for _, name := range []string{"alice", "bob", "carol"} {
		e.addUser(name)
	}
	alice, carol := e.login("alice", "c"), e.login("carol", "c")
	seq := e.sendText(alice, "user/bob", "secret", "")
	for _, with := range []string{"user/alice", "user/bob", "user/carol", "node/alice"} {
		for _, query := range []string{"", "&after=1", fmt.Sprintf("&around=%d", seq)} {
			items, _ := e.page(carol, "with="+with+query)
			require.Empty(t, items)
		}
		e.refused(404, "not_found", "GET", "/messages?with="+with+"&around=secret", carol, "")
	}
}
