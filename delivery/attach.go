package delivery

import (
	"context"
	"hash/maphash"
	"time"

	"github.com/slimchat/slimchat/im"
)

// Attach implements Edge.
func (e *Engine) Attach(ctx context.Context, o AttachOptions) (s *Session, present bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.opts.AttachWaiter)
	defer cancel()
	key := o.Principal.Key()
	unlock, err := e.lockClient(ctx, key)
	if err != nil {
		return nil, false, ErrBusy
	}
	defer unlock()
	select { // after the client's own turn, which may be long in coming
	case e.opening <- struct{}{}:
		defer func() { <-e.opening }()
	case <-ctx.Done():
		return nil, false, ErrBusy
	}

	rec, known, err := e.currentRecord(ctx, key, CloseTakenOver)
	if err != nil {
		return nil, false, err
	}
	s = e.newSession(o)
	dropped := false
	if known {
		present = s.restore(&rec, o.Clean || rec.expired(time.Now()), e.opts.Domain)
		dropped = o.Clean && len(rec.Subs) > 0
	} else {
		start, err := e.firstPosition(ctx, key)
		if err != nil {
			return nil, false, err
		}
		s.begin(start)
	}
	e.mu.Lock()
	if e.stopping {
		e.mu.Unlock()
		return nil, false, ErrStopping
	}
	e.sessions[key.Owner] = append(e.sessions[key.Owner], s)
	e.count++
	e.mu.Unlock()
	e.tail.follow.add(s.lanes)
	s.mu.Lock()
	s.markDirtyLocked()
	s.mu.Unlock()
	if known && !dropped {
		return s, present, nil
	}
	// A client that is seen for the first time is owed what comes from now on, and a clean
	// start stays clean, even if this process dies before the next flush.
	switch err := e.persist(ctx, s); {
	case err == nil:
	case known: // it can be written later: the client knows that it has to subscribe
		e.log.Warn("ended subscriptions are still written down", "owner", key.Owner.String(), "client", key.Client, "error", err)
	default:
		s.Detach(ctx, o.Expiry)
		return nil, false, err
	}
	return s, present, nil
}

// lockClient takes the client's turn at its session; the caller gives it back by unlock.
func (e *Engine) lockClient(ctx context.Context, key im.SessionKey) (unlock func(), err error) {
	// What is kept of clients that are gone is taken with a client's own turn held, so it
	// needs turns of its own.
	half, n := uint64(attachStripes/2), maphash.Comparable(e.seed, key)
	n %= half
	if key.Client == pastClient {
		n += half
	}
	stripe := e.stripes[n]
	select {
	case stripe <- struct{}{}:
		return func() { <-stripe }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// currentRecord ends the session that another connection of the client has, if any, and
// returns the client's record: from that session, from what waits to be written, or from
// the bucket. The caller has the client's turn.
func (e *Engine) currentRecord(ctx context.Context, key im.SessionKey, why CloseReason) (rec record, known bool, err error) {
	e.mu.Lock()
	old := e.findLocked(key)
	e.mu.Unlock()
	if old != nil && e.supersede(old) {
		old.mu.Lock()
		old.conn.Close(why)
		old.mu.Unlock()
	}
	e.mu.Lock()
	waiting := e.pending[key]
	e.mu.Unlock()
	var data []byte
	if waiting != nil {
		data = waiting.data
	} else if data, err = e.opts.Log.LoadSession(ctx, key); err != nil {
		return record{}, false, err
	}
	if data == nil {
		return record{}, false, nil
	}
	rec, err = e.decodeRecord(data)
	return rec, err == nil, err
}

// supersede ends a session in favour of another connection; its record becomes pending.
func (e *Engine) supersede(s *Session) bool { return e.finish(s, nil) }

// detach ends a session whose connection is gone.
func (e *Engine) detach(s *Session, expiry uint32) { e.finish(s, &expiry) }

// finish closes a session once and leaves its record to be written.
func (e *Engine) finish(s *Session, expiry *uint32) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if expiry != nil {
		s.expiry = *expiry
	}
	rec := s.recordLocked()
	rec.Gone = time.Now().Unix()
	s.closed = true
	s.forgetLocked()
	e.removeLocked(s)
	data, err := rec.encode()
	if err != nil { // cannot be: the record is made of numbers and strings
		e.log.Error("session record lost", "error", err)
		return true
	}
	e.pending[s.key] = &pendingRecord{data: data}
	return true
}

func (s *Session) forgetLocked() {
	s.engine.tail.follow.remove(s.lanes)
	s.window = inFlight{}
	s.tracks = nil
}

func (e *Engine) newSession(o AttachOptions) *Session {
	s := &Session{engine: e, key: o.Principal.Key(), principal: o.Principal, conn: o.Conn, expiry: o.Expiry}
	s.window.size = e.opts.Window
	if o.Window > 0 {
		s.window.size = min(o.Window, e.opts.Window)
	}
	s.lanes = []*lane{{session: s, addr: o.Principal.Address}}
	if own := o.Principal.ClientAddress(); own != o.Principal.Address {
		s.lanes = append(s.lanes, &lane{session: s, addr: own})
	}
	return s
}

// restore takes up a record; it tells whether subscriptions came with it.
func (s *Session) restore(rec *record, clean bool, domain string) (present bool) {
	for _, l := range s.lanes {
		l.parked = rec.position(l.addr)
		l.resumes = rec.resumes(l.addr)
	}
	s.resume = resumed{handed: rec.Handed, ids: make(map[uint64]uint16, len(rec.InFlight)), dup: !clean}
	for _, f := range rec.InFlight {
		s.resume.ids[f.Seq] = f.ID
	}
	if clean {
		return false
	}
	s.window.kept = make(map[uint64]uint16, len(s.resume.ids))
	for seq, id := range s.resume.ids {
		s.window.kept[seq] = id
	}
	for _, sub := range rec.Subs {
		if f, err := im.ParseFilter(sub.Filter, domain); err == nil {
			s.subs = append(s.subs, &subscription{Subscription{Filter: f, QoS: sub.QoS, NoLocal: sub.NoLocal}})
		}
	}
	s.coverLocked() // nobody else has the session yet
	return true
}

// begin starts a client that was never seen: at start for what its owner gets, at the
// beginning for what only it can have got.
func (s *Session) begin(start uint64) {
	for _, l := range s.lanes {
		if l.addr == s.principal.Address {
			l.parked = start
		}
	}
}

// firstPosition is where a new client of an owner starts: after what any other client of
// the owner has acknowledged.
func (e *Engine) firstPosition(ctx context.Context, key im.SessionKey) (uint64, error) {
	stored, err := e.opts.Log.ListSessions(ctx, key.Owner)
	if err != nil {
		return 0, err
	}
	e.mu.Lock()
	live := append([]*Session(nil), e.sessions[key.Owner]...)
	for k, p := range e.pending {
		if k.Owner == key.Owner && p.data != nil {
			stored[k.Client] = p.data
		}
	}
	e.mu.Unlock()
	var start uint64
	for _, data := range stored {
		rec, err := e.decodeRecord(data)
		if err != nil {
			return 0, err
		}
		start = max(start, rec.position(key.Owner))
	}
	for _, s := range live {
		s.mu.Lock()
		for _, l := range s.lanes {
			if l.addr == key.Owner && !s.closed {
				start = max(start, s.lanePositionLocked(l))
			}
		}
		s.mu.Unlock()
	}
	return start, nil
}
