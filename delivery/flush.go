package delivery

import (
	"context"
	"fmt"
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
// messages and skips none.
type flusher struct {
	mu    sync.Mutex
	dirty []*Session
	cycle sync.Mutex // one cycle at a time, so that an older record never lands last
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

// flush writes the records of ended sessions and, with live, of those that go on. What
// could not be written is tried again the next time.
func (e *Engine) flush(ctx context.Context, live bool) error {
	e.flusher.cycle.Lock()
	defer e.flusher.cycle.Unlock()
	records := make(map[im.SessionKey][]byte)
	var going []*Session
	if live {
		going = e.flusher.take()
	}
	e.mu.Lock()
	ended := make(map[im.SessionKey]*pendingRecord, len(e.pending))
	for key, p := range e.pending {
		ended[key] = p
		records[key] = p.data
	}
	e.mu.Unlock()
	for _, s := range going {
		s.mu.Lock()
		s.dirty = false
		if s.closed { // its last record is pending, and newer
			s.mu.Unlock()
			continue
		}
		rec := s.recordLocked()
		s.mu.Unlock()
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
		for _, s := range going {
			s.mu.Lock()
			s.markDirtyLocked()
			s.mu.Unlock()
		}
		return fmt.Errorf("write %d session records: %w", len(records), err)
	}
	e.mu.Lock()
	for key, p := range ended {
		if e.pending[key] == p {
			delete(e.pending, key)
		}
	}
	e.mu.Unlock()
	return nil
}

// recordLocked is the session's durable state as it is now.
func (s *Session) recordLocked() record {
	r := record{Expiry: s.expiry}
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
