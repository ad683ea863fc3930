package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/cluster"
	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/httpapi"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
	"github.com/slimchat/slimchat/models/dbtest"
	"github.com/slimchat/slimchat/msglog"
	"github.com/slimchat/slimchat/router"
)

const (
	domain   = "here.org"
	password = "correct horse"
)

// online is who has a live session, as the test says.
type online struct {
	mu  sync.Mutex
	set map[string]bool
}

func (o *online) IsOnline(owner im.Address, client string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.set[owner.String()+" "+client]
}

func (o *online) put(owner im.Address, clients ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range clients {
		o.set[owner.String()+" "+c] = true
	}
}

// env is the REST service on a real database and a real log.
type env struct {
	t        testing.TB
	store    *models.Store
	feed     *models.Feed
	tokens   *token.Authority
	accounts *account.Service
	online   *online
	log      *msglog.Log
	api      *httpapi.API
	url      string
	broken   error // what the check "log" of /readyz says
}

// logReader gives the REST service the log's history.
type logReader struct{ *msglog.Log }

func (l logReader) History(ctx context.Context, q httpapi.HistoryQuery) ([]*im.Entry, uint64, error) {
	return l.Log.History(ctx, msglog.HistoryQuery(q))
}

// directory answers the router from the database.
type directory struct{ store *models.Store }

func (d directory) Exists(ctx context.Context, a im.Address) (bool, error) {
	if a.Kind == im.KindClient {
		return d.store.ClientExists(ctx, a.ID, a.Client)
	}
	return d.store.UserExists(ctx, a.ID)
}

func (d directory) Clients(ctx context.Context, uid string) (int, error) {
	return d.store.ClientCount(ctx, uid)
}

// start runs the service; change may edit its options.
func start(t testing.TB, dsn string, change func(*account.Options, *httpapi.Deps)) *env {
	t.Helper()
	ctx, quiet := context.Background(), slog.New(slog.NewTextHandler(io.Discard, nil))
	e := &env{t: t, online: &online{set: make(map[string]bool)}}
	var err error
	e.store, err = models.Open(ctx, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.store.Close()) })
	e.tokens, err = token.New(ctx, token.Options{Domain: domain, Keys: e.store, Log: quiet})
	require.NoError(t, err)
	t.Cleanup(e.tokens.Close)
	e.feed = models.NewFeed(e.store, quiet)
	e.feed.OnChange(e.tokens.Apply)

	rt := e.startLog(func(r *router.Router) {
		e.feed.OnChange(func(c models.Change) {
			if c.Owner.Kind == im.KindUser {
				r.Evict(c.Owner, im.Client(c.Owner.ID, c.Client))
			}
		})
	})
	require.NoError(t, e.feed.Start(ctx))
	t.Cleanup(e.feed.Close)

	o := account.Options{
		Store: e.store, Tokens: e.tokens, Log: quiet, Sessions: e.online,
		Hash: account.HashParams{MemoryKiB: 64, Passes: 1, Threads: 1},
	}
	d := httpapi.Deps{
		Domain: domain, Tokens: e.tokens, Publisher: rt, History: logReader{e.log}, Log: quiet,
		Ready: []httpapi.Check{{Name: "log", Run: func(context.Context) error { return e.broken }}},
		Endpoints: func(r *http.Request) httpapi.Endpoints {
			return httpapi.Endpoints{TCP: "mqtt://" + domain + ":1883", WS: "ws://" + r.Host + "/mqtt"}
		},
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
	if change != nil {
		change(&o, &d)
	}
	e.accounts = account.New(o)
	d.Accounts = e.accounts
	e.api, err = httpapi.New(d)
	require.NoError(t, err)
	server := httptest.NewServer(e.api)
	t.Cleanup(server.Close)
	e.url = server.URL
	return e
}

// startLog runs a router on a real log; wire is called before anything may change.
func (e *env) startLog(wire func(*router.Router)) *router.Router {
	ctx, dir := context.Background(), e.t.TempDir()
	node, err := cluster.Start(ctx, cluster.Options{DataDir: dir, NodeName: "n1", Domain: domain})
	require.NoError(e.t, err)
	e.log, err = msglog.Open(ctx, msglog.Options{Server: node, DataDir: dir, Durability: msglog.DurabilityProcess})
	require.NoError(e.t, err)
	engine := delivery.New(delivery.Options{Log: e.log, Domain: domain})
	require.NoError(e.t, engine.Start(ctx))
	rt := router.New(router.Options{
		Domain: domain, Log: e.log, Directory: directory{e.store}, Window: engine.Window(), Pusher: engine,
	})
	wire(rt)
	e.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(e.t, engine.Stop(ctx))
		require.NoError(e.t, e.log.Close(ctx))
		require.NoError(e.t, node.Stop(ctx))
	})
	return rt
}

// onEach runs a test on every database.
func onEach(t *testing.T, test func(t *testing.T, e *env)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, dsn string) { test(t, start(t, dsn, nil)) })
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   []byte
	json   map[string]any
}

func (a answer) err() (code, field string) {
	e, _ := a.json["error"].(map[string]any)
	code, _ = e["code"].(string)
	field, _ = e["field"].(string)
	return code, field
}

// call makes a request; headers are name and value in turn.
func (e *env) call(method, path, bearer, body string, headers ...string) answer {
	e.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, e.url+path, strings.NewReader(body))
	require.NoError(e.t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	require.NoError(e.t, err)
	defer func() { _ = res.Body.Close() }()
	a := answer{status: res.StatusCode, header: res.Header}
	a.body, err = io.ReadAll(res.Body)
	require.NoError(e.t, err)
	if bytes.HasPrefix(a.body, []byte("{")) {
		require.NoError(e.t, json.Unmarshal(a.body, &a.json), string(a.body))
	}
	return a
}

// must makes a request that succeeds.
func (e *env) must(status int, method, path, bearer, body string) answer {
	e.t.Helper()
	a := e.call(method, path, bearer, body)
	require.Equal(e.t, status, a.status, "%s %s: %s", method, path, a.body)
	return a
}

// refused makes a request that is refused with a code, and checks the shape of the answer.
func (e *env) refused(status int, code, method, path, bearer, body string, headers ...string) answer {
	e.t.Helper()
	a := e.call(method, path, bearer, body, headers...)
	got, _ := a.err()
	require.Equal(e.t, status, a.status, "%s %s: %s", method, path, a.body)
	require.Equal(e.t, code, got, "%s %s: %s", method, path, a.body)
	require.Len(e.t, a.json, 1)
	require.Len(e.t, a.json["error"], 3)
	require.Contains(e.t, a.header.Get("Content-Type"), "application/json")
	return a
}

func (e *env) addUser(name string) {
	e.t.Helper()
	_, err := e.accounts.CreateUser(context.Background(), account.NewUser{Name: name, Password: password})
	require.NoError(e.t, err)
}

func loginBody(name, pass, client string) string {
	text, _ := json.Marshal(map[string]any{
		"username": name, "password": pass, "client": map[string]string{"type": "test", "clientid": client},
	})
	return string(text)
}

// login logs a client in and returns its token.
func (e *env) login(name, client string) string {
	e.t.Helper()
	a := e.must(http.StatusOK, "POST", "/login", "", loginBody(name, password, client))
	tok, _ := a.json["token"].(string)
	require.NotEmpty(e.t, tok)
	return tok
}
