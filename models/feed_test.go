package models

import (
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models/dbtest"
)

func testLogger(testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// heard collects what a feed gives.
type heard struct {
	mu      sync.Mutex
	changes []Change
	more    chan struct{}
}

func listen(t *testing.T, s *Store) *heard {
	t.Helper()
	f, h := NewFeed(s, testLogger(t)), &heard{more: make(chan struct{}, 10_000)}
	f.interval = 20 * time.Millisecond
	f.OnChange(func(c Change) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.changes = append(h.changes, c)
		h.more <- struct{}{}
	})
	require.NoError(t, f.Start(t.Context()))
	t.Cleanup(f.Close)
	return h
}

func (h *heard) kinds() []ChangeKind {
	h.mu.Lock()
	defer h.mu.Unlock()
	kinds := make([]ChangeKind, len(h.changes))
	for i, c := range h.changes {
		kinds[i] = c.Kind
	}
	return kinds
}

// await waits until a change of the kind was heard.
func (h *heard) await(t *testing.T, kind ChangeKind) Change {
	t.Helper()
	timeout := time.After(5 * time.Second)
	for {
		h.mu.Lock()
		for _, c := range h.changes {
			if c.Kind == kind {
				h.mu.Unlock()
				return c
			}
		}
		h.mu.Unlock()
		select {
		case <-h.more:
		case <-timeout:
			t.Fatalf("no %s change was heard, only %v", kind, h.kinds())
		}
	}
}

func TestOwnChangesAreAppliedBeforeTheWriteReturns(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		h := listen(t, s)
		addUser(t, s, "alice")
		require.Equal(t, []ChangeKind{ChangeUser}, h.kinds())
		signIn(t, s, im.User("alice"), "phone", "t1")
		require.Equal(t, []ChangeKind{ChangeUser, ChangeClient}, h.kinds())
		signIn(t, s, im.User("alice"), "phone", "t2")
		require.Equal(t, []ChangeKind{ChangeUser, ChangeClient, ChangeRevoke}, h.kinds())
		revoked := h.changes[2]
		require.Equal(t, "t1", revoked.Ticket)
		require.Equal(t, im.User("alice"), revoked.Owner)
		require.Equal(t, "phone", revoked.Client)
		require.NoError(t, s.RemoveClient(t.Context(), im.User("alice"), "phone", ""))
		require.Equal(t, ChangeRevoke, h.kinds()[3])
		require.Equal(t, ChangeClient, h.kinds()[4])
		require.NoError(t, s.DeleteUser(t.Context(), "alice"))
		require.Equal(t, ChangeUser, h.kinds()[5])
	})
}

func TestOtherProcessesHear(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		s := open(t, dsn)
		addUser(t, s, "alice")
		signIn(t, s, im.User("alice"), "phone", "t1")
		h := listen(t, s)
		other := open(t, dsn) // such as `slimchat user del`, with no feed at all
		require.NoError(t, other.DeleteUser(t.Context(), "alice"))
		require.Equal(t, "t1", h.await(t, ChangeRevoke).Ticket)
		require.Equal(t, im.User("alice"), h.await(t, ChangeUser).Owner)

		late := listen(t, other) // a process that starts afterwards knows the revocation
		require.Equal(t, []ChangeKind{ChangeRevoke}, late.kinds())
	})
}

func TestEachChangeIsGivenOnce(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		s := open(t, dsn)
		h := listen(t, s)
		addUser(t, s, "alice")
		other := open(t, dsn)
		for range 50 {
			nick := "x"
			_, err := s.UpdateUser(t.Context(), "alice", UserPatch{Nick: &nick}, "")
			require.NoError(t, err)
			_, err = other.UpdateUser(t.Context(), "alice", UserPatch{Nick: &nick}, "")
			require.NoError(t, err)
		}
		signIn(t, other, im.User("alice"), "last", "t")
		h.await(t, ChangeClient)
		require.Len(t, h.kinds(), 102)
	})
}

// On Postgres a transaction may commit after one that was given a higher id.
func TestChangesThatCommitOutOfOrder(t *testing.T) {
	dsn := dbtest.Postgres(t)
	s, other := open(t, dsn), open(t, dsn)
	h := listen(t, s)
	slow := s.writer.Begin()
	require.NoError(t, slow.Create(&changeRow{Kind: string(ChangeRevoke), Ticket: "slow", Owner: "user/a"}).Error)
	addUser(t, s, "alice") // a higher id, committed first
	quick := h.await(t, ChangeUser)
	signIn(t, other, im.User("alice"), "c", "t")
	h.await(t, ChangeClient) // the feed has read past the gap
	require.NoError(t, slow.Commit().Error)
	late := h.await(t, ChangeRevoke)
	require.Equal(t, "slow", late.Ticket)
	require.Less(t, late.ID, quick.ID)
}

func TestGapsAreGivenUp(t *testing.T) {
	now := time.Unix(1000, 0)
	f := NewFeed(&Store{now: func() time.Time { return now }}, testLogger(t))
	for _, id := range []int64{1, 2, 4, 5} {
		require.True(t, f.observe(id))
	}
	require.EqualValues(t, 2, f.floor)
	now = now.Add(feedOverlap / 2)
	require.True(t, f.observe(7))
	now = now.Add(feedOverlap / 2)
	f.giveUp(now)
	require.EqualValues(t, 5, f.floor, "3 is given up, 6 is not yet")
	require.False(t, f.observe(3))
	require.True(t, f.observe(6))
	require.EqualValues(t, 7, f.floor)
	require.Empty(t, f.seen)
}

func TestFeedDeclaresCachesStaleAfterAPause(t *testing.T) {
	s := open(t, dbtest.SQLite(t))
	addUser(t, s, "alice")
	signIn(t, s, im.User("alice"), "phone", "t1")
	signIn(t, s, im.User("alice"), "phone", "t2")
	f := NewFeed(s, testLogger(t))
	var got []Change
	f.OnChange(func(c Change) { got = append(got, c) })
	f.polled = time.Now().Add(-changeRetention)
	f.floor = 100
	require.NoError(t, f.poll(t.Context()))
	require.Len(t, got, 2)
	require.Equal(t, ChangeReset, got[0].Kind)
	require.Equal(t, "t1", got[1].Ticket)
	got = nil
	require.NoError(t, f.poll(t.Context()))
	require.Empty(t, got)
}

func TestExpiredChangesAreDropped(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		count := func() (n int64) {
			require.NoError(t, s.reader.Model(&changeRow{}).Count(&n).Error)
			return n
		}
		addUser(t, s, "alice")
		signIn(t, s, im.User("alice"), "phone", "t1")
		signIn(t, s, im.User("alice"), "phone", "t2") // revokes t1, whose token ends in an hour
		require.NoError(t, s.dropChanges(t.Context()))
		require.EqualValues(t, 3, count())
		s.now = func() time.Time { return time.Now().Add(changeRetention + time.Minute) }
		require.NoError(t, s.dropChanges(t.Context()))
		require.EqualValues(t, 1, count())
		s.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
		require.NoError(t, s.dropChanges(t.Context()))
		require.Zero(t, count())
		last, err := s.lastChange(t.Context())
		require.NoError(t, err)
		require.Zero(t, last)
		addUser(t, s, "bob")
		last, err = s.lastChange(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 4, last, "ids never come back")
	})
}

func TestManyRevocationsAreLoadedInPages(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		const n = 2*MaxPage + 10
		expires := time.Now().Add(time.Hour).UnixMilli()
		rows := make([]changeRow, n)
		for i := range rows { // many expire at the same moment
			rows[i] = changeRow{Kind: string(ChangeRevoke), Owner: "user/a", Ticket: "t", Expires: expires + int64(i/700)}
		}
		require.NoError(t, s.writer.Transaction(func(tx *gorm.DB) error { return tx.CreateInBatches(rows, 500).Error }))
		require.Len(t, listen(t, s).kinds(), n)
	})
}

func TestNothingIsHeardAfterClose(t *testing.T) {
	s := open(t, dbtest.SQLite(t))
	f := NewFeed(s, testLogger(t))
	f.Close() // not started
	var got int
	f.OnChange(func(Change) { got++ })
	require.NoError(t, f.Start(t.Context()))
	addUser(t, s, "alice")
	f.Close()
	addUser(t, s, "bob")
	require.Equal(t, 1, got)
}
