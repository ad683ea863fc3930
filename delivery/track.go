package delivery

import (
	"time"

	"github.com/slimchat/slimchat/im"
)

// coverLocked works out anew which subscriptions cover each lane, parks those that none
// covers any more, and sets those newly covered on a track from where they stand.
func (s *Session) coverLocked() {
	var fresh *track
	for _, l := range s.lanes {
		covered, qos, noLocal := s.coverageLocked(l.addr)
		l.qos, l.noLocal = qos, noLocal
		switch {
		case covered && l.track == nil:
			if fresh == nil {
				fresh = &track{pos: l.parked}
				s.tracks = append(s.tracks, fresh)
			}
			fresh.pos = min(fresh.pos, l.parked)
			l.floor = max(l.floor, l.parked)
			l.track = fresh
			fresh.lanes = append(fresh.lanes, l)
			fresh.changes++
		case !covered && l.track != nil:
			s.parkLocked(l)
		}
	}
}

func (s *Session) coverageLocked(a im.Address) (covered bool, qos byte, noLocal bool) {
	topic := a.Topic()
	noLocal = true
	for _, sub := range s.subs {
		if sub.Filter.Match(topic) {
			covered = true
			qos = max(qos, sub.QoS)
			noLocal = noLocal && sub.NoLocal
		}
	}
	return covered, qos, noLocal && covered
}

func (s *Session) parkLocked(l *lane) {
	l.parked = s.lanePositionLocked(l)
	t := l.track
	l.track = nil
	t.changes++
	for i, other := range t.lanes {
		if other == l {
			t.lanes = append(t.lanes[:i], t.lanes[i+1:]...)
			break
		}
	}
	if len(t.lanes) == 0 {
		s.dropTrackLocked(t)
	}
}

func (s *Session) dropTrackLocked(t *track) {
	for i, other := range s.tracks {
		if other == t {
			s.tracks = append(s.tracks[:i], s.tracks[i+1:]...)
			return
		}
	}
}

// handedLocked is the position up to which a track has handed over everything.
func (s *Session) handedLocked(t *track) uint64 {
	if t.live {
		return max(t.pos, s.engine.tail.done.Load())
	}
	return t.pos
}

// ackedLocked is the position up to which everything on a track is acknowledged.
func (s *Session) ackedLocked(t *track) uint64 {
	pos := s.handedLocked(t)
	if low := s.window.lowest(func(sl *slot) bool { return sl.lane.track == t }); low > 0 {
		pos = min(pos, low-1)
	}
	return pos
}

// lanePositionLocked is the position up to which a lane is acknowledged.
func (s *Session) lanePositionLocked(l *lane) uint64 {
	if l.track == nil {
		return l.parked
	}
	return max(s.ackedLocked(l.track), l.floor)
}

// wants tells whether the session is to be sent an entry at all.
func (l *lane) wants(e *im.Entry, now int64) bool {
	if e.Seq <= l.floor || e.Seq <= l.handed || e.Expires != 0 && e.Expires <= now {
		return false
	}
	p := &l.session.principal
	if e.From == p.Address && e.Client == p.Client {
		if e.IsCopy() || e.To.Kind == im.KindRoom || l.noLocal {
			return false // it said this itself
		}
	}
	return !l.resumes || !l.session.resume.acked(e.Seq)
}

// offer is the tail's way to hand an entry to a live lane. It tells whether the tail has
// to call flushPushed afterwards.
func (l *lane) offer(e *im.Entry, now int64) (flush bool) {
	s := l.session
	s.mu.Lock()
	defer s.mu.Unlock()
	t := l.track
	if s.closed || !s.started || t == nil || !t.live || e.Seq <= l.handed {
		return false
	}
	if !s.sendLocked(l, e, now) {
		t.live = false
		t.pos = max(t.pos, e.Seq-1)
		s.wakeLocked()
		return false
	}
	t.pos = max(t.pos, e.Seq)
	if s.pushed {
		return false
	}
	s.pushed = true
	return true
}

// flushPushed flushes the connection after offers.
func (s *Session) flushPushed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushed = false
	if !s.closed {
		s.conn.Flush()
	}
}

// sendLocked sends an entry if the lane wants it; false when there is no room.
func (s *Session) sendLocked(l *lane, e *im.Entry, now int64) bool {
	if !l.wants(e, now) {
		return true
	}
	if s.noRoom {
		return false
	}
	p, resent := Push{Entry: e, QoS: l.qos}, false
	if l.qos > 0 {
		if s.window.room() == 0 {
			return false
		}
		p.PacketID, resent = s.window.add(e.Seq, l)
		p.Dup = resent && s.resume.dup
	}
	if !s.conn.Push(p) {
		if l.qos > 0 {
			s.window.undo(resent)
		}
		s.noRoom = true
		return false
	}
	l.handed = e.Seq
	s.markDirtyLocked()
	return true
}

// mergeLocked joins tracks that are live: from then on they are one stream again. The
// position of the whole is the lowest of its parts: the tail may be about to offer one
// lane what lies before the position of another.
func (s *Session) mergeLocked() {
	var main *track
	for i := 0; i < len(s.tracks); i++ {
		t := s.tracks[i]
		if !t.live {
			continue
		}
		if main == nil {
			main = t
			continue
		}
		main.pos = min(main.pos, t.pos)
		for _, l := range t.lanes {
			l.track = main
		}
		main.lanes = append(main.lanes, t.lanes...)
		main.changes++
		s.tracks = append(s.tracks[:i], s.tracks[i+1:]...)
		i--
	}
}

func unixMilli() int64 { return time.Now().UnixMilli() }
