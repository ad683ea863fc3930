package models

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	feedInterval = 400 * time.Millisecond
	dropInterval = time.Minute
	// feedOverlap is how long an id that was skipped is still waited for. On Postgres ids
	// commit out of order; a write ends well before that, because the change is its last
	// statement and the server ends statements after 5 s and idle transactions after 4 s.
	feedOverlap  = 15 * time.Second
	feedLookBack = 1000 // ids re-read after the start
)

// Feed follows the changes that any process of the domain writes to the database and gives
// each to the listeners: those of this process as soon as they are committed, before the
// write returns, those of others within half a second. A change may come twice. Revocations
// that have not expired are given at the start.
type Feed struct {
	store     *Store
	log       *slog.Logger
	interval  time.Duration
	listeners []func(Change)

	mu     sync.Mutex
	floor  int64               // every id up to here was given or has been given up
	seen   map[int64]time.Time // ids above floor that were given, and when
	polled time.Time           // of the last complete poll

	stop func()
	done chan struct{}
}

// NewFeed makes the feed of a store; a store has one feed.
func NewFeed(store *Store, log *slog.Logger) *Feed {
	return &Feed{store: store, log: log, interval: feedInterval, seen: make(map[int64]time.Time)}
}

// OnChange registers a listener; call it before Start. A listener is called from several
// goroutines, also from the one that writes: it must be quick and must not write to the
// store itself.
func (f *Feed) OnChange(fn func(Change)) { f.listeners = append(f.listeners, fn) }

// Start gives the unexpired revocations to the listeners and begins to follow the feed. The
// context bounds the start alone; Close ends the feed.
func (f *Feed) Start(ctx context.Context) error {
	last, err := f.store.lastChange(ctx)
	if err != nil {
		return err
	}
	f.floor = max(0, last-feedLookBack)
	rows, err := f.store.changesAfter(ctx, f.floor, feedLookBack)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.ID <= last {
			f.observe(row.ID)
		}
	}
	f.store.feed.Store(f)
	if err := f.store.eachRevocation(ctx, f.dispatch); err != nil {
		f.store.feed.Store(nil)
		return err
	}
	f.polled = f.store.now()
	var running context.Context
	running, f.stop = context.WithCancel(context.Background())
	f.done = make(chan struct{})
	go f.run(running)
	return nil
}

// Close ends the feed and waits for the running poll. Close of a feed that was not started
// does nothing.
func (f *Feed) Close() {
	if f.stop == nil {
		return
	}
	f.store.feed.CompareAndSwap(f, nil)
	f.stop()
	<-f.done
}

func (f *Feed) run(ctx context.Context) {
	defer close(f.done)
	poll, drop := time.NewTicker(f.interval), time.NewTicker(dropInterval)
	defer poll.Stop()
	defer drop.Stop()
	failing := false
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			err = f.poll(ctx)
			if err == nil && failing {
				failing = false
				f.log.Info("the feed of account changes is read again")
			}
		case <-drop.C:
			err = f.store.dropChanges(ctx)
		}
		if err != nil && !failing && !errors.Is(ctx.Err(), context.Canceled) {
			failing = true
			f.log.Warn("the feed of account changes cannot be read: logins that were ended elsewhere stay live", "error", err)
		}
	}
}

// poll gives everything that is new. After a pause in which changes may have been dropped
// unread, everything cached is declared stale.
func (f *Feed) poll(ctx context.Context) error {
	f.mu.Lock()
	after, polled := f.floor, f.polled
	f.mu.Unlock()
	now := f.store.now()
	for {
		rows, err := f.store.changesAfter(ctx, after, MaxPage)
		if err != nil {
			return err
		}
		f.committed(rows)
		if len(rows) < MaxPage {
			break
		}
		after = rows[len(rows)-1].ID
	}
	if now.Sub(polled) > changeRetention/2 {
		f.dispatch(Change{Kind: ChangeReset})
		if err := f.store.eachRevocation(ctx, f.dispatch); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polled = now
	f.giveUp(now)
	return nil
}

// committed gives those of the changes that were not given yet.
func (f *Feed) committed(rows []changeRow) {
	for _, row := range rows {
		if f.observe(row.ID) {
			f.dispatch(row.change())
		}
	}
}

func (f *Feed) dispatch(c Change) {
	for _, fn := range f.listeners {
		fn(c)
	}
}

// observe tells whether the id is new and remembers it.
func (f *Feed) observe(id int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.seen[id]; known || id <= f.floor {
		return false
	}
	f.seen[id] = f.store.now()
	f.advance()
	return true
}

// advance moves the floor over ids without a gap.
func (f *Feed) advance() {
	for {
		if _, ok := f.seen[f.floor+1]; !ok {
			return
		}
		f.floor++
		delete(f.seen, f.floor)
	}
}

// giveUp moves the floor over gaps that nobody can fill any more: ids are handed out in
// order, so whoever holds a lower id than one that committed long ago has ended too.
func (f *Feed) giveUp(now time.Time) {
	for id, at := range f.seen {
		if id > f.floor && now.Sub(at) >= feedOverlap {
			f.floor = id
		}
	}
	for id := range f.seen {
		if id <= f.floor {
			delete(f.seen, id)
		}
	}
	f.advance()
}
