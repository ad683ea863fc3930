package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLifecycleStopsInReverseAndSkipsNobody(t *testing.T) {
	l := lifecycle{log: slog.New(slog.DiscardHandler)}
	var order []string
	failure := errors.New("stuck")
	for _, name := range []string{"database", "log", "listener"} {
		l.started(name, func(context.Context) error {
			order = append(order, name)
			if name == "listener" {
				return failure
			}
			return nil
		})
	}
	err := l.stop(t.Context())
	require.ErrorIs(t, err, failure)
	require.ErrorContains(t, err, "stopping listener")
	require.Equal(t, []string{"listener", "log", "database"}, order)
	require.NoError(t, l.stop(t.Context()), "nothing is stopped twice")
}

func TestLifecycleLeavesTimeForThoseBelow(t *testing.T) {
	l := lifecycle{log: slog.New(slog.DiscardHandler)}
	l.started("log", func(ctx context.Context) error {
		deadline, ok := ctx.Deadline()
		require.True(t, ok)
		require.Greater(t, time.Until(deadline), leastStop/2)
		return ctx.Err()
	})
	l.started("slow", func(ctx context.Context) error { <-ctx.Done(); return nil })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	expired, stop := context.WithDeadline(ctx, time.Now().Add(-time.Second))
	defer stop()
	require.NoError(t, l.stop(expired))
}
