package delivery

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/slimchat/slimchat/im"
)

const (
	maxSubscriptions     = 256      // of one session
	maxSubscriptionBytes = 16 << 10 // of the filters of one session: its record must stay small
	attachStripes        = 256
)

// Options configure an Engine. Zero values take the defaults named here.
type Options struct {
	Log    Log
	Logger *slog.Logger
	Domain string // this domain's name

	Window       int           // most messages in flight to one client; 100
	RingBytes    int           // memory for the newest messages; 32 MiB
	DedupeAge    time.Duration // how long (sender, id) pairs are remembered; 10 minutes
	DedupeLimit  int           // how many at the most; 2,000,000
	CatchUp      int           // sessions that are caught up at the same time; 8
	Attaching    int           // sessions that are being opened at the same time; 64
	AttachWaiter time.Duration // how long a connection waits for its turn; 10 s
}

func (o *Options) defaults() {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&o.Window, 100)
	set(&o.RingBytes, 32<<20)
	set(&o.DedupeLimit, 2_000_000)
	set(&o.CatchUp, 8)
	set(&o.Attaching, 64)
	if o.DedupeAge <= 0 {
		o.DedupeAge = 10 * time.Minute
	}
	if o.AttachWaiter <= 0 {
		o.AttachWaiter = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Engine holds the sessions of one process. Lock order: an attach stripe, Engine.mu,
// Session.mu, then the locks of followers, pump and flusher, which hold no other.
type Engine struct {
	opts    Options
	log     *slog.Logger
	tail    *tail
	pump    *pump
	flusher flusher

	epoch   string // of this engine, in the records that it writes
	begun   uint64 // where the log ended when it started
	seed    maphash.Seed
	stripes [attachStripes]chan struct{} // serialise Attach for one client
	opening chan struct{}                // admission

	mu       sync.Mutex
	sessions map[im.Address][]*Session // by owner
	count    int
	pending  map[im.SessionKey]*pendingRecord
	stopping bool
	idle     chan struct{} // closed when stopping and no session is left

	cancel context.CancelFunc
	owned  sync.WaitGroup
}

// New makes an engine; Start begins its work.
func New(o Options) *Engine {
	o.defaults()
	e := &Engine{
		opts: o, log: o.Logger, seed: maphash.MakeSeed(),
		opening:  make(chan struct{}, o.Attaching),
		sessions: make(map[im.Address][]*Session),
		pending:  make(map[im.SessionKey]*pendingRecord),
		idle:     make(chan struct{}),
	}
	for i := range e.stripes {
		e.stripes[i] = make(chan struct{}, 1)
	}
	e.pump = newPump(e)
	return e
}

// Start rebuilds the dedupe window and the ring from the newest part of the log and
// returns when the tail has caught up, so that nothing is accepted before. The engine
// works until Stop.
func (e *Engine) Start(ctx context.Context) error {
	end := e.opts.Log.Position()
	e.epoch, e.begun = rand.Text()[:8], end
	after, err := e.opts.Log.PositionAt(ctx, time.Now().Add(-e.opts.DedupeAge))
	if err != nil {
		return fmt.Errorf("find the start of the dedupe window: %w", err)
	}
	if limit := uint64(e.opts.DedupeLimit); end > limit {
		after = max(after, end-limit)
	}
	after = min(after, end)
	e.tail = &tail{
		log: e.opts.Log, ring: newRing(e.opts.RingBytes, after),
		window: NewWindow(e.opts.DedupeAge, e.opts.DedupeLimit),
		follow: followers{byAddr: make(map[im.Address][]*lane)},
		moved:  make(chan struct{}),
	}
	e.tail.window.follow(after)
	e.tail.start.Store(after)
	e.tail.done.Store(after)

	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.cancel = cancel
	e.owned.Go(func() {
		e.tail.run(run, func(err error) { e.log.Error("the tail of the log broke off", "error", err) })
	})
	e.owned.Go(func() { e.flushLoop(run) })
	for range e.opts.CatchUp {
		e.owned.Go(func() { e.pump.work(run) })
	}
	if err := e.tail.wait(ctx, end); err != nil {
		e.pump.close()
		cancel()
		e.owned.Wait()
		return fmt.Errorf("read the newest part of the log: %w", err)
	}
	return nil
}

// Stop ends every session, waits until their edges have let go of them, writes the last
// records and stops. When ctx ends first, it stops all the same and says so.
func (e *Engine) Stop(ctx context.Context) error {
	e.mu.Lock()
	e.stopping = true
	var open []*Session
	for _, list := range e.sessions {
		open = append(open, list...)
	}
	e.idleLocked()
	e.mu.Unlock()
	for _, s := range open {
		s.mu.Lock()
		s.conn.Close(CloseShutdown)
		s.mu.Unlock()
	}
	var errs []error
	select {
	case <-e.idle:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("sessions still open: %w", ctx.Err()))
	}
	e.pump.close()
	e.cancel()
	e.owned.Wait()
	flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := e.flush(flushing, true); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (e *Engine) idleLocked() {
	if e.stopping && e.count == 0 {
		select {
		case <-e.idle:
		default:
			close(e.idle)
		}
	}
}

// Window returns the dedupe window that the tail keeps; nil before Start.
func (e *Engine) Window() *Window { return e.tail.window }

// Position is how far the tail has handed the log to the sessions.
func (e *Engine) Position() uint64 { return e.tail.done.Load() }

// Wait returns once the tail has handed over position pos, or ctx ends.
func (e *Engine) Wait(ctx context.Context, pos uint64) error { return e.tail.wait(ctx, pos) }

// Online tells whether the client has a live session in this process.
func (e *Engine) Online(key im.SessionKey) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.findLocked(key) != nil
}

// Kick ends the live session of a client. With a ticket it does so only if the session
// was opened by that login.
func (e *Engine) Kick(key im.SessionKey, ticket string, why CloseReason) bool {
	e.mu.Lock()
	s := e.findLocked(key)
	e.mu.Unlock()
	if s == nil || ticket != "" && s.principal.Ticket != ticket {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn.Close(why)
	return true
}

// PushTransient hands an event that is not in the log to the sessions that follow the
// address and have room. It returns how many took it.
func (e *Engine) PushTransient(to im.Address, event im.Envelope) int {
	entry := &im.Entry{To: to, Envelope: event}
	n := 0
	for _, l := range e.tail.follow.of(to) {
		s := l.session
		s.mu.Lock()
		own := event.From == s.principal.Address && event.Client == s.principal.Client
		if l.track != nil && s.started && !s.closed && !s.noRoom && !own {
			if s.conn.Push(Push{Entry: entry, Transient: true}) {
				s.conn.Flush()
				n++
			} else {
				s.noRoom = true
			}
		}
		s.mu.Unlock()
	}
	return n
}

// Stats are figures of this process at one moment.
type Stats struct {
	Sessions int    // connected
	Behind   int    // of them, waiting to be caught up
	Pending  int    // records of ended sessions that are not written yet
	Position uint64 // of the tail
}

// Stats returns the figures of now.
func (e *Engine) Stats() Stats {
	e.pump.mu.Lock()
	behind := len(e.pump.queue)
	e.pump.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	return Stats{Sessions: e.count, Behind: behind, Pending: len(e.pending), Position: e.tail.done.Load()}
}

func (e *Engine) findLocked(key im.SessionKey) *Session {
	for _, s := range e.sessions[key.Owner] {
		if s.key.Client == key.Client {
			return s
		}
	}
	return nil
}

func (e *Engine) removeLocked(s *Session) {
	list := e.sessions[s.key.Owner]
	for i, other := range list {
		if other != s {
			continue
		}
		if len(list) == 1 {
			delete(e.sessions, s.key.Owner)
		} else {
			e.sessions[s.key.Owner] = append(list[:i:i], list[i+1:]...)
		}
		e.count--
		e.idleLocked()
		return
	}
}
