package msglog

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
)

var (
	alice = im.User("alice")
	bob   = im.User("bob")
	carol = im.User("carol")
)

func TestAppendReadTail(t *testing.T) {
	for _, d := range []Durability{DurabilityDisk, DurabilityProcess} {
		t.Run(string(d), func(t *testing.T) {
			e := start(t, t.TempDir(), func(o *Options) { o.Durability = d })
			tail := e.tail(0)
			require.EqualValues(t, 1, e.append(message(alice, bob, "m1", false)))
			require.EqualValues(t, 2, e.append(message(alice, bob, "m2", true)))
			require.EqualValues(t, 4, e.append(message(bob, im.Room("r"), "m3", false)))
			require.EqualValues(t, 4, e.log.Position())
			got := tail.wait(t, 4)
			for i, e := range got {
				require.EqualValues(t, i+1, e.Seq)
			}
			require.Equal(t, alice, got[2].To)
			require.True(t, got[2].IsCopy())
			require.Equal(t, "m2", got[2].ID)

			entries, next, err := e.log.Read(t.Context(), []im.Address{bob, im.Room("r")}, 0, 4, 100, 1<<20)
			require.NoError(t, err)
			require.EqualValues(t, 4, next)
			require.Len(t, entries, 3)
			require.Equal(t, "m3", entries[2].ID)

			pos, err := e.log.PositionAt(t.Context(), time.Now().Add(time.Hour))
			require.NoError(t, err)
			require.EqualValues(t, 4, pos)
			pos, err = e.log.PositionAt(t.Context(), time.Now().Add(-time.Hour))
			require.NoError(t, err)
			require.EqualValues(t, 0, pos)
			st := e.log.Stats()
			require.EqualValues(t, 3, st.Records)
			require.EqualValues(t, 4, st.Messages)
		})
	}
}

func TestSessions(t *testing.T) {
	e := start(t, t.TempDir(), nil)
	ctx := context.Background()
	k := im.SessionKey{Owner: alice, Client: "phone.1"}
	got, err := e.log.LoadSession(ctx, k)
	require.NoError(t, err)
	require.Nil(t, got)
	require.NoError(t, e.log.StoreSessions(ctx, map[im.SessionKey][]byte{
		k:                                      []byte("one"),
		{Owner: alice, Client: "lap*top"}:      []byte("two"),
		{Owner: im.User("al"), Client: "x"}:    []byte("three"),
		{Owner: im.Node("alice"), Client: "x"}: []byte("four"),
	}))
	got, err = e.log.LoadSession(ctx, k)
	require.NoError(t, err)
	require.Equal(t, "one", string(got))
	all, err := e.log.ListSessions(ctx, alice)
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"phone.1": []byte("one"), "lap*top": []byte("two")}, all)
	require.NoError(t, e.log.StoreSessions(ctx, map[im.SessionKey][]byte{k: nil}))
	got, err = e.log.LoadSession(ctx, k)
	require.NoError(t, err)
	require.Nil(t, got)
}
