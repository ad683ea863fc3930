package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/slimchat/slimchat/im"
)

const (
	pageMessages = 128
	pageBytes    = 256 << 10
	// ripening is how long a session with little room waits for more acknowledgements.
	ripening = 5 * time.Millisecond
)

// pump catches sessions up: a few workers take sessions that are behind in turn and give
// each one page, so that a storm of them neither starves the publishers nor one another.
type pump struct {
	engine *Engine
	mu     sync.Mutex
	ready  sync.Cond
	queue  []*Session
	later  []*Session
	timer  *time.Timer // runs while later is not empty
	closed bool
}

func newPump(e *Engine) *pump {
	p := &pump{engine: e}
	p.ready.L = &p.mu
	return p
}

// enqueue adds a session whose queued flag the caller has just set.
func (p *pump) enqueue(s *Session) {
	p.mu.Lock()
	p.queue = append(p.queue, s)
	p.mu.Unlock()
	p.ready.Signal()
}

// enqueueLater adds a session, whose lazy flag the caller has just set, after a moment.
func (p *pump) enqueueLater(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.later = append(p.later, s)
	if len(p.later) == 1 {
		p.timer = time.AfterFunc(ripening, p.ripen)
	}
}

func (p *pump) ripen() {
	p.mu.Lock()
	ripe := p.later
	p.later = nil
	p.mu.Unlock()
	for _, s := range ripe {
		s.ripe()
	}
}

func (p *pump) next() *Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) == 0 && !p.closed {
		p.ready.Wait()
	}
	if p.closed {
		return nil
	}
	s := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	return s
}

func (p *pump) close() {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	p.ready.Broadcast()
}

// work gives pages until close.
func (p *pump) work(ctx context.Context) {
	for s := p.next(); s != nil; s = p.next() {
		if err := s.page(ctx); err != nil {
			p.engine.log.Warn("catching up paused", "error", err)
			select { // the log is in trouble: no use in asking again at once
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
		s.mu.Lock()
		s.queued = false
		s.wakeLocked()
		s.mu.Unlock()
	}
}

// page reads and sends one page of the session's first track that is behind.
func (s *Session) page(ctx context.Context) error {
	s.mu.Lock()
	t, q := s.behindLocked()
	if t == nil || s.window.room() == 0 {
		s.mu.Unlock()
		return nil
	}
	changes := t.changes
	s.mu.Unlock()

	entries, next, err := s.engine.read(ctx, q)
	if err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || t.live || t.pos != q.after || t.changes != changes {
		return nil // it changed meanwhile, and is read again as it is now
	}
	s.takePageLocked(t, entries, next)
	s.conn.Flush()
	return nil
}

// query is one page's question to the log.
type query struct {
	addrs       []im.Address
	after, upTo uint64
	limit       int
}

// behindLocked returns the first track that is behind and what to read for it. A lane
// joins the reading at its floor: what lies before is not read to be thrown away.
func (s *Session) behindLocked() (*track, query) {
	if s.closed || !s.started {
		return nil, query{}
	}
	for _, t := range s.tracks {
		if t.live {
			continue
		}
		q := query{after: t.pos, upTo: s.engine.tail.start.Load(), limit: min(s.window.room(), pageMessages)}
		for _, l := range t.lanes {
			if l.floor <= t.pos {
				q.addrs = append(q.addrs, l.addr)
			} else {
				q.upTo = min(q.upTo, l.floor)
			}
		}
		return t, q
	}
	return nil, query{}
}

// takePageLocked sends what was read, as far as there is room, and turns the track live
// when nothing is left behind the tail.
func (s *Session) takePageLocked(t *track, entries []*im.Entry, next uint64) {
	now := unixMilli()
	for _, e := range entries {
		l := t.lane(e.To)
		if l != nil && !s.sendLocked(l, e, now) {
			return
		}
		t.pos = e.Seq
	}
	t.pos = max(t.pos, next)
	if t.pos >= s.engine.tail.start.Load() {
		t.live = true
		s.mergeLocked()
		if len(s.tracks) == 1 {
			s.resume, s.window.kept = resumed{}, nil
		}
	}
}

func (t *track) lane(a im.Address) *lane {
	for _, l := range t.lanes {
		if l.addr == a {
			return l
		}
	}
	return nil
}

// read returns a page from the ring if that reaches back far enough, else from the log.
func (e *Engine) read(ctx context.Context, q query) ([]*im.Entry, uint64, error) {
	if q.upTo <= q.after || len(q.addrs) == 0 {
		return nil, q.upTo, nil
	}
	if entries, next, ok := e.tail.ring.read(q.addrs, q.after, q.upTo, q.limit); ok {
		return entries, next, nil
	}
	return e.opts.Log.Read(ctx, q.addrs, q.after, q.upTo, q.limit, pageBytes)
}
