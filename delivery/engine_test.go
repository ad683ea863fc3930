package delivery

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/slimchat/slimchat/im"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a connection that keeps what it is pushed and tells when.
type recorder struct {
	mu     sync.Mutex
	pushes []Push
	closed []CloseReason
	full   bool
	change chan struct{}
}

func newRecorder() *recorder { return &recorder{change: make(chan struct{}, 1)} }

func (r *recorder) Push(p Push) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full {
		return false
	}
	r.pushes = append(r.pushes, p)
	r.told()
	return true
}

func (r *recorder) told() {
	select {
	case r.change <- struct{}{}:
	default:
	}
}

func (r *recorder) Flush() {}

func (r *recorder) Close(why CloseReason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = append(r.closed, why)
	r.told()
}

// wait returns what was pushed once it is n messages.
func (r *recorder) wait(t *testing.T, n int) []Push {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		r.mu.Lock()
		got := append([]Push(nil), r.pushes...)
		r.mu.Unlock()
		if len(got) >= n {
			require.Len(t, got, n)
			return got
		}
		select {
		case <-r.change:
		case <-deadline:
			t.Fatalf("%d of %d messages came", len(got), n)
		}
	}
}

func startEngine(t *testing.T, o Options) (*Engine, *memLog) {
	t.Helper()
	if o.Log == nil {
		o.Log = newMemLog()
	}
	e := New(o)
	require.NoError(t, e.Start(t.Context()))
	return e, o.Log.(*memLog)
}

func attach(t *testing.T, e *Engine, uid, client string, o AttachOptions) (*Session, *recorder, bool) {
	t.Helper()
	r := newRecorder()
	o.Principal, o.Conn = im.Principal{Address: im.User(uid), Client: client, Ticket: "t-" + client}, r
	s, present, err := e.Attach(t.Context(), o)
	require.NoError(t, err)
	s.Start()
	return s, r, present
}

func filter(t *testing.T, text string) Subscription {
	t.Helper()
	f, err := im.ParseFilter(text, "")
	require.NoError(t, err)
	return Subscription{Filter: f, QoS: 2}
}

func stop(t *testing.T, e *Engine, open ...*Session) {
	t.Helper()
	for _, s := range open {
		s.Detach(t.Context(), 0)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, e.Stop(ctx))
}

func send(m *memLog, to im.Address, n int) {
	for range n {
		m.append(to, im.User("carol"), "c", fmt.Sprint(m.Position()+1), 0)
	}
}

func TestSubscriptionsOfOthersAreRefused(t *testing.T) {
	e, _ := startEngine(t, Options{})
	s, _, _ := attach(t, e, "alice", "c1", AttachOptions{})
	for text, ok := range map[string]bool{
		"$IM/#": true, "$IM/user/alice": true, "$IM/user/alice/client/c1": true, "$IM/user/+": true, "$IM/room/+": true,
		"$IM/user/bob": false, "$IM/user/alice/client/c2": false, "#": false, "$SYS/#": false, "$IM/node/+": false,
		"$IM/room/secret": false, "news": false, "$IM/user/bob/#": false,
	} {
		g := s.Subscribe(t.Context(), []Subscription{filter(t, text)})[0]
		require.Equal(t, ok, g.Err == nil, text)
		if ok {
			require.EqualValues(t, 1, g.QoS, "delivery is at QoS 1 at the most")
		}
	}
	stop(t, e, s)
}

func TestOfflineMessagesComeAfterReconnect(t *testing.T) {
	e, m := startEngine(t, Options{RingBytes: 1})
	s, r, present := attach(t, e, "alice", "c1", AttachOptions{Expiry: NeverExpires})
	require.False(t, present)
	s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	send(m, im.User("alice"), 1)
	got := r.wait(t, 1)
	require.True(t, s.Ack(got[0].PacketID))
	require.False(t, s.Ack(got[0].PacketID), "an id is in flight once")
	s.Detach(t.Context(), NeverExpires)
	send(m, im.User("alice"), 5)
	send(m, im.User("bob"), 1)

	s, r, present = attach(t, e, "alice", "c1", AttachOptions{})
	require.True(t, present)
	for i, p := range r.wait(t, 5) {
		require.EqualValues(t, i+2, p.Entry.Seq)
		require.False(t, p.Dup)
	}
	stop(t, e, s)
}

func TestResumedMessagesKeepTheirPacketIDs(t *testing.T) {
	e, m := startEngine(t, Options{})
	s, r, _ := attach(t, e, "alice", "c1", AttachOptions{Expiry: NeverExpires})
	s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	send(m, im.User("alice"), 4)
	got := r.wait(t, 4)
	s.Ack(got[1].PacketID)
	s.Detach(t.Context(), NeverExpires)
	send(m, im.User("alice"), 1)

	s, r, _ = attach(t, e, "alice", "c1", AttachOptions{Expiry: NeverExpires})
	again := r.wait(t, 4)
	for i, j := range []int{0, 2, 3} {
		require.Equal(t, got[j].PacketID, again[i].PacketID)
		require.Equal(t, got[j].Entry.Seq, again[i].Entry.Seq)
		require.True(t, again[i].Dup)
	}
	require.False(t, again[3].Dup)
	s.Detach(t.Context(), NeverExpires)

	s, r, present := attach(t, e, "alice", "c1", AttachOptions{Clean: true})
	require.False(t, present)
	s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	for _, p := range r.wait(t, 4) {
		require.False(t, p.Dup, "a clean start knows no repetition")
	}
	stop(t, e, s)
}

func TestSubscriptionsExpireWithTheSession(t *testing.T) {
	e, m := startEngine(t, Options{})
	s, _, _ := attach(t, e, "alice", "c1", AttachOptions{Expiry: 0})
	s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	s.Detach(t.Context(), 0)
	send(m, im.User("alice"), 1)
	s, r, present := attach(t, e, "alice", "c1", AttachOptions{})
	require.False(t, present)
	s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	r.wait(t, 1)
	stop(t, e, s)
}

func TestNewClientStartsWhereTheOthersAre(t *testing.T) {
	e, m := startEngine(t, Options{})
	s1, r1, _ := attach(t, e, "alice", "c1", AttachOptions{Expiry: NeverExpires})
	s1.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	send(m, im.User("alice"), 3)
	got := r1.wait(t, 3)
	s1.Ack(got[0].PacketID)
	s1.Ack(got[1].PacketID)
	send(m, im.Client("alice", "c2"), 1)
	require.NoError(t, e.Wait(t.Context(), 4))
	s2, r2, _ := attach(t, e, "alice", "c2", AttachOptions{})
	s2.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	seen := r2.wait(t, 2)
	require.EqualValues(t, 3, seen[0].Entry.Seq, "nobody has acknowledged the third")
	require.EqualValues(t, 4, seen[1].Entry.Seq)
	stop(t, e, s1, s2)
}

func TestTakeoverRevocationAndForgetting(t *testing.T) {
	e, m := startEngine(t, Options{})
	s1, r1, _ := attach(t, e, "alice", "c1", AttachOptions{Expiry: NeverExpires})
	s1.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	s2, r2, present := attach(t, e, "alice", "c1", AttachOptions{Expiry: NeverExpires})
	require.True(t, present)
	require.Equal(t, []CloseReason{CloseTakenOver}, r1.closed)
	s1.Detach(t.Context(), 0) // comes late and must not touch the new one
	send(m, im.User("alice"), 1)
	r2.wait(t, 1)
	require.Empty(t, r1.pushes)

	key := im.SessionKey{Owner: im.User("alice"), Client: "c1"}
	require.True(t, e.Online(key))
	require.False(t, e.Kick(key, "another ticket", CloseRevoked))
	require.True(t, e.Kick(key, "t-c1", CloseRevoked))
	require.Equal(t, []CloseReason{CloseRevoked}, r2.closed)
	gone := false
	still := func(context.Context) (bool, error) { return gone, nil }
	require.NoError(t, e.Forget(t.Context(), key, still))
	require.True(t, e.Online(key), "it has logged in again")
	gone = true
	require.NoError(t, e.Forget(t.Context(), key, still))
	require.False(t, e.Online(key))
	require.NoError(t, e.flush(t.Context(), true))
	require.NotContains(t, m.records, key)
	s2.Detach(t.Context(), NeverExpires)
	require.NoError(t, e.flush(t.Context(), true))
	require.NotContains(t, m.records, key, "a session that was forgotten leaves no record")
	stop(t, e)
}

// TestSlowReaderHoldsPositionsOnly: whatever waits for a session, it keeps no message.
func TestSlowReaderHoldsPositionsOnly(t *testing.T) {
	e, m := startEngine(t, Options{Window: 10, RingBytes: 10_000})
	s, r, _ := attach(t, e, "alice", "c1", AttachOptions{})
	s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	send(m, im.User("alice"), 2000)
	require.NoError(t, e.Wait(t.Context(), 2000))
	s.mu.Lock()
	require.LessOrEqual(t, len(s.window.slots), 10)
	s.mu.Unlock()
	for n := 10; n <= 2000; n += 10 {
		got := r.wait(t, n)
		for i := n - 10; i < n; i++ {
			require.EqualValues(t, i+1, got[i].Entry.Seq)
			require.True(t, s.Ack(got[i].PacketID))
		}
	}
	stop(t, e, s)
}

func TestTransientEventsReachOnlineClientsOnly(t *testing.T) {
	e, m := startEngine(t, Options{})
	s1, r1, _ := attach(t, e, "alice", "c1", AttachOptions{})
	s2, r2, _ := attach(t, e, "alice", "c2", AttachOptions{})
	s1.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	carol := im.Principal{Address: im.User("carol"), Client: "x"}
	require.Equal(t, 1, e.PushTransient(im.User("alice"), im.Envelope{From: carol.Address, Client: carol.Client, Body: []byte("{}")}))
	require.True(t, r1.wait(t, 1)[0].Transient)
	require.Empty(t, r2.pushes, "c2 has not subscribed")
	require.Zero(t, m.Position())
	stop(t, e, s1, s2)
}

func TestExpiredMessagesAreSkipped(t *testing.T) {
	e, m := startEngine(t, Options{})
	gone := m.append(im.User("alice"), im.User("carol"), "c", "1", 0)
	gone.Expires = 1
	send(m, im.User("alice"), 1)
	s, r, _ := attach(t, e, "alice", "c1", AttachOptions{})
	s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
	require.EqualValues(t, 2, r.wait(t, 1)[0].Entry.Seq)
	stop(t, e, s)
}
