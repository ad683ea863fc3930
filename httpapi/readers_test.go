package httpapi_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/httpapi"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models/dbtest"
)

// slowHistory is a history that answers when it is told to, and notes what it was asked.
type slowHistory struct {
	log     httpapi.History
	entered chan struct{}
	let     chan struct{}
	deepest atomic.Int64
}

func (h *slowHistory) History(ctx context.Context, q httpapi.HistoryQuery) ([]*im.Entry, uint64, error) {
	h.entered <- struct{}{}
	<-h.let
	return h.log.History(ctx, q)
}

func (h *slowHistory) Find(ctx context.Context, sender im.Address, id string, to im.Address, limit int) (*im.Entry, error) {
	h.deepest.Store(max(h.deepest.Load(), int64(limit)))
	return h.log.Find(ctx, sender, id, to, limit)
}

// Who reads a lot waits for itself; the others go on until the whole is too much.
func TestHistoryReadsAreBounded(t *testing.T) {
	slow := &slowHistory{entered: make(chan struct{}, 100), let: make(chan struct{})}
	e := start(t, dbtest.SQLite(t), func(_ *account.Options, d *httpapi.Deps) {
		slow.log, d.History = d.History, slow
		d.HistoryReads, d.HistoryPatience = 3, 50*time.Millisecond
	})
	tokens := map[string]string{}
	for _, name := range []string{"alice", "bob", "carol"} {
		e.addUser(name)
		tokens[name] = e.login(name, "c")
	}
	answers := make(chan answer, 3)
	read := func(name string) { answers <- e.call("GET", "/messages?with=user/alice", tokens[name], "") }
	go read("alice")
	go read("alice")
	<-slow.entered
	<-slow.entered
	a := e.refused(503, "unavailable", "GET", "/messages?with=user/bob", tokens["alice"], "")
	require.NotEmpty(t, a.header.Get("Retry-After"), "a third one of the same user has to wait")
	go read("bob")
	<-slow.entered
	e.refused(503, "unavailable", "GET", "/messages?with=user/bob", tokens["carol"], "")
	require.Empty(t, slow.entered, "none of those refused has read anything")
	e.must(202, "POST", "/messages", tokens["alice"], `{"to":"user/bob","type":"chat","content":{"type":"text","data":"x"}}`)
	close(slow.let)
	for range 3 {
		require.Equal(t, http.StatusOK, (<-answers).status)
	}
	e.must(200, "GET", "/messages?with=user/bob", tokens["alice"], "")
}

// An id that is not there costs a bounded search.
func TestSearchForAnIDIsBounded(t *testing.T) {
	slow := &slowHistory{}
	e := start(t, dbtest.SQLite(t), func(_ *account.Options, d *httpapi.Deps) { slow.log, d.History = d.History, slow })
	e.addUser("alice")
	e.addUser("bob")
	tok := e.login("alice", "c")
	e.refused(404, "not_found", "GET", "/messages?with=user/bob&before=nothing", tok, "")
	require.EqualValues(t, 1000, slow.deepest.Load())
}
