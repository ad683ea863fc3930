package account

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
)

var cheap = HashParams{MemoryKiB: 64, Passes: 1, Threads: 1}

func TestHashes(t *testing.T) {
	h := newHasher(cheap, 2)
	one, err := h.hash(t.Context(), "correct horse")
	require.NoError(t, err)
	two, err := h.hash(t.Context(), "correct horse")
	require.NoError(t, err)
	require.NotEqual(t, one, two, "each has its own salt")
	require.True(t, strings.HasPrefix(one, "$argon2id$v=19$m=64,t=1,p=1$"), one)

	dear := newHasher(HashParams{MemoryKiB: 128, Passes: 1, Threads: 1}, 1)
	for name, tc := range map[string]struct {
		hasher       *hasher
		stored, try  string
		match, stale bool
		err          error
	}{
		"right":          {h, one, "correct horse", true, false, nil},
		"wrong":          {h, one, "correct horsf", false, false, nil},
		"empty":          {h, one, "", false, false, nil},
		"other costs":    {dear, one, "correct horse", true, true, nil},
		"unknown user":   {h, "", "correct horse", false, false, nil},
		"no hash":        {h, "correct horse", "correct horse", false, false, errHash},
		"other scheme":   {h, strings.Replace(one, "argon2id", "argon2i", 1), "x", false, false, errHash},
		"no passes":      {h, strings.Replace(one, "t=1", "t=0", 1), "x", false, false, errHash},
		"no threads":     {h, strings.Replace(one, "p=1", "p=0", 1), "x", false, false, errHash},
		"endless memory": {h, strings.Replace(one, "m=64", "m=4294967295", 1), "x", false, false, errHash},
		"cut":            {h, one[:40], "x", false, false, errHash},
	} {
		t.Run(name, func(t *testing.T) {
			match, stale, err := tc.hasher.verify(tc.stored, tc.try)
			require.ErrorIs(t, err, tc.err)
			require.Equal(t, tc.match, match)
			require.Equal(t, tc.stale, stale)
		})
	}
	composed, err := h.hash(t.Context(), "p\u00e4ssword") // as one keyboard writes it
	require.NoError(t, err)
	match, _, err := h.verify(composed, "pa\u0308ssword") // and as another does
	require.NoError(t, err)
	require.True(t, match)
}

// A storm of logins waits; what cannot be served in time is turned away at once.
func TestStormOfLogins(t *testing.T) {
	h := newHasher(cheap, 2)
	for range cap(h.slots) {
		require.NoError(t, h.acquire(t.Context()))
	}
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, maxQueue)
	for range maxQueue {
		go func() { errs <- h.acquire(ctx) }()
	}
	require.Eventually(t, func() bool { return h.waiting.Load() == maxQueue }, 5*time.Second, time.Millisecond)
	err := h.acquire(t.Context())
	var busy *TooManyError
	require.ErrorAs(t, err, &busy)
	require.Equal(t, im.CodeUnavailable, im.CodeOf(err))

	h.release()
	require.NoError(t, <-errs, "the place goes to one that waits")
	cancel()
	for range maxQueue - 1 {
		require.ErrorIs(t, <-errs, context.Canceled)
	}
	require.Zero(t, h.waiting.Load())
}

// Whether a user exists cannot be told from the time that a refusal takes.
func TestUnknownUsersTakeAsLong(t *testing.T) {
	h := newHasher(HashParams{MemoryKiB: 8 * 1024, Passes: 1, Threads: 1}, 1)
	stored, err := h.hash(t.Context(), "correct horse")
	require.NoError(t, err)
	least := func(stored string) time.Duration {
		best := time.Hour
		for range 15 {
			began := time.Now()
			match, _, err := h.verify(stored, "guess guess")
			require.NoError(t, err)
			require.False(t, match)
			best = min(best, time.Since(began))
		}
		return best
	}
	known, unknown := least(stored), least("")
	require.InEpsilon(t, float64(known), float64(unknown), 0.5)
}

func TestForgottenBuckets(t *testing.T) {
	b, now := newBuckets[int](1, time.Second), time.Unix(0, 0)
	require.Zero(t, b.take(0, now))
	require.Positive(t, b.take(0, now))
	for i := range bucketsKept {
		b.take(i+1, now)
	}
	require.Equal(t, bucketsKept, b.order.Len())
	require.Len(t, b.byKey, bucketsKept)
	require.Zero(t, b.take(0, now), "the one not used for longest is forgotten")
}

func TestBucketsRefill(t *testing.T) {
	b, now := newBuckets[string](3, 10*time.Second), time.Unix(0, 0)
	for range 3 {
		require.Zero(t, b.take("a", now))
	}
	require.Equal(t, 10*time.Second, b.take("a", now))
	require.Equal(t, 6*time.Second, b.take("a", now.Add(4*time.Second)))
	require.Zero(t, b.take("a", now.Add(10*time.Second)))
	require.Positive(t, b.take("a", now.Add(10*time.Second)))
	later := now.Add(time.Hour)
	for range 3 {
		require.Zero(t, b.take("a", later))
	}
	require.Positive(t, b.take("a", later), "no more than the burst is saved up")
}

func TestAttemptsThatWereNotJudgedDoNotCount(t *testing.T) {
	g := newGuard(1, 20, func() time.Time { return time.Unix(0, 0) })
	from := netip.MustParseAddr("192.0.2.1")
	for range 100 {
		a, err := g.begin("alice", from)
		require.NoError(t, err)
		a.undo()
	}
	_, err := g.begin("alice", from)
	require.NoError(t, err)
	_, err = g.begin("alice", from)
	var refused *TooManyError
	require.True(t, errors.As(err, &refused))
	require.Equal(t, 10*time.Second, refused.After)
}

func TestGuardUnderConcurrency(t *testing.T) {
	g := newGuard(10, 20, time.Now)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			from := netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 2)})
			for range 200 {
				if a, err := g.begin("alice", from); err == nil {
					a.succeed()
				}
			}
		})
	}
	wg.Wait()
	a, err := g.begin("alice", netip.AddrFrom4([4]byte{192, 0, 2, 0}))
	require.NoError(t, err)
	require.True(t, a.known)
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"Alice":   "alice",
		"ÄRGER":   "ärger",
		"A\u0308": "ä", // composed
		"ΣΊΣ":     "σίσ",
		"İ":       "i",
		"a.b*c>":  "a.b*c>",
		"":        "",
	} {
		require.Equal(t, want, Name(in))
		require.Equal(t, Name(in), Name(Name(in)), "the name of a name is itself")
	}
}

func FuzzDecodeHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		p, salt, hash, err := decodeHash(s)
		if err == nil && (p.MemoryKiB > maxMemoryKiB || p.Passes > maxPasses || p.Threads == 0 || len(hash) > 64) {
			t.Errorf("%q: %+v %x %x", s, p, salt, hash)
		}
	})
}

func BenchmarkPassword(b *testing.B) {
	h := newHasher(DefaultHash, 1)
	stored, err := h.hash(b.Context(), "correct horse")
	require.NoError(b, err)
	for b.Loop() {
		if match, _, err := h.verify(stored, "correct horse"); err != nil || !match {
			b.Fatal(match, err)
		}
	}
}
