package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/httpapi"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/models/dbtest"
)

// A login through HTTP as it is in production: the password's hash is most of it.
func BenchmarkLogin(b *testing.B) {
	e := start(b, dbtest.SQLite(b), func(o *account.Options, _ *httpapi.Deps) { o.Hash, o.Successes = account.DefaultHash, 1_000_000 })
	e.addUser("alice")
	body := loginBody("alice", password, "phone")
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if a := e.call("POST", "/login", "", body); a.status != 200 {
				b.Errorf("%d: %s", a.status, a.body)
				return
			}
		}
	})
}

func benchRequest(b *testing.B, method, path, body string, want int) {
	e := start(b, dbtest.SQLite(b), nil)
	e.addUser("alice")
	tok := e.login("alice", "phone")
	b.ReportAllocs()
	b.ResetTimer()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := httptest.NewRequest(method, path, strings.NewReader(body))
			r.Header.Set("Authorization", "Bearer "+tok)
			w := httptest.NewRecorder()
			e.api.ServeHTTP(w, r)
			if w.Code != want {
				b.Errorf("%d: %s", w.Code, w.Body)
				return
			}
		}
	})
}

func BenchmarkListClients(b *testing.B) { benchRequest(b, "GET", "/clients", "", http.StatusOK) }

func BenchmarkSendMessage(b *testing.B) {
	benchRequest(b, "POST", "/messages", `{"to":"user/alice","type":"chat","content":{"type":"text","data":"hi"}}`, http.StatusAccepted)
}

func BenchmarkHistory(b *testing.B) {
	e := start(b, dbtest.SQLite(b), nil)
	e.addUser("alice")
	e.addUser("bob")
	tok := e.login("alice", "phone")
	for range 500 {
		e.must(202, "POST", "/messages", tok, `{"to":"user/bob","type":"chat","content":{"type":"text","data":"hi"}}`)
	}
	for b.Loop() {
		a := e.call("GET", "/messages?with=user/bob", tok, "")
		require.Equal(b, 200, a.status)
	}
}
