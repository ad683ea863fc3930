package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/httpapi"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
	"github.com/slimchat/slimchat/models/dbtest"
)

// every path of the service, with a body that is good.
var paths = []struct {
	method, path, body string
	open               bool // needs no token
}{
	{"POST", "/register", `{"username":"carol","password":"correct horse"}`, true},
	{"POST", "/login", `{"username":"alice","password":"correct horse","client":{}}`, true},
	{"POST", "/logout", "", false},
	{"POST", "/token/refresh", "", false},
	{"GET", "/clients", "", false},
	{"DELETE", "/clients/none", "", false},
	{"GET", "/users/alice", "", false},
	{"PATCH", "/me", `{"nick":"x"}`, false},
	{"DELETE", "/me", "", false},
	{"POST", "/me/password", `{"old":"correct horse","new":"a new password"}`, false},
	{"POST", "/messages", `{"to":"user/alice","type":"chat","content":{"type":"text","data":"x"}}`, false},
	{"GET", "/messages?with=user/bob", "", false},
	{"GET", "/healthz", "", true},
	{"GET", "/readyz", "", true},
}

func withSlash(path string) string {
	path, query, found := strings.Cut(path, "?")
	if found {
		query = "?" + query
	}
	return path + "/" + query
}

// A token that is not good opens nothing, whatever the path and its spelling.
func TestEveryPathNeedsAGoodToken(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	e.addUser("alice")
	foreign, err := token.New(t.Context(), token.Options{Domain: "there.org", Keys: e.store, Log: e.accounts.Log})
	require.NoError(t, err)
	defer foreign.Close()
	claims := token.Claims{
		Subject: im.User("alice"), Client: "c", Ticket: token.NewTicket(), Role: models.RoleUser,
		Expires: time.Now().Add(time.Hour),
	}
	sign := func(a *token.Authority, c token.Claims) string {
		raw, err := a.Sign(c)
		require.NoError(t, err)
		return raw
	}
	expired := claims
	expired.Expires = time.Now().Add(-time.Minute)
	revoked := e.login("alice", "gone")
	e.must(204, "POST", "/logout", revoked, "")
	none := "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJ1c2VyL2FsaWNlIn0."

	for name, tc := range map[string]struct{ header, code string }{
		"none":            {"", "token_missing"},
		"other scheme":    {"Basic YWxpY2U6eA==", "token_missing"},
		"no token":        {"Bearer ", "token_missing"},
		"garbage":         {"Bearer abc", "token_invalid"},
		"alg none":        {"Bearer " + none, "token_invalid"},
		"another domain":  {"Bearer " + sign(foreign, claims), "token_invalid"},
		"expired":         {"Bearer " + sign(e.tokens, expired), "token_expired"},
		"revoked":         {"bearer " + revoked, "token_revoked"},
		"of many letters": {"Bearer " + strings.Repeat("x", 10_000), "token_invalid"},
	} {
		for _, p := range paths {
			if p.open {
				continue
			}
			for _, path := range []string{p.path, withSlash(p.path)} {
				a := e.refused(401, tc.code, p.method, path, "", p.body, "Authorization", tc.header)
				require.Contains(t, a.header.Get("WWW-Authenticate"), "Bearer", name)
			}
		}
	}
}

func TestTrailingSlashes(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	e.addUser("alice")
	for _, p := range paths {
		if p.path == "/logout" || p.method == "DELETE" || p.path == "/register" || p.path == "/me/password" {
			continue // done once only
		}
		tok := e.login("alice", "c")
		plain := e.call(p.method, p.path, tok, p.body)
		slashed := e.call(p.method, withSlash(p.path), tok, p.body)
		require.Less(t, plain.status, 300, "%s %s: %s", p.method, p.path, plain.body)
		require.Equal(t, plain.status, slashed.status, "%s %s: %s", p.method, p.path, slashed.body)
	}
}

func TestBadBodies(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	e.addUser("alice")
	tok := e.login("alice", "c")
	for _, p := range paths {
		if p.body == "" {
			continue
		}
		for name, tc := range map[string]struct {
			body, kind string
			status     int
			code       string
		}{
			"empty":         {" ", "application/json", 400, "malformed"},
			"not JSON":      {"username=alice", "application/json", 400, "malformed"},
			"cut":           {p.body[:len(p.body)-2], "application/json", 400, "malformed"},
			"an array":      {"[" + p.body + "]", "application/json", 400, "malformed"},
			"null":          {"null", "application/json", 400, "malformed"},
			"two objects":   {p.body + p.body, "application/json", 400, "malformed"},
			"not UTF-8":     {strings.Replace(p.body, ":\"", ":\"\xff", 1), "application/json", 400, "malformed"},
			"a form":        {"username=alice", "application/x-www-form-urlencoded", 415, "unsupported_media_type"},
			"odd type":      {p.body, "application/json; charset", 415, "unsupported_media_type"},
			"far too large": {p.body[:len(p.body)-1] + `,"x":"` + strings.Repeat("x", 100_000) + `"}`, "application/json", 413, "too_large"},
		} {
			t.Run(p.path+" "+name, func(t *testing.T) {
				e.refused(tc.status, tc.code, p.method, p.path, tok, tc.body, "Content-Type", tc.kind)
			})
		}
	}
}

func TestBadFields(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	e.addUser("alice")
	tok := e.login("alice", "c")
	long := strings.Repeat("x", 3000)
	for name, tc := range map[string]struct{ method, path, body, code, field string }{
		"no name":            {"POST", "/register", `{"password":"correct horse"}`, "invalid_field", "username"},
		"name with slash":    {"POST", "/register", `{"username":"a/b","password":"correct horse"}`, "invalid_field", "username"},
		"name with wildcard": {"POST", "/register", `{"username":"a+","password":"correct horse"}`, "invalid_field", "username"},
		"name too long":      {"POST", "/register", `{"username":"` + long + `","password":"correct horse"}`, "invalid_field", "username"},
		"name with newline":  {"POST", "/register", `{"username":"a\nb","password":"correct horse"}`, "invalid_field", "username"},
		"name is a number":   {"POST", "/register", `{"username":7,"password":"correct horse"}`, "invalid_field", "username"},
		"no password":        {"POST", "/register", `{"username":"bob"}`, "invalid_field", "password"},
		"short password":     {"POST", "/register", `{"username":"bob","password":"1234567"}`, "invalid_field", "password"},
		"long password":      {"POST", "/register", `{"username":"bob","password":"` + long + `"}`, "invalid_field", "password"},
		"nick with NUL":      {"POST", "/register", `{"username":"bob","password":"correct horse","nick":"a\u0000"}`, "invalid_field", "nick"},
		"role is no field":   {"POST", "/register", `{"username":"bob","password":"correct horse","role":"admin"}`, "invalid_field", "role"},
		"login: no name":     {"POST", "/login", `{"password":"x"}`, "invalid_field", "username"},
		"login: no password": {"POST", "/login", `{"username":"alice"}`, "invalid_field", "password"},
		"login: client id":   {"POST", "/login", loginBody("alice", password, "a/b"), "invalid_field", "client.clientid"},
		"login: client":      {"POST", "/login", `{"username":"alice","password":"x","client":"phone"}`, "invalid_field", "client"},
		"login: type":        {"POST", "/login", `{"username":"alice","password":"x","client":{"type":1}}`, "invalid_field", "client.type"},
		"login: long type":   {"POST", "/login", `{"username":"alice","password":"x","client":{"type":"` + long + `"}}`, "invalid_field", "client.type"},
		"login: unknown":     {"POST", "/login", `{"username":"alice","password":"x","client":{"id":"phone"}}`, "invalid_field", "id"},
		"me: unknown":        {"PATCH", "/me", `{"role":"admin"}`, "invalid_field", "role"},
		"me: long nick":      {"PATCH", "/me", `{"nick":"` + long + `"}`, "invalid_field", "nick"},
		"me: avatar":         {"PATCH", "/me", `{"avatar":"a\tb"}`, "invalid_field", "avatar"},
		"password: short":    {"POST", "/me/password", `{"old":"correct horse","new":"short"}`, "invalid_field", "new"},
		"clients: limit":     {"GET", "/clients?limit=0", "", "invalid_field", "limit"},
		"clients: parameter": {"GET", "/clients?lim=1", "", "invalid_field", "lim"},
		"clients: twice":     {"GET", "/clients?limit=1&limit=2", "", "invalid_field", "limit"},
		"clients: query":     {"GET", "/clients?limit=%zz", "", "malformed", ""},

		"message: no to":       {"POST", "/messages", `{"type":"chat","content":{"type":"text","data":1}}`, "invalid_field", "to"},
		"message: bad to":      {"POST", "/messages", `{"to":"bob","type":"chat","content":{"type":"text"}}`, "invalid_address", "to"},
		"message: no type":     {"POST", "/messages", `{"to":"user/alice","content":{"type":"text"}}`, "invalid_field", "type"},
		"message: no content":  {"POST", "/messages", `{"to":"user/alice","type":"chat"}`, "invalid_field", "content"},
		"history: no with":     {"GET", "/messages", "", "invalid_field", "with"},
		"history: with":        {"GET", "/messages?with=bob", "", "invalid_field", "with"},
		"history: client":      {"GET", "/messages?with=user/bob/client/c", "", "invalid_field", "with"},
		"history: from":        {"GET", "/messages?with=user/bob&from=bob", "", "invalid_field", "from"},
		"history: before 0":    {"GET", "/messages?with=user/bob&before=0", "", "invalid_field", "before"},
		"history: two places":  {"GET", "/messages?with=user/bob&before=9&after=1", "", "invalid_field", "after"},
		"history: long id":     {"GET", "/messages?with=user/bob&around=" + long, "", "invalid_field", "around"},
		"history: cursor":      {"GET", "/messages?with=user/bob&cursor=x1", "", "invalid_field", "cursor"},
		"history: cursor 0":    {"GET", "/messages?with=user/bob&cursor=b0", "", "invalid_field", "cursor"},
		"history: cursor ö":    {"GET", "/messages?with=user/bob&cursor=%C3%B6", "", "invalid_field", "cursor"},
		"history: limit":       {"GET", "/messages?with=user/bob&limit=many", "", "invalid_field", "limit"},
		"history: great limit": {"GET", "/messages?with=user/bob&limit=201", "", "invalid_field", "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			a := e.refused(400, tc.code, tc.method, tc.path, tok, tc.body)
			_, field := a.err()
			require.Equal(t, tc.field, field, string(a.body))
		})
	}
}

// Nobody has such a name or password, which is no other answer than a wrong one.
func TestImpossibleCredentials(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	e.addUser("alice")
	for _, name := range []string{"a/b", " alice", "nobody", strings.Repeat("x", 1000)} {
		e.refused(401, "invalid_credentials", "POST", "/login", "", loginBody(name, password, ""))
	}
	e.refused(401, "invalid_credentials", "POST", "/login", "", loginBody("alice", strings.Repeat("x", 10_000), ""))
}

func TestWhatEchoRefusesHasOurShape(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	e.refused(404, "not_found", "GET", "/", "", "")
	e.refused(404, "not_found", "GET", "/nothing/here/", "", "")
	e.refused(404, "not_found", "GET", "/clients//", "", "")
	a := e.refused(405, "method_not_allowed", "GET", "/login", "", "")
	require.Contains(t, a.header.Get("Allow"), "POST")
	e.refused(405, "method_not_allowed", "PUT", "/clients", "", "{}")
	require.Equal(t, 405, e.call("HEAD", "/login", "", "").status)
}

func TestPagesOfAnyOriginMayCall(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	a := e.call("OPTIONS", "/messages", "", "", "Origin", "https://page.example",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type")
	require.Equal(t, 204, a.status)
	require.Equal(t, "*", a.header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, a.header.Get("Access-Control-Allow-Headers"), "Authorization")
	require.Empty(t, a.header.Get("Access-Control-Allow-Credentials"))
	a = e.call("GET", "/clients", "", "", "Origin", "https://page.example")
	require.Equal(t, "*", a.header.Get("Access-Control-Allow-Origin"), "also on a refusal")
}

func TestRequestIDs(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	require.Equal(t, "my-id.1", e.call("GET", "/healthz", "", "", "X-Request-Id", "my-id.1").header.Get("X-Request-Id"))
	for _, bad := range []string{"", "a b", strings.Repeat("x", 65)} {
		require.Len(t, e.call("GET", "/healthz", "", "", "X-Request-Id", bad).header.Get("X-Request-Id"), 16)
	}
}

func TestHealth(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.must(200, "GET", "/healthz", "", "")
		a := e.must(200, "GET", "/readyz/", "", "")
		require.Equal(t, map[string]any{"database": "ok", "log": "ok"}, a.json["checks"])
		e.broken = errors.New("a secret reason")
		a = e.must(503, "GET", "/readyz", "", "")
		require.Equal(t, map[string]any{"database": "ok", "log": "unavailable"}, a.json["checks"])
		code, _ := a.err()
		require.Equal(t, "unavailable", code)
		require.NotContains(t, string(a.body), "secret")
		require.NotEmpty(t, a.header.Get("Retry-After"))
		require.Equal(t, 503, e.call("HEAD", "/readyz", "", "").status)
		e.must(200, "GET", "/healthz", "", "")
	})
}

// Probes come all the time: an outage is two lines in the log.
func TestOutageDoesNotFillTheLog(t *testing.T) {
	var log bytes.Buffer
	e := start(t, dbtest.SQLite(t), func(_ *account.Options, d *httpapi.Deps) { d.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 2 {
		log.Reset()
		e.broken = errors.New("disk on fire")
		for range 5 {
			e.must(503, "GET", "/readyz", "", "")
		}
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), "disk on fire")
		e.broken = nil
		for range 5 {
			e.must(200, "GET", "/readyz", "", "")
		}
		require.Equal(t, 2, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), "ready again")
	}
}

// Without the database, tokens are still checked, and everything else says why it fails.
func TestDatabaseGone(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	e.addUser("alice")
	e.addUser("bob")
	tok := e.login("alice", "c")
	e.must(202, "POST", "/messages", tok, `{"to":"user/bob","type":"chat","content":{"type":"text","data":"x"}}`)
	gone, err := models.Open(context.Background(), dbtest.SQLite(t))
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	o := e.accounts.Options
	o.Store = gone
	d := e.api.Deps
	d.Accounts = account.New(o)
	api, err := httpapi.New(d)
	require.NoError(t, err)
	broken := httptest.NewServer(api)
	defer broken.Close()
	e.url = broken.URL
	e.must(200, "GET", "/messages?with=user/bob", tok, "")
	a := e.must(503, "GET", "/readyz", "", "")
	require.Contains(t, string(a.body), "database")
	for _, p := range paths {
		switch p.path {
		case "/healthz", "/readyz", "/messages", "/messages?with=user/bob":
		default:
			e.refused(503, "unavailable", p.method, p.path, tok, p.body)
		}
	}
}

func TestMountedHandlersAreLeftAlone(t *testing.T) {
	e := start(t, dbtest.SQLite(t), nil)
	d := e.api.Deps
	api, err := httpapi.New(d)
	require.NoError(t, err)
	api.Mount("/mqtt", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, deadline := r.Context().Deadline()
		if deadline {
			w.WriteHeader(500)
		}
		_, _ = w.Write([]byte(r.URL.Path))
	}))
	server := httptest.NewServer(api)
	defer server.Close()
	e.url = server.URL
	require.Equal(t, "/mqtt", string(e.must(200, "GET", "/mqtt", "", "").body))
	require.Equal(t, "/mqtt/", string(e.must(200, "GET", "/mqtt/", "", "").body))
	e.refused(404, "not_found", "GET", "/mqtt/x", "", "")
}

func TestNewNamesNothingMissing(t *testing.T) {
	_, err := httpapi.New(httpapi.Deps{Domain: domain})
	require.Error(t, err)
}
