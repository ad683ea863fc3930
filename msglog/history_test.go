package msglog

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
)

func ids(entries []*im.Entry) []string {
	out := []string{}
	for _, e := range entries {
		out = append(out, e.ID)
	}
	return out
}

func TestHistory(t *testing.T) {
	e := start(t, t.TempDir(), nil)
	var recs []im.Record
	noise := 0
	// 30 messages between alice and bob with ever more of others in between.
	for i := range 30 {
		if i%2 == 0 {
			recs = append(recs, message(alice, bob, fmt.Sprint("m", i), true))
		} else {
			recs = append(recs, message(bob, alice, fmt.Sprint("m", i), false))
		}
		for range i * 20 {
			noise++
			recs = append(recs, message(carol, bob, fmt.Sprint("n", noise), true))
		}
		recs = append(recs, message(carol, im.Room("r"), fmt.Sprint("r", i), false))
	}
	e.appendAll(recs)
	ctx := t.Context()

	var want []string
	for i := 29; i >= 0; i-- {
		want = append(want, fmt.Sprint("m", i))
	}
	for _, limit := range []int{1, 3, 7, 30, 50} {
		for _, me := range []im.Address{alice, bob} {
			with := alice
			if me == alice {
				with = bob
			}
			var got []string
			before := uint64(0)
			for pages := 0; ; pages++ {
				require.Less(t, pages, 40)
				entries, more, err := e.log.History(ctx, HistoryQuery{Me: me, With: with, Before: before, Limit: limit})
				require.NoError(t, err)
				require.LessOrEqual(t, len(entries), limit)
				got = append(got, ids(entries)...)
				if before = more; more == 0 {
					break
				}
			}
			require.Equal(t, want, got)
		}
	}

	t.Run("after", func(t *testing.T) {
		all, _, err := e.log.History(ctx, HistoryQuery{Me: alice, With: bob})
		require.NoError(t, err)
		got, more, err := e.log.History(ctx, HistoryQuery{Me: alice, With: bob, After: all[29].Seq, Limit: 3})
		require.NoError(t, err)
		require.Equal(t, []string{"m3", "m2", "m1"}, ids(got))
		require.Equal(t, got[0].Seq, more)
		got, more, err = e.log.History(ctx, HistoryQuery{Me: alice, With: bob, After: all[2].Seq, Limit: 3})
		require.NoError(t, err)
		require.Equal(t, []string{"m29", "m28"}, ids(got))
		require.Zero(t, more)
		got, _, err = e.log.History(ctx, HistoryQuery{Me: alice, With: bob, After: all[20].Seq, Before: all[10].Seq, Limit: 4})
		require.NoError(t, err)
		require.Equal(t, []string{"m18", "m17", "m16", "m15"}, ids(got))
	})
	t.Run("match", func(t *testing.T) {
		got, more, err := e.log.History(ctx, HistoryQuery{Me: alice, With: bob, Limit: 2, MaxScan: 5,
			Match: func(e *im.Entry) bool { return e.ID == "m27" || e.ID == "m1" }})
		require.NoError(t, err)
		require.Equal(t, []string{"m27"}, ids(got))
		require.NotZero(t, more, "the search is not at its end")
	})
	t.Run("room", func(t *testing.T) {
		got, _, err := e.log.History(ctx, HistoryQuery{Me: alice, With: im.Room("r"), Limit: 2})
		require.NoError(t, err)
		require.Equal(t, []string{"r29", "r28"}, ids(got))
	})
	t.Run("none", func(t *testing.T) {
		got, more, err := e.log.History(ctx, HistoryQuery{Me: alice, With: im.User("nobody")})
		require.NoError(t, err)
		require.Empty(t, got)
		require.Zero(t, more)
	})
	t.Run("find", func(t *testing.T) {
		got, err := e.log.Find(ctx, alice, "m2", bob, 1000)
		require.NoError(t, err)
		require.Equal(t, "m2", got.ID)
		got, err = e.log.Find(ctx, bob, "m2", alice, 1000)
		require.NoError(t, err)
		require.Nil(t, got, "another sender's")
		got, err = e.log.Find(ctx, alice, "m2", bob, 3)
		require.NoError(t, err)
		require.Nil(t, got, "too far back")
		got, err = e.log.Find(ctx, carol, "r5", im.Room("r"), 1000)
		require.NoError(t, err)
		require.Equal(t, "r5", got.ID)
	})
}

func TestHalfWrittenPairIsCompletedAtOpen(t *testing.T) {
	dir := t.TempDir()
	e := start(t, dir, nil)
	e.append(message(alice, bob, "whole", true))
	half := message(alice, bob, "half", true)
	half.CopySubject, half.CopyData = "", nil
	e.append(half)
	e.stop()

	e = start(t, dir, nil)
	got, next, err := e.log.Read(t.Context(), []im.Address{alice}, 0, 100, 100, 1<<20)
	require.NoError(t, err)
	require.EqualValues(t, 4, next)
	require.Equal(t, []string{"whole", "half"}, ids(got))
	for _, e := range got {
		require.True(t, e.IsCopy())
		require.Equal(t, alice, e.From)
		require.Contains(t, string(e.Body), "user/bob")
	}
	e.stop()
	e = start(t, dir, nil)
	require.EqualValues(t, 4, e.log.Position(), "nothing is completed twice")
}

// Whoever looks back waits for others who do, and the publish path for neither.
func TestHistoryHasItsOwnReaders(t *testing.T) {
	e := start(t, t.TempDir(), func(o *Options) { o.ReadConns, o.HistoryConns = 1, 1 })
	e.appendAll([]im.Record{message(alice, bob, "m1", false)})
	ctx := t.Context()
	late, cancel := context.WithCancel(ctx)
	cancel()

	r, err := e.log.historians.acquire(ctx)
	require.NoError(t, err)
	_, _, err = e.log.History(late, HistoryQuery{Me: alice, With: bob})
	require.ErrorIs(t, err, context.Canceled)
	_, err = e.log.Find(late, alice, "m1", bob, 10)
	require.ErrorIs(t, err, context.Canceled)
	found, err := e.log.FindUpTo(ctx, alice, "m1", bob, e.log.Position(), 10)
	require.NoError(t, err)
	require.NotNil(t, found)
	e.log.historians.release(r)

	r, err = e.log.readers.acquire(ctx)
	require.NoError(t, err)
	defer e.log.readers.release(r)
	entries, _, err := e.log.History(ctx, HistoryQuery{Me: alice, With: bob})
	require.NoError(t, err)
	require.Equal(t, []string{"m1"}, ids(entries))
	found, err = e.log.Find(ctx, alice, "m1", bob, 10)
	require.NoError(t, err)
	require.NotNil(t, found)
}
