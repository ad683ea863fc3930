package msglog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Log is the message log of this process. All methods may be called from any goroutine.
type Log struct {
	opts Options
	log  *slog.Logger

	nc      *nats.Conn // requests to the JetStream API, session records
	js      jetstream.JetStream
	readers *readerPool
	// historians read for people who look back, which may take long: whoever delivers or
	// publishes does not wait behind them.
	historians *readerPool
	syncer     Syncer

	queue   queue
	commit  *committer
	durable gate
	recent  *recent
	stats   counters

	ctx       context.Context // ends when Close has committed everything
	cancel    context.CancelFunc
	failed    atomic.Pointer[failure]
	revivals  atomic.Uint64 // how often JetStream was started again; its consumers were lost
	closeOnce sync.Once
	closing   atomic.Bool
}

type failure struct{ err error }

// Open connects to the server, creates or verifies the stream and the bucket, and makes
// everything that the log already holds durable. After it, everything there may be read.
func Open(ctx context.Context, opts Options) (*Log, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	l := &Log{opts: opts, log: opts.Logger.With("component", "msglog")}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.durable.init()
	l.queue.init(opts.QueueMsgs, opts.QueueBytes)
	if err := l.open(ctx); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

func (l *Log) open(ctx context.Context) error {
	var err error
	if l.syncer, err = l.newSyncer(); err != nil {
		return fmt.Errorf("msglog: %w", err)
	}
	if l.opts.Durability == DurabilityDisk && renameMayLoseData(l.opts.DataDir) {
		l.log.Warn("on this file system a power cut at the moment when old messages are compacted can lose some of them; ext4 has no such moment", "data", l.opts.DataDir)
	}
	if l.nc, err = l.opts.Server.Connect("msglog"); err != nil {
		return fmt.Errorf("msglog: %w", err)
	}
	if l.js, err = jetstream.New(l.nc); err != nil {
		return fmt.Errorf("msglog: %w", err)
	}
	if err := l.ensureStreams(ctx); err != nil {
		return err
	}
	l.readers = newReaderPool(l.opts.Server, l.opts.ReadConns)
	l.historians = newReaderPool(l.opts.Server, l.opts.HistoryConns)
	last, err := l.lastSeq(ctx)
	if err != nil {
		return err
	}
	last, err = l.recoverPairs(ctx, last, func(subject string, data []byte) (uint64, error) {
		m, err := l.nc.RequestWithContext(ctx, subject, data)
		if err != nil {
			return 0, err
		}
		a := parseAck(m.Data)
		return a.seq, a.err
	})
	if err != nil {
		return fmt.Errorf("msglog: completing the end of the log: %w", err)
	}
	// What an earlier process left unsynced would otherwise be read before it is durable.
	if err := l.syncer.Sync(); err != nil {
		return fmt.Errorf("msglog: first sync: %w", err)
	}
	l.recent = newRecent(last, recentAddresses)
	l.durable.advance(last)
	l.commit, err = startCommitter(l, last)
	return err
}

func (l *Log) newSyncer() (Syncer, error) {
	switch {
	case l.opts.Syncer != nil:
		return l.opts.Syncer, nil
	case l.opts.Durability == DurabilityDisk && !NeedsSyncAlways(l.opts.Durability, l.opts.Replicas):
		return newFSSyncer(l.opts.DataDir)
	}
	return noSyncer{}, nil
}

// lastSeq asks the server for the last position of the stream.
func (l *Log) lastSeq(ctx context.Context) (uint64, error) {
	s, err := l.js.Stream(ctx, StreamName)
	if err != nil {
		return 0, fmt.Errorf("msglog: state of the stream: %w", err)
	}
	return s.CachedInfo().State.LastSeq, nil
}

// Position is the highest position that may be seen: everything up to it is as durable as
// configured.
func (l *Log) Position() uint64 { return l.durable.load() }

// Healthy is nil while the log takes appends. Otherwise it says why not; the error is
// ErrUnwritable when only opening the log again can help.
func (l *Log) Healthy() error {
	if f := l.failed.Load(); f != nil {
		return f.err
	}
	if l.closing.Load() {
		return ErrClosed
	}
	return l.commit.obstacle()
}

// fail makes the log unwritable for good. The first cause stays.
func (l *Log) fail(cause error) {
	f := &failure{fmt.Errorf("%w: %w", ErrUnwritable, cause)}
	if l.failed.CompareAndSwap(nil, f) {
		l.log.Error("the message log has failed and takes nothing any more", "error", cause)
	}
	l.queue.wake()
}

// writeErr is what an append gets while the log has failed or is closed; nil otherwise.
func (l *Log) writeErr() error {
	if f := l.failed.Load(); f != nil {
		return unavailable(f.err, "the server cannot store messages now")
	}
	if l.closing.Load() {
		return closedErr()
	}
	return nil
}

func closedErr() error { return unavailable(ErrClosed, "the server is shutting down") }

// Close takes no more appends, commits those it has, and closes all connections. When ctx
// ends first, what is not committed fails with ErrUnwritable. Tails and reads that still
// run end with an error.
func (l *Log) Close(ctx context.Context) error {
	var err error
	l.closeOnce.Do(func() {
		l.closing.Store(true)
		l.queue.wake()
		err = l.commit.stop(ctx)
		l.release()
	})
	return err
}

func (l *Log) release() {
	l.cancel()
	if l.commit != nil {
		l.commit.nc.Close()
	}
	for _, pool := range []*readerPool{l.readers, l.historians} {
		if pool != nil {
			pool.close()
		}
	}
	if l.nc != nil {
		l.nc.Close()
	}
	if l.syncer != nil {
		if err := l.syncer.Close(); err != nil {
			l.log.Warn("closing the syncer", "error", err)
		}
	}
}

// gate is the durable position and those who wait for it to rise.
type gate struct {
	pos     atomic.Uint64
	mu      sync.Mutex
	waiting bool
	ch      chan struct{}
}

func (g *gate) init()        { g.ch = make(chan struct{}) }
func (g *gate) load() uint64 { return g.pos.Load() }

func (g *gate) advance(to uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if to <= g.pos.Load() {
		return
	}
	g.pos.Store(to)
	if g.waiting {
		g.waiting = false
		close(g.ch)
		g.ch = make(chan struct{})
	}
}

// wait returns the position once it is at least seq.
func (g *gate) wait(ctx context.Context, seq uint64) (uint64, error) {
	for {
		if pos := g.pos.Load(); pos >= seq {
			return pos, nil
		}
		g.mu.Lock()
		if pos := g.pos.Load(); pos >= seq {
			g.mu.Unlock()
			return pos, nil
		}
		g.waiting = true
		ch := g.ch
		g.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return g.pos.Load(), ctx.Err()
		}
	}
}

// counters are the atomic counts behind Stats.
type counters struct {
	records, messages, bytes, groups, syncs, syncNanos atomic.Uint64
	refused, resolved, tailed, tailRepairs, reads      atomic.Uint64
	largest                                            atomic.Uint64
}

// Stats are counts since the log was opened.
type Stats struct {
	Records  uint64 // committed appends
	Messages uint64 // committed messages, copies included
	Bytes    uint64 // of them, subjects and payloads
	Groups   uint64 // commits
	Largest  uint64 // messages in the largest group
	Syncs    uint64 // syncs of the file system
	SyncTime time.Duration
	Refused  uint64 // appends that failed after they were taken
	Resolved uint64 // times that an unknown outcome was looked up in the log

	Tailed      uint64 // entries that tails have delivered
	TailRepairs uint64 // gaps that they repaired
	Reads       uint64 // requests to JetStream for reading

	QueuedMsgs, QueuedBytes int // waiting for their commit at this moment
	Position                uint64
}

// Stats returns the counts; it is cheap.
func (l *Log) Stats() Stats {
	c := &l.stats
	msgs, bytes := l.queue.load()
	return Stats{
		Records: c.records.Load(), Messages: c.messages.Load(), Bytes: c.bytes.Load(),
		Groups: c.groups.Load(), Largest: c.largest.Load(), Syncs: c.syncs.Load(),
		SyncTime: time.Duration(c.syncNanos.Load()), Refused: c.refused.Load(), Resolved: c.resolved.Load(),
		Tailed: c.tailed.Load(), TailRepairs: c.tailRepairs.Load(), Reads: c.reads.Load(),
		QueuedMsgs: msgs, QueuedBytes: bytes, Position: l.Position(),
	}
}

var errStillUnknown = errors.New("the outcome of a write stayed unknown")
