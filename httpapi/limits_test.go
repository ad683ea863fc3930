package httpapi_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/httpapi"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/models/dbtest"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// guess tries a password from an address, by way of a trusted proxy.
func (e *env) guess(from, name, pass string) answer {
	e.t.Helper()
	return e.call("POST", "/login", "", loginBody(name, pass, "c"), "X-Forwarded-For", from)
}

// An attacker is slowed down, and the owner of the account notices nothing.
func TestGuessingFromOneAddress(t *testing.T) {
	e := start(t, dbtest.SQLite(t), func(o *account.Options, _ *httpapi.Deps) { o.Logins = 5 })
	e.addUser("alice")
	tok := e.login("alice", "phone")
	refused := 0
	for range 20 {
		switch a := e.guess("192.0.2.66", "alice", "guess guess"); a.status {
		case 401:
		case 429:
			refused++
			seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
			require.NoError(t, err)
			require.LessOrEqual(t, seconds, 10, "nobody is locked out for long")
			require.Positive(t, seconds)
		default:
			t.Fatalf("status %d", a.status)
		}
	}
	require.Equal(t, 15, refused)
	require.Equal(t, 429, e.guess("192.0.2.66", "alice", password).status, "also with the right password")
	require.Equal(t, 200, e.guess("192.0.2.7", "alice", password).status, "from elsewhere")
	e.must(200, "POST", "/token/refresh", tok, "")
	require.Equal(t, 429, e.guess("192.0.2.66", "Alice", "guess guess").status, "the same account, spelt otherwise")
}

func TestGuessingFromManyAddresses(t *testing.T) {
	var clock atomic.Int64
	clock.Store(time.Now().UnixMilli())
	e := start(t, dbtest.SQLite(t), func(o *account.Options, _ *httpapi.Deps) {
		o.Logins = 2 // 40 for the whole account
		o.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	})
	e.addUser("alice")
	require.Equal(t, 200, e.guess("192.0.2.1", "alice", password).status)
	for i := range 40 {
		require.Equal(t, 401, e.guess(fmt.Sprintf("198.51.100.%d", i), "alice", "guess guess").status)
	}
	a := e.guess("198.51.100.99", "alice", password)
	require.Equal(t, 429, a.status, "an address that nobody knows has to wait")
	require.Equal(t, "3", a.header.Get("Retry-After"))
	require.Equal(t, 200, e.guess("192.0.2.1", "alice", password).status, "one that has logged in before has not")
	clock.Add(3000)
	require.Equal(t, 200, e.guess("198.51.100.99", "alice", password).status)
}

// One address that tries many accounts is slowed down as a whole.
func TestGuessingManyAccounts(t *testing.T) {
	e := start(t, dbtest.SQLite(t), func(o *account.Options, _ *httpapi.Deps) { o.Logins = 2 })
	refused := 0
	for i := range 30 {
		if e.guess("2001:db8::"+strconv.Itoa(i+1), fmt.Sprintf("user%d", i), "guess guess").status == 429 {
			refused++
		}
	}
	require.InDelta(t, 10, refused, 2, "a /64 counts as one address")
}

// Attempts made at the same moment are counted before they are judged.
func TestParallelGuesses(t *testing.T) {
	e := start(t, dbtest.SQLite(t), func(o *account.Options, _ *httpapi.Deps) { o.Logins = 5 })
	e.addUser("alice")
	var judged atomic.Int32
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if e.guess("192.0.2.66", "alice", "guess guess").status == 401 {
				judged.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 5, judged.Load())
}

// All clients of a user may come at once. After that a login costs something, whoever makes it.
func TestSuccessesAreLimited(t *testing.T) {
	var clock atomic.Int64
	clock.Store(time.Now().UnixMilli())
	e := start(t, dbtest.SQLite(t), func(o *account.Options, _ *httpapi.Deps) {
		o.Logins = 2
		o.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	})
	e.addUser("alice")
	e.addUser("bob")
	_, secret, err := e.accounts.AddNode(t.Context(), "sensor", "")
	require.NoError(t, err)
	var tok string
	for name, pass := range map[string]string{"alice": password, "sensor": secret} {
		for i := range 40 {
			a := e.guess(fmt.Sprintf("192.0.2.%d", i), name, pass)
			require.Equal(t, 200, a.status, "%s", a.body)
			if name == "alice" {
				tok, _ = a.json["token"].(string)
			}
		}
		a := e.refused(429, "rate_limited", "POST", "/login", "", loginBody(name, pass, "c"))
		require.Equal(t, "1", a.header.Get("Retry-After"))
	}
	e.must(200, "GET", "/clients", tok, "")
	e.refused(429, "rate_limited", "POST", "/me/password", tok, `{"old":"`+password+`","new":"a new password"}`)
	require.Equal(t, 200, e.guess("192.0.2.1", "bob", password).status, "others notice nothing")
	require.Equal(t, 401, e.guess("192.0.2.1", "sensor", "guess guess").status)
	clock.Add(1000)
	require.Equal(t, 200, e.guess("192.0.2.1", "alice", password).status)
	require.Equal(t, 200, e.guess("192.0.2.1", "sensor", secret).status)
	require.Equal(t, 429, e.guess("192.0.2.1", "alice", password).status)
}

func TestParallelSuccesses(t *testing.T) {
	e := start(t, dbtest.SQLite(t), func(o *account.Options, _ *httpapi.Deps) { o.Successes, o.Hashes = 3, 8 })
	e.addUser("alice")
	var good atomic.Int32
	var wg sync.WaitGroup
	begin := time.Now()
	for range 20 {
		wg.Go(func() {
			if e.guess("192.0.2.66", "alice", password).status == 200 {
				good.Add(1)
			}
		})
	}
	wg.Wait()
	require.GreaterOrEqual(t, good.Load(), int32(3))
	require.LessOrEqual(t, good.Load(), int32(4+time.Since(begin)/time.Second))
}

// Only a trusted peer may say who it speaks for, and only as far as each hop is trusted.
func TestForwardedFor(t *testing.T) {
	trust := func(prefixes ...string) func(*account.Options, *httpapi.Deps) {
		return func(o *account.Options, d *httpapi.Deps) {
			o.Logins = 1
			d.TrustedProxies = nil
			for _, p := range prefixes {
				d.TrustedProxies = append(d.TrustedProxies, netip.MustParsePrefix(p))
			}
		}
	}
	for name, tc := range map[string]struct {
		change        func(*account.Options, *httpapi.Deps)
		first, second string
		same          bool
	}{
		"no proxy is trusted":       {trust(), "192.0.2.1", "192.0.2.2", true},
		"another one is trusted":    {trust("10.0.0.0/8"), "192.0.2.1", "192.0.2.2", true},
		"the peer is trusted":       {trust("127.0.0.1/32"), "192.0.2.1", "192.0.2.2", false},
		"made up to the left":       {trust("127.0.0.1/32"), "1.1.1.1, 192.0.2.1", "2.2.2.2, 192.0.2.1", true},
		"two proxies":               {trust("127.0.0.1/32", "10.0.0.0/8"), "192.0.2.1, 10.0.0.1", "192.0.2.2, 10.0.0.1", false},
		"made up before two":        {trust("127.0.0.1/32", "10.0.0.0/8"), "1.1.1.1,192.0.2.1, 10.0.0.1", "192.0.2.1,10.0.0.2", true},
		"nonsense stands for peer":  {trust("127.0.0.1/32"), "nonsense", "more nonsense", true},
		"one IPv6 network":          {trust("127.0.0.1/32"), "2001:db8::1", "2001:db8::2", true},
		"two IPv6 networks":         {trust("127.0.0.1/32"), "2001:db8:0:1::1", "2001:db8:0:2::1", false},
		"IPv4 written as IPv6":      {trust("127.0.0.1/32"), "::ffff:192.0.2.1", "192.0.2.1", true},
		"all hops are trusted ones": {trust("127.0.0.1/32", "10.0.0.0/8"), "10.1.1.1", "10.2.2.2", false},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, dbtest.SQLite(t), tc.change)
			e.addUser("alice")
			require.Equal(t, 401, e.guess(tc.first, "alice", "guess guess").status)
			want := 401
			if tc.same {
				want = 429
			}
			require.Equal(t, want, e.guess(tc.second, "alice", "guess guess").status)
		})
	}
}
