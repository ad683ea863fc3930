package msglog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/slimchat/slimchat/im"
)

// gateSyncer lets a test hold a sync back and make it fail.
type gateSyncer struct {
	entered chan struct{}
	leave   chan error
}

func newGateSyncer() *gateSyncer {
	return &gateSyncer{entered: make(chan struct{}), leave: make(chan error)}
}

func (s *gateSyncer) Sync() error {
	s.entered <- struct{}{}
	return <-s.leave
}

func (s *gateSyncer) Close() error { return nil }

// openGated opens a log whose every sync the test releases.
func openGated(t *testing.T) (*env, *gateSyncer) {
	s := newGateSyncer()
	go func() { <-s.entered; s.leave <- nil }() // the sync at Open
	return start(t, t.TempDir(), func(o *Options) { o.Syncer = s }), s
}

func TestNothingIsSeenBeforeItIsDurable(t *testing.T) {
	e, s := openGated(t)
	tail := e.tail(0)
	done := make(chan uint64, 1)
	require.NoError(t, e.log.Append(t.Context(), message(alice, bob, "m", false), func(seq uint64, err error) {
		require.NoError(t, err)
		done <- seq
	}))
	<-s.entered
	// JetStream has it, and its consumers get it.
	last, err := e.log.lastSeq(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, last)
	require.Zero(t, e.log.Position())
	entries, next, err := e.log.Read(t.Context(), []im.Address{bob}, 0, 100, 10, 1<<20)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.Zero(t, next)
	require.Never(t, func() bool {
		tail.mu.Lock()
		defer tail.mu.Unlock()
		return len(done) > 0 || len(tail.entries) > 0
	}, 300*time.Millisecond, 10*time.Millisecond)
	s.leave <- nil
	require.EqualValues(t, 1, <-done)
	tail.wait(t, 1)
}

func TestGroupGathersWhileASyncRuns(t *testing.T) {
	e, s := openGated(t)
	var acked atomic.Int32
	appendOne := func(i int) {
		require.NoError(t, e.log.Append(t.Context(), message(alice, bob, fmt.Sprint(i), false), func(_ uint64, err error) {
			require.NoError(t, err)
			acked.Add(1)
		}))
	}
	appendOne(0)
	<-s.entered
	for i := range 300 {
		appendOne(i + 1)
	}
	require.Eventually(t, func() bool { last, _ := e.log.lastSeq(t.Context()); return last == 301 }, 5*time.Second, time.Millisecond)
	require.Zero(t, acked.Load())
	s.leave <- nil
	for e.log.Position() < 301 {
		select {
		case <-s.entered:
			s.leave <- nil
		case <-time.After(time.Millisecond):
		}
	}
	require.LessOrEqual(t, e.log.Stats().Syncs, uint64(4))
	require.Eventually(t, func() bool { return acked.Load() == 301 }, 5*time.Second, time.Millisecond)
}

func TestSyncErrorEndsAcknowledging(t *testing.T) {
	broken := errors.New("the device is gone")
	e, s := openGated(t)
	errs := make(chan error, 2)
	done := func(_ uint64, err error) { errs <- err }
	require.NoError(t, e.log.Append(t.Context(), message(alice, bob, "1", false), done))
	<-s.entered
	require.NoError(t, e.log.Append(t.Context(), message(alice, bob, "2", false), done))
	s.leave <- broken
	for range 2 {
		err := <-errs
		require.ErrorIs(t, err, ErrUnwritable)
		require.ErrorIs(t, err, broken)
		require.Equal(t, im.CodeUnavailable, im.CodeOf(err))
	}
	require.ErrorIs(t, e.log.Healthy(), ErrUnwritable)
	require.Zero(t, e.log.Position())
	require.ErrorIs(t, e.log.Append(t.Context(), message(alice, bob, "3", false), done), ErrUnwritable)
	require.ErrorIs(t, e.log.TryAppend(message(alice, bob, "3", false), done), ErrUnwritable)
	select {
	case <-s.entered:
		t.Fatal("a failed sync was tried again")
	case <-time.After(200 * time.Millisecond):
	}
}

func TestOrderAndNoLossUnderConcurrency(t *testing.T) {
	for _, d := range []Durability{DurabilityDisk, DurabilityProcess} {
		t.Run(string(d), func(t *testing.T) {
			var flushes atomic.Int32
			e := start(t, t.TempDir(), func(o *Options) {
				o.Durability, o.QueueMsgs = d, 100
				o.OnCommitted = func() { flushes.Add(1) }
			})
			tail := e.tail(0)
			const writers, each = 8, 400
			var wg, acks sync.WaitGroup
			var lastAck atomic.Uint64
			seqs := make([][]uint64, writers)
			for w := range writers {
				seqs[w] = make([]uint64, each)
				acks.Add(each)
				wg.Go(func() {
					for i := range each {
						rec := message(im.User(fmt.Sprint("w", w)), bob, fmt.Sprintf("%d-%d", w, i), i%3 == 0)
						err := e.log.Append(context.Background(), rec, func(seq uint64, err error) {
							defer acks.Done()
							if err != nil || lastAck.Swap(seq) >= seq {
								t.Errorf("seq %d after %d: %v", seq, lastAck.Load(), err)
							}
							seqs[w][i] = seq
						})
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			acks.Wait()
			copies := (each + 2) / 3 * writers
			all := tail.wait(t, writers*each+copies)
			bySeq := make(map[uint64]*im.Entry)
			for i, e := range all {
				require.EqualValues(t, i+1, e.Seq)
				bySeq[e.Seq] = e
			}
			for w := range writers {
				for i, seq := range seqs[w] {
					require.Equal(t, fmt.Sprintf("%d-%d", w, i), bySeq[seq].ID)
					if i%3 == 0 {
						require.True(t, bySeq[seq+1].IsCopy(), "the copy follows its message")
						require.Equal(t, bySeq[seq].ID, bySeq[seq+1].ID)
					}
					if i > 0 {
						require.Greater(t, seq, seqs[w][i-1], "one writer's order")
					}
				}
			}
			st := e.log.Stats()
			require.EqualValues(t, writers*each, st.Records)
			require.Zero(t, st.Refused+st.Resolved)
			require.NotZero(t, flushes.Load())
			require.Zero(t, st.QueuedMsgs)
		})
	}
}

func TestQueueIsBounded(t *testing.T) {
	e, s := openGated(t)
	e.log.queue.maxMsgs = 4
	nothing := func(uint64, error) {}
	full := false
	for i := 0; i < 20_000 && !full; i++ {
		err := e.log.TryAppend(message(alice, bob, fmt.Sprint(i), false), nothing)
		if full = err != nil; full {
			require.ErrorIs(t, err, ErrOverload)
			require.Equal(t, im.CodeUnavailable, im.CodeOf(err))
		}
	}
	require.True(t, full)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	// Groups that are published make room until those ahead are used up.
	var err error
	for err == nil {
		err = e.log.Append(ctx, message(alice, bob, "x", false), nothing)
	}
	require.ErrorIs(t, err, context.DeadlineExceeded)
	go func() {
		for range s.entered {
			s.leave <- nil
		}
	}()
	require.NoError(t, e.log.Append(t.Context(), message(alice, bob, "y", false), nothing))
}

func TestTooLarge(t *testing.T) {
	e := start(t, t.TempDir(), func(o *Options) { o.MaxMsgBytes = 1000 })
	rec := message(alice, bob, "m", false)
	rec.Data = append(rec.Data, make([]byte, 1000)...)
	_, err := e.try(rec)
	require.ErrorIs(t, err, ErrTooLarge)
	require.Equal(t, im.CodeTooLarge, im.CodeOf(err))
	require.ErrorIs(t, e.log.TryAppend(rec, nil), ErrTooLarge)
}

// breaker is a Connector whose connections a test can cut.
type breaker struct {
	Connector
	mu    sync.Mutex
	conns map[string]*nats.Conn
}

func (b *breaker) Connect(name string, opts ...nats.Option) (*nats.Conn, error) {
	nc, err := b.Connector.Connect(name, opts...)
	if err == nil {
		b.mu.Lock()
		b.conns[name] = nc
		b.mu.Unlock()
	}
	return nc, err
}

// cut breaks a connection, which may still be on its way up.
func (b *breaker) cut(t *testing.T, name string) {
	t.Helper()
	var nc *nats.Conn
	require.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		nc = b.conns[name]
		return nc != nil
	}, 10*time.Second, time.Millisecond)
	_ = nc.ForceReconnect()
}

// Cutting the committer's connection makes outcomes unknown; looking at the log must tell
// each caller the truth.
func TestUnknownOutcomesAreLookedUp(t *testing.T) {
	e := start(t, t.TempDir(), func(o *Options) { o.Durability = DurabilityProcess })
	require.NoError(t, e.log.Close(context.Background()))
	b := &breaker{Connector: e.node, conns: map[string]*nats.Conn{}}
	e.opts.Server = b
	var err error
	e.log, err = Open(t.Context(), e.opts)
	require.NoError(t, err)
	tail := e.tail(0)

	const n = 20_000
	type outcome struct {
		seq uint64
		err error
	}
	got := make([]outcome, n)
	var acks sync.WaitGroup
	acks.Add(n)
	for i := range n {
		err := e.log.Append(t.Context(), message(alice, im.User(fmt.Sprint("to", i%10)), fmt.Sprint(i), i%7 == 0), func(seq uint64, err error) {
			got[i] = outcome{seq, err}
			acks.Done()
		})
		require.NoError(t, err)
		if i%2500 == 1000 {
			b.cut(t, "msglog commit")
		}
		if i%5000 == 2000 {
			b.cut(t, "msglog tail")
		}
	}
	acks.Wait()
	require.NotZero(t, e.log.Stats().Resolved, "the cuts were in vain")
	acked, refused := 0, 0
	byID := make(map[string]uint64)
	raw, err := e.log.scan(t.Context(), 0, e.log.Position())
	require.NoError(t, err)
	copies := make(map[string]bool)
	for _, r := range raw {
		entry, err := r.entry()
		require.NoError(t, err)
		if entry.IsCopy() {
			require.False(t, copies[entry.ID])
			copies[entry.ID] = true
			continue
		}
		require.Zero(t, byID[entry.ID], "stored twice")
		byID[entry.ID] = r.seq
	}
	for i, o := range got {
		if o.err == nil {
			acked++
			require.Equal(t, o.seq, byID[fmt.Sprint(i)])
			require.Equal(t, i%7 == 0, copies[fmt.Sprint(i)])
			continue
		}
		refused++
		require.ErrorIs(t, o.err, ErrRefused)
		require.Zero(t, byID[fmt.Sprint(i)], "refused and yet stored")
	}
	t.Logf("%d acknowledged, %d refused, %d lookups", acked, refused, e.log.Stats().Resolved)
	require.NoError(t, e.log.Healthy())
	for i, entry := range tail.wait(t, len(raw)) {
		require.Equal(t, raw[i].seq, entry.Seq)
	}
}

func TestCloseCommitsWhatIsQueued(t *testing.T) {
	before := goleak.IgnoreCurrent()
	dir := t.TempDir()
	e := start(t, dir, nil)
	var acked, failed atomic.Int32
	for i := range 5000 {
		require.NoError(t, e.log.Append(t.Context(), message(alice, bob, fmt.Sprint(i), false), func(_ uint64, err error) {
			if err == nil {
				acked.Add(1)
			} else {
				failed.Add(1)
			}
		}))
	}
	e.stop()
	require.EqualValues(t, 5000, acked.Load())
	require.Zero(t, failed.Load())
	require.ErrorIs(t, e.log.Append(t.Context(), message(alice, bob, "late", false), nil), ErrClosed)
	require.ErrorIs(t, e.log.Healthy(), ErrClosed)
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1"))
}

func TestReopenKeepsPositions(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		e := start(t, dir, nil)
		require.EqualValues(t, i, e.log.Position())
		require.EqualValues(t, i+1, e.append(message(alice, bob, fmt.Sprint(i), false)))
		e.stop()
	}
}

func TestParseAck(t *testing.T) {
	require.Equal(t, ack{seq: 12}, parseAck([]byte(`{"stream":"IM","domain":"d", "seq":12}`)))
	require.Equal(t, ack{seq: 12}, parseAck([]byte(`{"stream":"IM","seq":12}`)))
	require.Equal(t, ack{seq: 7}, parseAck([]byte(`{"stream":"IM","seq":7,"duplicate": true}`)))
	require.Error(t, parseAck([]byte(`{"stream":"IM"}`)).err)
	require.Error(t, parseAck([]byte(`{"error":{"code":503,"err_code":10077,"description":"no"},"stream":"IM","seq":0}`)).err)
	require.Error(t, parseAck(nil).err)
	require.Error(t, parseAck([]byte(`{"stream":"IM","seq":99999999999999999999999}`)).err)
}

func TestOptionsAreChecked(t *testing.T) {
	e := start(t, t.TempDir(), nil)
	for name, edit := range map[string]func(*Options){
		"server":     func(o *Options) { o.Server = nil },
		"data":       func(o *Options) { o.DataDir = "" },
		"durability": func(o *Options) { o.Durability = "memory" },
		"replicas":   func(o *Options) { o.Replicas = 3 },
	} {
		o := e.opts
		edit(&o)
		_, err := Open(t.Context(), o)
		require.Error(t, err, name)
	}
}
