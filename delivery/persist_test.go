package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
)

// stored is a client's record as a crash would leave it.
func (m *memLog) stored(t *testing.T, client string) (rec record, exists bool) {
	t.Helper()
	data, err := m.LoadSession(t.Context(), im.SessionKey{Owner: im.User("alice"), Client: client})
	require.NoError(t, err)
	if data == nil {
		return record{}, false
	}
	rec, err = new(Engine).decodeRecord(data)
	require.NoError(t, err)
	return rec, true
}

// stopAll ends all connections, then the engine.
func stopAll(t *testing.T, e *Engine) {
	t.Helper()
	e.mu.Lock()
	var open []*Session
	for _, list := range e.sessions {
		open = append(open, list...)
	}
	e.mu.Unlock()
	stop(t, e, open...)
}

func TestPromisesAreWrittenBeforeTheyAreMade(t *testing.T) {
	e, m := startEngine(t, Options{})
	defer stopAll(t, e)
	send(m, im.User("alice"), 3)
	require.NoError(t, e.Wait(t.Context(), 3))
	s, _, _ := attach(t, e, "alice", "c1", AttachOptions{Expiry: 60})
	_, exists := m.stored(t, "c1")
	require.True(t, exists, "a new client")
	s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#"), filter(t, "$IM/user/alice")})
	rec, _ := m.stored(t, "c1")
	require.Len(t, rec.Subs, 2)
	s.Unsubscribe(t.Context(), []im.Filter{filter(t, "$IM/#").Filter})
	rec, _ = m.stored(t, "c1")
	require.Len(t, rec.Subs, 1)
	attach(t, e, "alice", "c1", AttachOptions{Clean: true, Expiry: 60})
	rec, _ = m.stored(t, "c1")
	require.Empty(t, rec.Subs, "after a clean start")
}

// brokenLog is a log whose session records cannot be written while it is broken.
type brokenLog struct {
	*memLog
	mu     sync.Mutex
	broken bool
}

func (b *brokenLog) StoreSessions(ctx context.Context, records map[im.SessionKey][]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken {
		return errors.New("broken")
	}
	return b.memLog.StoreSessions(ctx, records)
}

func TestWhatCannotBeWrittenIsNotPromised(t *testing.T) {
	log := &brokenLog{memLog: newMemLog()}
	e := New(Options{Log: log, Domain: "here.org"})
	require.NoError(t, e.Start(t.Context()))
	defer stopAll(t, e)
	s, _, _ := attach(t, e, "alice", "c1", AttachOptions{Expiry: 60})
	log.mu.Lock()
	log.broken = true
	log.mu.Unlock()
	grants := s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	require.Equal(t, im.CodeUnavailable, grants[0].Err.Code)
	s.mu.Lock()
	require.Empty(t, s.subs)
	s.mu.Unlock()
	who := im.Principal{Address: im.User("alice"), Client: "c2"}
	_, _, err := e.Attach(t.Context(), AttachOptions{Principal: who, Expiry: 60, Conn: newRecorder()})
	require.Error(t, err, "a client that was never seen")
	log.mu.Lock()
	log.broken = false
	log.mu.Unlock()
	_, _, err = e.Attach(t.Context(), AttachOptions{Principal: who, Expiry: 60, Conn: newRecorder()})
	require.NoError(t, err)
}

// Many that come at once share their writes, and each of them is written when its call returns.
func TestPersistIsShared(t *testing.T) {
	e, m := startEngine(t, Options{})
	defer stopAll(t, e)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			client := fmt.Sprint("c", i)
			s, _, _ := attach(t, e, "alice", client, AttachOptions{Expiry: 60})
			s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
			if rec, _ := m.stored(t, client); len(rec.Subs) != 1 {
				t.Errorf("%s: %+v", client, rec)
			}
		})
	}
	all.Wait()
}

// TestPositionsThatTheLogLostAreGivenAnew: with durability process a power cut may take
// the end of the log. What then gets the positions that a client has seen is new to it.
func TestPositionsThatTheLogLostAreGivenAnew(t *testing.T) {
	e, m := startEngine(t, Options{})
	s, r, _ := attach(t, e, "alice", "c1", AttachOptions{Expiry: NeverExpires})
	s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	send(m, im.User("alice"), 30)
	for _, p := range r.wait(t, 30)[:20] {
		s.Ack(p.PacketID)
	}
	stopAll(t, e)

	m.entries = m.entries[:10]
	e, _ = startEngine(t, Options{Log: m})
	defer stopAll(t, e)
	send(m, im.User("alice"), 25) // takes 11 to 35
	require.NoError(t, e.Wait(t.Context(), 35))
	s, r, _ = attach(t, e, "alice", "c1", AttachOptions{Expiry: NeverExpires})
	s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	for i, p := range r.wait(t, 25) {
		require.EqualValues(t, 11+i, p.Entry.Seq)
	}
}
