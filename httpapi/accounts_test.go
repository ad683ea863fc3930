package httpapi_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
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

func TestFromRegistrationToLogout(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		a := e.must(201, "POST", "/register", "", `{"username":"Älice","password":"correct horse"}`)
		require.Equal(t, "älice", a.json["uid"])
		require.Equal(t, "Älice", a.json["nick"])
		require.NotContains(t, string(a.body), "assword")
		require.Equal(t, "/users/%C3%A4lice", a.header.Get("Location"))

		a = e.must(200, "POST", "/login", "", `{"username":"ÄLICE","password":"correct horse",
			"client":{"type":"ios","appid":"app","deviceid":"d1","clientid":"phone"}}`)
		tok, _ := a.json["token"].(string)
		require.Equal(t, domain, a.json["domain"])
		require.Equal(t, map[string]any{"tcp": "mqtt://here.org:1883", "tls": "", "ws": "ws" + strings.TrimPrefix(e.url, "http") + "/mqtt"}, a.json["mqtt"])
		client, _ := a.json["client"].(map[string]any)
		require.Equal(t, "phone", client["clientid"])
		require.Equal(t, a.json["ticket"], client["ticket"])
		require.Equal(t, "ios", client["type"])
		text, _ := a.json["expires_at"].(string)
		expires, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(24*time.Hour), expires, time.Minute)
		p, until, err := e.tokens.Authenticate(t.Context(), "älice", tok, "phone")
		require.NoError(t, err)
		require.Equal(t, im.Principal{Address: im.User("älice"), Client: "phone", Role: "user", Ticket: client["ticket"].(string)}, p)
		require.True(t, until.Equal(expires))

		a = e.must(200, "POST", "/token/refresh", tok, "")
		fresh, _ := a.json["token"].(string)
		e.must(200, "GET", "/users/älice/", fresh, "")
		e.must(204, "POST", "/logout/", fresh, "")
		for _, ended := range []string{tok, fresh} { // one login, one end
			e.refused(401, "token_revoked", "GET", "/clients", ended, "")
		}
	})
}

func TestProfile(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.addUser("alice")
		e.addUser("bob")
		tok := e.login("alice", "c")
		a := e.must(200, "PATCH", "/me", tok, `{"nick":"Al","avatar":"https://x.org/a.png"}`)
		require.Equal(t, "Al", a.json["nick"])
		require.Equal(t, "user", a.json["role"])
		a = e.must(200, "PATCH", "/me", tok, `{}`)
		require.Equal(t, "https://x.org/a.png", a.json["avatar"])
		a = e.must(200, "GET", "/users/bob", tok, "")
		require.Equal(t, map[string]any{"uid": "bob", "nick": "bob", "avatar": ""}, a.json, "a stranger sees no more")
		again := e.call("GET", "/users/bob", tok, "", "If-None-Match", a.header.Get("ETag"))
		require.Equal(t, 304, again.status)
		e.refused(404, "not_found", "GET", "/users/nobody", tok, "")

		e.must(204, "DELETE", "/me", tok, "")
		e.refused(401, "token_revoked", "GET", "/clients", tok, "")
		e.refused(404, "not_found", "GET", "/users/alice", e.login("bob", "c"), "")
		e.refused(409, "name_taken", "POST", "/register", "", `{"username":"alice","password":"correct horse"}`)
	})
}

func TestPasswordChangeSignsOthersOut(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.addUser("alice")
		one, two := e.login("alice", "one"), e.login("alice", "two")
		e.refused(403, "forbidden", "POST", "/me/password", one, `{"old":"wrong horse","new":"a new password"}`)
		e.must(204, "POST", "/me/password", one, `{"old":"correct horse","new":"a new password"}`)
		e.must(200, "GET", "/clients", one, "")
		e.refused(401, "token_revoked", "GET", "/clients", two, "")
		e.refused(401, "invalid_credentials", "POST", "/login", "", loginBody("alice", password, "x"))
		e.must(200, "POST", "/login", "", loginBody("alice", "a new password", "x"))
	})
}

func TestClients(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.addUser("alice")
		e.addUser("bob")
		ids := []string{"a b", "laptop", "phöne.*"}
		toks := make([]string, len(ids))
		for i, id := range ids {
			toks[i] = e.login("alice", id)
		}
		e.login("bob", "bobs")
		e.online.put(im.User("alice"), "laptop")

		a := e.must(200, "GET", "/clients", toks[0], "")
		items, _ := a.json["items"].([]any)
		require.Len(t, items, 3)
		for i, item := range items {
			c, _ := item.(map[string]any)
			require.Equal(t, ids[i], c["clientid"])
			require.Equal(t, ids[i] == "laptop", c["online"])
			require.NotEmpty(t, c["last_seen"])
		}
		a = e.must(200, "GET", "/clients?limit=2", toks[0], "")
		require.Equal(t, "laptop", a.json["next"])
		a = e.must(200, "GET", "/clients?limit=2&cursor=laptop", toks[0], "")
		require.Len(t, a.json["items"], 1)
		require.Empty(t, a.json["next"])

		e.must(204, "DELETE", "/clients/"+url.PathEscape("phöne.*")+"/", toks[0], "")
		e.refused(401, "token_revoked", "GET", "/clients", toks[2], "")
		e.refused(404, "not_found", "DELETE", "/clients/"+url.PathEscape("phöne.*"), toks[0], "")
		e.refused(404, "not_found", "DELETE", "/clients/bobs", toks[0], "")
		e.must(200, "GET", "/clients", toks[1], "")
	})
}

func TestSecondLoginOfAClientEndsTheFirst(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.addUser("alice")
		first := e.login("alice", "phone")
		second := e.login("alice", "phone")
		e.refused(401, "token_revoked", "GET", "/clients", first, "")
		e.must(200, "GET", "/clients", second, "")
	})
}

// A process that only reaches the database, such as the command line, ends logins too.
func TestRevocationFromAnotherProcess(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		e := start(t, dsn, nil)
		e.addUser("alice")
		tok := e.login("alice", "phone")
		ended := make(chan time.Time, 1)
		other, err := models.Open(t.Context(), dsn)
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, other.DeleteUser(t.Context(), "alice"))
		go func() {
			for e.call("GET", "/clients", tok, "").status == 200 {
			}
			ended <- time.Now()
		}()
		select {
		case at := <-ended:
			require.Less(t, at.Sub(began), time.Second)
		case <-time.After(5 * time.Second):
			t.Fatal("the login was not ended")
		}
		require.NoError(t, other.Close())
	})
}

func TestClientLimit(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		e := start(t, dsn, func(o *account.Options, _ *httpapi.Deps) { o.ClientsPerUser = 3 })
		e.addUser("alice")
		alice := im.User("alice")
		toks := map[string]string{}
		for _, id := range []string{"a", "b", "c"} {
			toks[id] = e.login("alice", id)
		}
		e.online.put(alice, "a")
		seen := models.NewLastSeen(e.store, e.accounts.Log)
		seen.Seen(alice, "c", time.Now().Add(time.Hour))
		seen.Close()

		e.login("alice", "d") // in the place of b, which is offline and was seen before c
		e.refused(401, "token_revoked", "GET", "/clients", toks["b"], "")
		e.must(200, "GET", "/clients", toks["a"], "")
		e.must(200, "GET", "/clients", toks["c"], "")

		e.online.put(alice, "c", "d")
		a := e.refused(409, "too_many_clients", "POST", "/login", "", loginBody("alice", password, "e"))
		_, field := a.err()
		require.Equal(t, "client", field)
		e.login("alice", "d") // one of them may always come back
	})
}

func TestGeneratedClientID(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		e.addUser("alice")
		a := e.must(200, "POST", "/login", "", `{"username":"alice","password":"correct horse"}`)
		client, _ := a.json["client"].(map[string]any)
		require.Regexp(t, "^[a-z0-9]{16}$", client["clientid"])
		tok, _ := a.json["token"].(string)
		_, _, err := e.tokens.Authenticate(t.Context(), "alice", tok, "")
		require.NoError(t, err)
	})
}

func TestNodeLogin(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		_, secret, err := e.accounts.AddNode(t.Context(), "Sensor 1", "a sensor")
		require.NoError(t, err)
		e.addUser("sensor 1") // a name that folds to the node's shuts nobody out
		a := e.must(200, "POST", "/login", "", loginBody("Sensor 1", secret, ""))
		require.Equal(t, map[string]any{"id": "Sensor 1", "nick": "a sensor"}, a.json["node"])
		require.NotContains(t, a.json, "user")
		tok, _ := a.json["token"].(string)
		p, _, err := e.tokens.Authenticate(t.Context(), "Sensor 1", tok, "Sensor 1")
		require.NoError(t, err)
		require.Equal(t, im.Node("Sensor 1"), p.Address)
		require.Equal(t, models.RoleNode, p.Role)
		e.refused(403, "forbidden", "PATCH", "/me", tok, `{}`)
		e.refused(403, "forbidden", "DELETE", "/me", tok, "")
		e.refused(403, "forbidden", "POST", "/me/password", tok, `{"old":"x","new":"a new password"}`)
		e.must(200, "POST", "/token/refresh", tok, "")
		require.NoError(t, e.store.DeleteNode(t.Context(), "Sensor 1"))
		e.refused(401, "token_revoked", "GET", "/clients", tok, "")
		e.must(200, "POST", "/login", "", loginBody("Sensor 1", password, "")) // the user, now
	})
}

// The address of a broker's own events is nobody else's.
func TestServersNameIsNoNode(t *testing.T) {
	e := start(t, dbtest.SQLite(t), func(o *account.Options, _ *httpapi.Deps) { o.Node = "n1" })
	_, _, err := e.accounts.AddNode(t.Context(), "n1", "")
	require.Equal(t, im.CodeConflict, im.CodeOf(err))
	require.Equal(t, "id", im.AsError(err).Field)
	_, _, err = e.accounts.AddNode(t.Context(), "n2", "")
	require.NoError(t, err)
}

func TestMint(t *testing.T) {
	onEach(t, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.addUser("alice")
		s, err := e.accounts.Mint(ctx, im.User("alice"), account.Device{ClientID: "bot"}, 48*time.Hour)
		require.NoError(t, err)
		e.must(200, "GET", "/clients", s.Token, "")
		require.WithinDuration(t, time.Now().Add(48*time.Hour), s.Expires, time.Minute)
		for name, bad := range map[string]struct {
			owner im.Address
			ttl   time.Duration
			code  im.Code
		}{
			"nobody":   {im.User("nobody"), 0, im.CodeNotFound},
			"no node":  {im.Node("nothing"), 0, im.CodeNotFound},
			"a room":   {im.Room("r"), 0, im.CodeInvalidAddress},
			"for ever": {im.User("alice"), token.MaxTTL + 1, im.CodeInvalid},
			"negative": {im.User("alice"), -time.Hour, im.CodeInvalid},
		} {
			_, err := e.accounts.Mint(ctx, bad.owner, account.Device{}, bad.ttl)
			require.Equal(t, bad.code, im.CodeOf(err), name)
		}
		disabled := models.StateDisabled
		_, err = e.store.UpdateUser(ctx, "alice", models.UserPatch{State: &disabled}, "")
		require.NoError(t, err)
		_, err = e.accounts.Mint(ctx, im.User("alice"), account.Device{}, 0)
		require.Equal(t, account.CodeDisabled, im.CodeOf(err))
		e.refused(403, "account_disabled", "POST", "/login", "", loginBody("alice", password, ""))
		e.refused(401, "invalid_credentials", "POST", "/login", "", loginBody("alice", "wrong password", ""))
	})
}

func TestClosedRegistration(t *testing.T) {
	e := start(t, dbtest.SQLite(t), func(o *account.Options, _ *httpapi.Deps) { o.Closed = true })
	e.refused(403, "registration_closed", "POST", "/register", "", `{"username":"alice","password":"correct horse"}`)
	e.addUser("alice") // the operator still may
	e.login("alice", "c")
}

func TestRegistrationsFromOneAddress(t *testing.T) {
	e := start(t, dbtest.SQLite(t), func(o *account.Options, _ *httpapi.Deps) { o.Registrations = 3 })
	body := func(i int) string { return fmt.Sprintf(`{"username":"u%d","password":"correct horse"}`, i) }
	for i := range 3 {
		e.must(201, "POST", "/register", "", body(i))
	}
	a := e.refused(429, "rate_limited", "POST", "/register", "", body(3))
	require.NotEmpty(t, a.header.Get("Retry-After"))
	elsewhere := e.call("POST", "/register", "", body(4), "X-Forwarded-For", "192.0.2.1")
	require.Equal(t, 201, elsewhere.status)
}

func TestStaleHashIsRenewed(t *testing.T) {
	dsn := dbtest.SQLite(t)
	e := start(t, dsn, nil)
	e.addUser("alice")
	dearer := account.New(account.Options{
		Store: e.store, Tokens: e.tokens, Log: e.accounts.Log,
		Hash: account.HashParams{MemoryKiB: 128, Passes: 2, Threads: 1},
	})
	_, err := dearer.Login(context.Background(), loopback, "alice", password, account.Device{})
	require.NoError(t, err)
	u, err := e.store.User(t.Context(), "alice")
	require.NoError(t, err)
	require.Contains(t, u.Password, "m=128,t=2,p=1")
	_, err = e.accounts.Login(context.Background(), loopback, "alice", password, account.Device{})
	require.NoError(t, err, http.StatusText(200))
}
