package httpapi

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/im"
)

func TestReadsInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newReadLimit(3, 10*time.Second)
		ctx := t.Context()
		var releases []func()
		for _, who := range []string{"alice", "alice", "bob"} {
			release, err := l.acquire(ctx, im.User(who))
			require.NoError(t, err)
			releases = append(releases, release)
		}
		begin := time.Now()
		_, err := l.acquire(ctx, im.User("carol"))
		require.Equal(t, im.CodeUnavailable, im.CodeOf(err))
		require.Equal(t, 10*time.Second, time.Since(begin), "it was patient")
		var retry *account.TooManyError
		require.ErrorAs(t, err, &retry)
		require.Positive(t, retry.After)

		time.AfterFunc(time.Second, releases[2])
		last, err := l.acquire(ctx, im.User("carol"))
		require.NoError(t, err, "its turn came")
		for _, release := range append(releases[:2], last) {
			release()
		}
		require.Empty(t, l.owners, "nobody is remembered")
		require.Empty(t, l.slots)
	})
}

func TestReadsOfOneOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newReadLimit(100, time.Second)
		alice := im.User("alice")
		first, err := l.acquire(t.Context(), alice)
		require.NoError(t, err)
		second, err := l.acquire(t.Context(), alice)
		require.NoError(t, err)
		waited := make(chan error, waitingPerOwner)
		for range waitingPerOwner {
			go func() {
				_, err := l.acquire(t.Context(), alice)
				waited <- err
			}()
		}
		synctest.Wait()
		_, err = l.acquire(t.Context(), alice)
		require.Equal(t, im.CodeRateLimited, im.CodeOf(err))
		other, err := l.acquire(t.Context(), im.User("bob"))
		require.NoError(t, err, "those who wait for themselves are in nobody's way")
		other()
		for range waitingPerOwner {
			require.Equal(t, im.CodeUnavailable, im.CodeOf(<-waited))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = l.acquire(gone, alice)
		require.False(t, err == nil || errors.Is(err, errReadsPerOwner))
		first()
		second()
		require.Empty(t, l.owners)
	})
}
