package delivery

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slimchat/slimchat/im"
)

// tail reads the log as it grows and hands each entry to the lanes that follow its
// address. There is one per engine.
type tail struct {
	log    Log
	ring   *ring
	window *Window
	follow followers

	// start is the last position whose dispatch has begun, done the last one whose
	// dispatch is over. A track may turn live only at or past start, with its session
	// locked: then the tail is yet to offer it everything that comes after.
	start atomic.Uint64
	done  atomic.Uint64

	mu      sync.Mutex
	moved   chan struct{} // closed and replaced when done moves and somebody waits
	waiting bool
	touched []*Session // of the batch at hand
}

// run tails the log until ctx ends. When the log cannot go on it tries again, so that a
// fault is a pause for the sessions and not a gap.
func (t *tail) run(ctx context.Context, failed func(error)) {
	for {
		err := t.log.Tail(ctx, t.done.Load(), t.dispatch)
		if ctx.Err() != nil {
			return
		}
		failed(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// dispatch takes the next entries of the log. It is called by one goroutine.
func (t *tail) dispatch(batch []*im.Entry) {
	if len(batch) == 0 {
		return
	}
	last, now := batch[len(batch)-1].Seq, unixMilli()
	t.ring.add(batch)
	t.window.noteAll(batch)
	t.start.Store(last)
	for _, e := range batch {
		for _, l := range t.follow.of(e.To) {
			if l.offer(e, now) {
				t.touched = append(t.touched, l.session)
			}
		}
	}
	for _, s := range t.touched {
		s.flushPushed()
	}
	clear(t.touched)
	t.touched = t.touched[:0]
	t.done.Store(last)
	t.mu.Lock()
	if t.waiting {
		close(t.moved)
		t.moved, t.waiting = make(chan struct{}), false
	}
	t.mu.Unlock()
}

// wait returns once the tail has dispatched position pos.
func (t *tail) wait(ctx context.Context, pos uint64) error {
	for {
		t.mu.Lock()
		if t.done.Load() >= pos {
			t.mu.Unlock()
			return nil
		}
		t.waiting = true
		moved := t.moved
		t.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// followers finds the lanes that follow an address. It is safe for concurrent use; the
// slices that it returns are never changed in place.
type followers struct {
	mu     sync.RWMutex
	byAddr map[im.Address][]*lane
}

func (f *followers) of(a im.Address) []*lane {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.byAddr[a]
}

func (f *followers) add(lanes []*lane) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range lanes {
		f.byAddr[l.addr] = append(f.byAddr[l.addr], l)
	}
}

func (f *followers) remove(lanes []*lane) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range lanes {
		have := f.byAddr[l.addr]
		if len(have) == 1 && have[0] == l {
			delete(f.byAddr, l.addr)
			continue
		}
		kept := make([]*lane, 0, len(have))
		for _, other := range have {
			if other != l {
				kept = append(kept, other)
			}
		}
		f.byAddr[l.addr] = kept
	}
}
