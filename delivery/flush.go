package delivery

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/slimchat/slimchat/im"
)

const (
	flushTick  = 250 * time.Millisecond // records of sessions that ended
	flushEvery = 4                      // ticks: records of sessions that go on
)

// flusher collects the sessions whose record is to be written behind their back, each at
// most about once a second. A crash loses what was not written yet, which repeats
// messages and skips none. What a crash may not lose is written before it is promised,
// by persist.
type flusher struct {
	mu     sync.Mutex
	dirty  []*Session
	urgent *urgent    // the next write that somebody waits for; nil for none
	cycle  sync.Mutex // one write at a time, so that an older record never lands last
}

// urgent is a set of sessions whose records are written together while their callers wait.
type urgent struct {
	sessions []*Session
	done     chan struct{} // closed when it is over
	err      error
}

// mark remembers a session whose dirty flag the caller has just set.
func (f *flusher) mark(s *Session) {
	f.mu.Lock()
	f.dirty = append(f.dirty, s)
	f.mu.Unlock()
}

func (f *flusher) take() []*Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.dirty
	f.dirty = nil
	return taken
}

// pendingRecord is what an ended session leaves to be written (nil data: deleted). Until
// it is, it is the truth about the session, whatever the bucket says.
type pendingRecord struct{ data []byte }

func (e *Engine) flushLoop(ctx context.Context) {
	tick := time.NewTicker(flushTick)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := e.flush(ctx, n%flushEvery == 0); err != nil && ctx.Err() == nil {
				e.log.Warn("session records are not being written", "error", err)
			}
		}
	}
}

// flushChunk is how many records of sessions that go on are written at once, so that
// persist never waits long for its turn.
const flushChunk = 512

// flush writes the records of ended sessions and, with live, of those that go on. What
// could not be written is tried again the next time.
func (e *Engine) flush(ctx context.Context, live bool) error {
	if err := e.flushEnded(ctx); err != nil || !live {
		return err
	}
	var first error
	for going := range slices.Chunk(e.flusher.take(), flushChunk) {
		e.flusher.cycle.Lock()
		err := first
		if err == nil {
			err = e.store(ctx, going)
		}
		if err != nil {
			remark(going)
			first = err
		}
		e.flusher.cycle.Unlock()
	}
	return first
}

func (e *Engine) flushEnded(ctx context.Context) error {
	e.flusher.cycle.Lock()
	defer e.flusher.cycle.Unlock()
	e.mu.Lock()
	ended := maps.Clone(e.pending)
	e.mu.Unlock()
	if len(ended) == 0 {
		return nil
	}
	records := make(map[im.SessionKey][]byte, len(ended))
	for key, p := range ended {
		records[key] = p.data
	}
	if err := e.opts.Log.StoreSessions(ctx, records); err != nil {
		return fmt.Errorf("write %d session records: %w", len(records), err)
	}
	e.settle(ended)
	return nil
}

// settle forgets what waited to be written and now is, or is older than what now is.
func (e *Engine) settle(written map[im.SessionKey]*pendingRecord) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, p := range written {
		if e.pending[key] == p {
			delete(e.pending, key)
		}
	}
}

// persistTimeout bounds a write that somebody waits for.
const persistTimeout = 10 * time.Second

// persist returns once the record of a session, as it is now or newer, is written. The
// syncs of the log cover it: a message that is promised later is not more durable than
// the record. Callers at the same time share one write.
func (e *Engine) persist(ctx context.Context, s *Session) error {
	f := &e.flusher
	f.mu.Lock()
	u := f.urgent
	first := u == nil
	if first {
		u = &urgent{done: make(chan struct{})}
		f.urgent = u
	}
	u.sessions = append(u.sessions, s)
	f.mu.Unlock()
	if !first {
		select {
		case <-u.done:
			return u.err
		case <-ctx.Done():
			return fmt.Errorf("write a session record: %w", ctx.Err())
		}
	}
	f.cycle.Lock()
	f.mu.Lock()
	f.urgent = nil // from here on callers gather for the next write
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), persistTimeout) // others wait for it too
	defer cancel()
	u.err = e.store(ctx, u.sessions)
	if u.err != nil {
		remark(u.sessions)
	}
	f.cycle.Unlock()
	close(u.done)
	return u.err
}

// store writes the records of sessions as they are now; of those that have ended, the last
// record is pending, and newer. The caller has the cycle.
func (e *Engine) store(ctx context.Context, sessions []*Session) error {
	older := make(map[im.SessionKey]*pendingRecord)
	e.mu.Lock()
	for _, s := range sessions {
		if p := e.pending[s.key]; p != nil {
			older[s.key] = p
		}
	}
	e.mu.Unlock()
	records := make(map[im.SessionKey][]byte, len(sessions))
	for _, s := range sessions {
		s.mu.Lock()
		s.dirty = false
		closed, rec := s.closed, record{}
		if !closed {
			rec = s.recordLocked()
		}
		s.mu.Unlock()
		if closed {
			continue
		}
		data, err := rec.encode()
		if err != nil {
			return err
		}
		records[s.key] = data
	}
	if len(records) == 0 {
		return nil
	}
	if err := e.opts.Log.StoreSessions(ctx, records); err != nil {
		return fmt.Errorf("write %d session records: %w", len(records), err)
	}
	maps.DeleteFunc(older, func(key im.SessionKey, _ *pendingRecord) bool { return records[key] == nil })
	e.settle(older)
	return nil
}

// remark leaves sessions for the next flush, because this one has not written them.
func remark(sessions []*Session) {
	for _, s := range sessions {
		s.mu.Lock()
		s.dirty = false // it may be marked and yet not be in the list any more
		s.markDirtyLocked()
		s.mu.Unlock()
	}
}

// recordLocked is the session's durable state as it is now.
func (s *Session) recordLocked() record {
	r := record{Expiry: s.expiry, Epoch: s.engine.epoch}
	var main *track
	for _, t := range s.tracks {
		if main == nil || !main.live && (t.live || len(t.lanes) > len(main.lanes)) {
			main = t
		}
	}
	if main != nil {
		r.Cursor, r.Handed = s.ackedLocked(main), s.handedLocked(main)
	} else if len(s.lanes) > 0 {
		r.Cursor = s.lanes[0].parked
	}
	for _, l := range s.lanes {
		if pos := s.lanePositionLocked(l); pos != r.Cursor || l.track != main {
			if r.Lagging == nil {
				r.Lagging = make(map[string]uint64)
			}
			r.Lagging[l.addr.String()] = pos
		}
	}
	for i := range s.window.slots {
		if sl := &s.window.slots[i]; !sl.acked && main != nil && sl.lane.track == main {
			r.InFlight = append(r.InFlight, inFlightRecord{Seq: sl.seq, ID: sl.id})
		}
	}
	r.keepResumed(s, main)
	if s.expiry == 0 {
		return r // they end with the connection, or with this process
	}
	for _, sub := range s.subs {
		r.Subs = append(r.Subs, subRecord{Filter: sub.Filter.String(), QoS: sub.QoS, NoLocal: sub.NoLocal})
	}
	return r
}

// keepResumed carries over what an earlier connection left in flight and this one has
// not been sent again yet.
func (r *record) keepResumed(s *Session, main *track) {
	if main == nil || s.resume.handed <= r.Handed {
		return
	}
	for _, l := range main.lanes {
		if !l.resumes {
			return // the old record says nothing of this lane: repeat rather than skip
		}
	}
	for seq, id := range s.resume.ids {
		if seq > r.Handed {
			r.InFlight = append(r.InFlight, inFlightRecord{Seq: seq, ID: id})
		}
	}
	r.Handed = s.resume.handed
}
