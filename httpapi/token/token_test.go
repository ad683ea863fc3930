package token

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
	"github.com/slimchat/slimchat/models/dbtest"
)

func store(t testing.TB, dsn string) *models.Store {
	t.Helper()
	s, err := models.Open(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// countingKeys counts the reads of a real store, and fails them while broken.
type countingKeys struct {
	Keys
	reads  atomic.Int64
	broken atomic.Bool
}

func (c *countingKeys) SigningKeys(ctx context.Context) ([]models.SigningKey, error) {
	c.reads.Add(1)
	if c.broken.Load() {
		return nil, errors.New("no database")
	}
	return c.Keys.SigningKeys(ctx)
}

type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Now().UnixMilli())
	return c
}
func (c *clock) now() time.Time          { return time.UnixMilli(c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(d.Milliseconds()) }

func authority(t testing.TB, domain string, keys Keys, c *clock) *Authority {
	t.Helper()
	a, err := New(t.Context(), Options{
		Domain: domain, Keys: keys, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: c.now,
	})
	require.NoError(t, err)
	t.Cleanup(a.Close)
	return a
}

func alice(c *clock) Claims {
	return Claims{
		Subject: im.User("alice"), Client: "phone", Ticket: NewTicket(), Role: models.RoleUser,
		Expires: c.now().Add(time.Hour).Truncate(time.Second),
	}
}

func sign(t testing.TB, a *Authority, c Claims) string {
	t.Helper()
	raw, err := a.Sign(c)
	require.NoError(t, err)
	return raw
}

func TestAuthenticate(t *testing.T) {
	c := newClock()
	a := authority(t, "a.example", store(t, dbtest.SQLite(t)), c)
	other := authority(t, "b.example", store(t, dbtest.SQLite(t)), c)
	good := alice(c)
	raw := sign(t, a, good)
	expired := good
	expired.Expires = c.now().Add(-time.Second)
	revoked := good
	revoked.Ticket = NewTicket()
	a.Apply(models.Change{Kind: models.ChangeRevoke, Ticket: revoked.Ticket, Expires: revoked.Expires.UnixMilli()})
	node := Claims{Subject: im.Node("n 1"), Client: "n 1", Ticket: NewTicket(), Role: models.RoleNode, Expires: good.Expires}
	badRole := node
	badRole.Role = models.RoleAdmin
	foreign := good
	foreign.Subject.Domain = "b.example"

	for name, tc := range map[string]struct {
		username, password, clientID string
		want                         error
	}{
		"good":              {"alice", raw, "phone", nil},
		"no client id":      {"alice", raw, "", nil},
		"node":              {"n 1", sign(t, a, node), "n 1", nil},
		"other name":        {"bob", raw, "phone", ErrNameMismatch},
		"address as name":   {"user/alice", raw, "phone", ErrNameMismatch},
		"other client":      {"alice", raw, "laptop", ErrClientMismatch},
		"expired":           {"alice", sign(t, a, expired), "phone", ErrTokenExpired},
		"revoked":           {"alice", sign(t, a, revoked), "phone", ErrTokenRevoked},
		"other domain":      {"alice", sign(t, other, good), "phone", ErrTokenInvalid},
		"node as admin":     {"n 1", sign(t, a, badRole), "n 1", ErrTokenInvalid},
		"foreign subject":   {"alice", sign(t, a, foreign), "phone", ErrTokenInvalid},
		"empty":             {"alice", "", "phone", ErrTokenInvalid},
		"garbage":           {"alice", "a.b.c", "phone", ErrTokenInvalid},
		"huge":              {"alice", strings.Repeat("a", 1<<20), "phone", ErrTokenInvalid},
		"signature cut":     {"alice", raw[:len(raw)-4], "phone", ErrTokenInvalid},
		"no signature":      {"alice", raw[:strings.LastIndexByte(raw, '.')+1], "phone", ErrTokenInvalid},
		"four parts":        {"alice", raw + ".x", "phone", ErrTokenInvalid},
		"trailing newline":  {"alice", raw + "\n", "phone", ErrTokenInvalid},
		"payload exchanged": {"alice", swapPayload(raw, sign(t, a, node)), "phone", ErrTokenInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			p, until, err := a.Authenticate(t.Context(), tc.username, tc.password, tc.clientID)
			require.ErrorIs(t, err, tc.want)
			if tc.want != nil {
				require.Zero(t, p)
				return
			}
			require.Equal(t, tc.username, p.Address.ID)
			require.NotEmpty(t, p.Ticket)
			require.True(t, until.Equal(good.Expires))
		})
	}
}

func swapPayload(a, b string) string {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	return x[0] + "." + y[1] + "." + x[2]
}

// Tokens that somebody else could make, with everything right but the signature.
func TestForgedTokens(t *testing.T) {
	c := newClock()
	keys := store(t, dbtest.SQLite(t))
	a := authority(t, "a.example", keys, c)
	rows, err := keys.SigningKeys(t.Context())
	require.NoError(t, err)
	kid := rows[0].KID
	ours := ed25519.NewKeyFromSeed(rows[0].Seed)
	_, theirs, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	public, _ := ours.Public().(ed25519.PublicKey)

	forge := func(method jwt.SigningMethod, key any, change func(jwt.MapClaims), header map[string]any) string {
		body := jwt.MapClaims{
			"iss": "a.example", "aud": "a.example", "sub": "user/alice", "client": "phone", "role": "user",
			"ticket": NewTicket(), "exp": c.now().Add(time.Hour).Unix(), "iat": c.now().Unix(),
		}
		if change != nil {
			change(body)
		}
		tok := jwt.NewWithClaims(method, body)
		tok.Header["kid"] = kid
		for k, v := range header {
			tok.Header[k] = v
		}
		raw, err := tok.SignedString(key)
		require.NoError(t, err)
		return raw
	}
	set := func(name string, value any) func(jwt.MapClaims) {
		return func(m jwt.MapClaims) { m[name] = value }
	}
	without := func(name string) func(jwt.MapClaims) {
		return func(m jwt.MapClaims) { delete(m, name) }
	}
	eddsa := jwt.SigningMethodEdDSA
	_, err = a.Verify(t.Context(), forge(eddsa, ours, nil, nil))
	require.NoError(t, err, "the frame of this test makes good tokens")

	for name, raw := range map[string]string{
		"alg none":            forge(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, nil),
		"HS256 by public key": forge(jwt.SigningMethodHS256, []byte(public), nil, nil),
		"another key":         forge(eddsa, theirs, nil, nil),
		"unknown kid":         forge(eddsa, ours, nil, map[string]any{"kid": "nope"}),
		"kid is a number":     forge(eddsa, ours, nil, map[string]any{"kid": 7}),
		"huge kid":            forge(eddsa, ours, nil, map[string]any{"kid": strings.Repeat("k", 100)}),
		"alg lies":            forge(eddsa, ours, nil, map[string]any{"alg": "none"}),
		"other issuer":        forge(eddsa, ours, set("iss", "b.example"), nil),
		"other audience":      forge(eddsa, ours, set("aud", "b.example"), nil),
		"other and expired":   forge(eddsa, ours, func(m jwt.MapClaims) { m["aud"] = "b"; m["exp"] = 1 }, nil),
		"no audience":         forge(eddsa, ours, without("aud"), nil),
		"no expiry":           forge(eddsa, ours, without("exp"), nil),
		"no ticket":           forge(eddsa, ours, without("ticket"), nil),
		"no client":           forge(eddsa, ours, without("client"), nil),
		"bad client":          forge(eddsa, ours, set("client", "a/b"), nil),
		"no role":             forge(eddsa, ours, without("role"), nil),
		"a room's token":      forge(eddsa, ours, set("sub", "room/r"), nil),
		"bare subject":        forge(eddsa, ours, set("sub", "alice"), nil),
		"padded base64":       base64.URLEncoding.EncodeToString([]byte(`{"alg":"EdDSA"}`)) + ".e30.AA==",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.Verify(t.Context(), raw)
			require.ErrorIs(t, err, ErrTokenInvalid)
		})
	}
}

// A new key signs only when every process can know it; what an old key signed stays good.
func TestRotation(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		c, keys := newClock(), store(t, dsn)
		one, two := authority(t, "a.example", keys, c), authority(t, "a.example", keys, c)
		old := sign(t, one, alice(c))
		require.NoError(t, one.Rotate(t.Context()))
		require.Equal(t, header(t, old), header(t, sign(t, one, alice(c))), "the new key is not active yet")
		c.advance(activationDelay)
		fresh := sign(t, one, alice(c))
		require.NotEqual(t, header(t, old), header(t, fresh))
		for _, a := range []*Authority{one, two} { // two has never been told of the new key
			_, err := a.Verify(t.Context(), fresh)
			require.NoError(t, err)
			_, err = a.Verify(t.Context(), old)
			require.NoError(t, err)
		}
		c.advance(time.Hour)
		_, err := two.Verify(t.Context(), old)
		require.ErrorIs(t, err, ErrTokenExpired)
		c.advance(MaxTTL)
		_, err = two.Verify(t.Context(), old)
		require.ErrorIs(t, err, ErrTokenInvalid, "the old key is of no use any more")
		require.NoError(t, two.ring.upkeep(t.Context()))
		rows, err := keys.SigningKeys(t.Context())
		require.NoError(t, err)
		require.Len(t, rows, 2, "the oldest is deleted, a new one was made because the last was old")
	})
}

func header(t *testing.T, raw string) string {
	t.Helper()
	h, _, ok := strings.Cut(raw, ".")
	require.True(t, ok)
	return h
}

func TestUnknownKeysCostTheDatabaseNothing(t *testing.T) {
	c := newClock()
	keys := &countingKeys{Keys: store(t, dbtest.SQLite(t))}
	a := authority(t, "a.example", keys, c)
	stranger := authority(t, "a.example", store(t, dbtest.SQLite(t)), c)
	raw := sign(t, stranger, alice(c))
	before := keys.reads.Load()
	for range 100 {
		_, err := a.Verify(t.Context(), raw)
		require.ErrorIs(t, err, ErrTokenInvalid)
	}
	require.EqualValues(t, 1, keys.reads.Load()-before)

	keys.broken.Store(true)
	c.advance(refreshPause)
	for range 100 {
		_, err := a.Verify(t.Context(), raw)
		require.ErrorIs(t, err, ErrUnavailable, "nobody knows whether it is good")
	}
	require.EqualValues(t, 2, keys.reads.Load()-before)
	_, err := a.Verify(t.Context(), sign(t, a, alice(c)))
	require.NoError(t, err, "known keys need no database")
}

// hangingKeys are those of a database that does not answer until it is told to.
type hangingKeys struct {
	Keys
	hang    atomic.Bool
	entered chan struct{}
	let     chan error
}

func (h *hangingKeys) SigningKeys(ctx context.Context) ([]models.SigningKey, error) {
	if h.hang.Load() {
		h.entered <- struct{}{}
		if err := <-h.let; err != nil {
			return nil, err
		}
	}
	return h.Keys.SigningKeys(ctx)
}

// While the database hangs, one waits for an unknown key and all others are told at once.
func TestUnknownKeysHoldUpNobody(t *testing.T) {
	c := newClock()
	keys := &hangingKeys{Keys: store(t, dbtest.SQLite(t)), entered: make(chan struct{}, 10), let: make(chan error)}
	a := authority(t, "a.example", keys, c)
	raw := sign(t, authority(t, "a.example", store(t, dbtest.SQLite(t)), c), alice(c))
	keys.hang.Store(true)
	first := make(chan error, 1)
	look := func() {
		_, err := a.Verify(context.Background(), raw)
		first <- err
	}
	go look()
	<-keys.entered
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for range 100 {
		_, err := a.Verify(ctx, raw)
		require.ErrorIs(t, err, ErrUnavailable)
	}
	require.NoError(t, ctx.Err(), "nobody has waited")
	require.Empty(t, keys.entered)
	_, err := a.Verify(ctx, sign(t, a, alice(c)))
	require.NoError(t, err, "known keys are none of this")

	c.advance(5 * refreshPause) // the database takes its time, and fails
	keys.let <- errors.New("no database")
	require.ErrorIs(t, <-first, ErrUnavailable)
	_, err = a.Verify(ctx, raw)
	require.ErrorIs(t, err, ErrUnavailable, "it failed just now")
	require.Empty(t, keys.entered)

	c.advance(refreshPause)
	go look()
	<-keys.entered
	keys.let <- nil
	require.ErrorIs(t, <-first, ErrTokenInvalid)
	_, err = a.Verify(ctx, raw)
	require.ErrorIs(t, err, ErrTokenInvalid, "it was answered just now")
	require.Empty(t, keys.entered)
}

func TestRevocationsAreForgottenWhenTheTokenEnds(t *testing.T) {
	c := newClock()
	a := authority(t, "a.example", store(t, dbtest.SQLite(t)), c)
	claims := alice(c)
	a.Apply(models.Change{Kind: models.ChangeRevoke, Ticket: claims.Ticket, Expires: claims.Expires.UnixMilli()})
	a.Apply(models.Change{Kind: models.ChangeRevoke})
	require.True(t, a.Revoked(claims.Ticket))
	a.revoked.prune(c.now())
	require.True(t, a.Revoked(claims.Ticket))
	a.revoked.prune(claims.Expires.Add(time.Second))
	require.False(t, a.Revoked(claims.Ticket))
}

// What is remembered of a token is its signature only.
func TestRememberedTokensAreJudgedAnew(t *testing.T) {
	c := newClock()
	a := authority(t, "a.example", store(t, dbtest.SQLite(t)), c)
	revoked, expiring := alice(c), alice(c)
	one, two := sign(t, a, revoked), sign(t, a, expiring)
	for range 2 {
		for _, raw := range []string{one, two} {
			_, err := a.Verify(t.Context(), raw)
			require.NoError(t, err)
		}
	}
	a.Apply(models.Change{Kind: models.ChangeRevoke, Ticket: revoked.Ticket, Expires: revoked.Expires.UnixMilli()})
	_, err := a.Verify(t.Context(), one)
	require.ErrorIs(t, err, ErrTokenRevoked)
	c.advance(expiring.Expires.Sub(c.now()))
	_, err = a.Verify(t.Context(), two)
	require.ErrorIs(t, err, ErrTokenExpired)
	last := len(two) - 10
	_, err = a.Verify(t.Context(), two[:last]+"AAAAAAAAAA")
	require.ErrorIs(t, err, ErrTokenInvalid)
}

func TestRememberedTokensAreBounded(t *testing.T) {
	var v verified
	for i := range 5 * verifiedLimit {
		v.put(sha256.Sum256(fmt.Append(nil, i)), verifiedToken{})
		_, ok := v.get(sha256.Sum256([]byte("0")))
		require.True(t, ok, "what is in use stays")
	}
	require.LessOrEqual(t, len(v.young)+len(v.old), 2*verifiedLimit)
}

func TestSignRefusesEndlessTokens(t *testing.T) {
	c := newClock()
	a := authority(t, "a.example", store(t, dbtest.SQLite(t)), c)
	endless := alice(c)
	endless.Expires = c.now().Add(MaxTTL + time.Hour)
	_, err := a.Sign(endless)
	require.Error(t, err)
}

// Two processes that start on an empty database trust each other's first key.
func TestTwoFirstKeys(t *testing.T) {
	c, keys := newClock(), store(t, dbtest.SQLite(t))
	one := authority(t, "a.example", keys, c)
	require.NoError(t, one.ring.rotate(t.Context(), 0)) // as if the other had seen no key either
	two := authority(t, "a.example", keys, c)
	for _, raw := range []string{sign(t, one, alice(c)), sign(t, two, alice(c))} {
		for _, a := range []*Authority{one, two} {
			_, err := a.Verify(t.Context(), raw)
			require.NoError(t, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	c := newClock()
	a := authority(f, "a.example", store(f, dbtest.SQLite(f)), c)
	good := sign(f, a, alice(c))
	for _, seed := range []string{good, "", "..", "e30.e30.", good + "."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := a.Verify(t.Context(), raw); err == nil && raw != good {
			t.Errorf("%q is accepted", raw)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	c := newClock()
	a := authority(b, "a.example", store(b, dbtest.SQLite(b)), c)
	raw := sign(b, a, alice(c))
	for _, again := range []bool{false, true} {
		b.Run(fmt.Sprintf("again=%t", again), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !again {
					a.checked = verified{}
				}
				if _, err := a.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	c := newClock()
	a := authority(b, "a.example", store(b, dbtest.SQLite(b)), c)
	claims := alice(c)
	b.ReportAllocs()
	for b.Loop() {
		sign(b, a, claims)
	}
}
