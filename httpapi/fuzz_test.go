package httpapi_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/slimchat/slimchat/models/dbtest"
)

// Whatever a body or a query holds, the answer is JSON, and the fault is not ours.
func FuzzRequests(f *testing.F) {
	e := start(f, dbtest.SQLite(f), nil)
	e.addUser("alice")
	tok := e.login("alice", "c")
	targets := []struct{ method, path string }{
		{"POST", "/register"}, {"POST", "/login"}, {"PATCH", "/me"}, {"POST", "/me/password"}, {"POST", "/messages"},
		{"GET", "/messages"}, {"GET", "/clients"},
	}
	for i, p := range targets {
		for _, q := range paths {
			if q.method == p.method && strings.HasPrefix(q.path, p.path) {
				_, query, _ := strings.Cut(q.path, "?")
				f.Add(uint8(i), q.body, query)
			}
		}
	}
	f.Add(uint8(5), "", "with=user/alice&after=1&limit=3&thread=t&from=user/alice")
	f.Add(uint8(5), "", "with=user/alice&cursor=b12")
	f.Add(uint8(1), `{"username":"\ud800","password":"x","client":{"clientid":"\u0000"}}`, "")
	f.Fuzz(func(t *testing.T, which uint8, body, query string) {
		target := targets[int(which)%len(targets)]
		r := httptest.NewRequest(target.method, target.path, strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+tok)
		w := httptest.NewRecorder()
		e.api.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != 501 && w.Code != 503 {
			t.Fatalf("%s %s?%s %q: %d %s", target.method, target.path, query, body, w.Code, w.Body)
		}
		if w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("not JSON: %s", w.Body)
		}
	})
}
