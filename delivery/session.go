package delivery

import (
	"context"
	"slices"
	"sync"

	"github.com/slimchat/slimchat/im"
)

// Session is a client's cursor into the log while the client is connected. All methods
// are safe for concurrent use. Its memory is bounded: it keeps positions, never messages.
type Session struct {
	engine    *Engine
	key       im.SessionKey
	principal im.Principal

	mu      sync.Mutex
	conn    Conn
	started bool
	closed  bool
	dirty   bool // its record has changed since it was last collected for flushing
	queued  bool // it is in the run queue of the pump, or a worker has it
	lazy    bool // it will be put there in a moment
	noRoom  bool // the connection had no room; Ready has not come yet
	pushed  bool // the tail owes the connection a Flush
	expiry  uint32
	subs    []*subscription
	lanes   []*lane
	tracks  []*track
	window  inFlight
	resume  resumed
}

type subscription struct {
	Subscription
}

// lane is one address that the session may receive. It belongs to a track while a
// subscription covers it, and is parked at a position otherwise.
type lane struct {
	session *Session
	addr    im.Address
	track   *track // nil while parked
	parked  uint64 // while parked: acknowledged up to here
	floor   uint64 // nothing at or before this position is owed
	handed  uint64 // nothing at or before this position is sent again on this connection
	qos     byte
	noLocal bool // every subscription that covers it says no-local
	resumes bool // what the record says of messages in flight holds for this lane
}

// track is a set of lanes that are read together, as one merged stream in log order. It
// is live when everything up to the tail has been handed over, so that the tail may push
// what comes next; otherwise it is behind and is read from pos.
type track struct {
	lanes   []*lane
	changes int // counts changes of lanes
	pos     uint64
	live    bool
}

// resumed is what the record of an earlier connection says about messages that were in
// flight then.
type resumed struct {
	handed uint64
	ids    map[uint64]uint16
	dup    bool // the same MQTT session goes on, so that repetitions are marked
}

// acked tells whether the message at seq, after the cursor, was acknowledged before.
func (r *resumed) acked(seq uint64) bool {
	if seq > r.handed {
		return false
	}
	_, open := r.ids[seq]
	return !open
}

// Principal returns whose session it is.
func (s *Session) Principal() im.Principal { return s.principal }

// Start begins to push. The edge calls it once it has told the client that it is
// connected.
func (s *Session) Start() {
	s.mu.Lock()
	s.started = true
	s.wakeLocked()
	s.mu.Unlock()
}

// Subscribe adds filters, or replaces those with the same text. Delivery of what they
// cover begins at once. When it returns, a crash does not undo what it granted.
func (s *Session) Subscribe(ctx context.Context, subs []Subscription) []Grant {
	s.mu.Lock()
	grants := make([]Grant, len(subs))
	before := slices.Clone(s.subs)
	for i, sub := range subs {
		grants[i] = s.subscribeLocked(sub)
	}
	changed := !slices.Equal(before, s.subs)
	s.coverLocked()
	s.markDirtyLocked()
	s.wakeLocked()
	s.mu.Unlock()
	if changed {
		if err := s.keepSubscriptions(ctx); err != nil {
			s.takeBack(before, grants, err)
		}
	}
	return grants
}

// keepSubscriptions writes the record if its subscriptions may outlive the connection.
func (s *Session) keepSubscriptions(ctx context.Context) error {
	s.mu.Lock()
	kept := s.expiry > 0
	s.mu.Unlock()
	if !kept {
		return nil
	}
	return s.engine.persist(ctx, s)
}

// takeBack restores the subscriptions before a change that could not be written, and
// refuses what had been granted.
func (s *Session) takeBack(before []*subscription, grants []Grant, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs = before
	for i := range grants {
		if grants[i].Err == nil {
			grants[i] = Grant{Err: &im.Error{Code: im.CodeUnavailable, Message: "the subscription cannot be stored now", Err: err}}
		}
	}
	s.coverLocked()
	s.markDirtyLocked()
}

func (s *Session) subscribeLocked(sub Subscription) Grant {
	if !s.mayMatchLocked(sub.Filter) {
		return Grant{Err: im.Errorf(im.CodeForbidden, "filter", "%q matches nothing that this client may receive", sub.Filter.String())}
	}
	sub.QoS = min(sub.QoS, 1)
	size := len(sub.Filter.String())
	for i, have := range s.subs {
		if have.Filter.String() == sub.Filter.String() {
			if have.QoS != sub.QoS || have.NoLocal != sub.NoLocal {
				s.subs[i] = &subscription{sub}
			}
			return Grant{QoS: sub.QoS}
		}
		size += len(have.Filter.String())
	}
	if len(s.subs) >= maxSubscriptions || size > maxSubscriptionBytes {
		return Grant{Err: im.Errorf(im.CodeRateLimited, "filter", "a client may hold %d subscriptions with filters of %d bytes in all", maxSubscriptions, maxSubscriptionBytes)}
	}
	s.subs = append(s.subs, &subscription{sub})
	return Grant{QoS: sub.QoS, New: true}
}

func (s *Session) mayMatchLocked(f im.Filter) bool {
	for _, l := range s.lanes {
		if f.MatchAddress(l.addr) {
			return true
		}
	}
	return f.CanMatchRooms() && s.principal.Address.Kind == im.KindUser
}

// Unsubscribe removes filters; it tells for each whether it was there. When it returns, a
// crash does not bring them back, unless the log cannot be written.
func (s *Session) Unsubscribe(ctx context.Context, filters []im.Filter) []bool {
	s.mu.Lock()
	found := make([]bool, len(filters))
	changed := false
	for i, f := range filters {
		found[i] = s.unsubscribeLocked(f)
		changed = changed || found[i]
	}
	s.coverLocked()
	s.markDirtyLocked()
	s.mu.Unlock()
	if changed {
		if err := s.keepSubscriptions(ctx); err != nil {
			s.engine.log.Warn("an ended subscription is still written down", "owner", s.key.Owner.String(), "client", s.key.Client, "error", err)
		}
	}
	return found
}

func (s *Session) unsubscribeLocked(f im.Filter) bool {
	for i, have := range s.subs {
		if have.Filter.String() == f.String() {
			s.subs = append(s.subs[:i:i], s.subs[i+1:]...)
			return true
		}
	}
	return false
}

// Ack takes the client's acknowledgement of a packet id; false for one not in flight.
func (s *Session) Ack(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.window.ack(id) {
		return false
	}
	s.markDirtyLocked()
	s.wakeLocked()
	return true
}

// Ready tells that the connection has room again after a Push was refused.
func (s *Session) Ready() {
	s.mu.Lock()
	s.noRoom = false
	s.wakeLocked()
	s.mu.Unlock()
}

// SendTransient pushes an event to this client alone, at QoS 0, if there is room and one of
// its subscriptions covers its owner's address or else its own, which is then the topic; it
// tells whether it was sent.
func (s *Session) SendTransient(body []byte) bool {
	e := &im.Entry{To: s.principal.ClientAddress(), Envelope: im.Envelope{Body: body}}
	s.mu.Lock()
	defer s.mu.Unlock()
	own := im.Address{}
	for _, l := range s.lanes {
		if l.track == nil {
			continue
		}
		if l.addr == s.principal.Address || l.addr == e.To && own.IsZero() {
			own = l.addr
		}
	}
	if own.IsZero() || !s.started || s.closed || s.noRoom {
		return false
	}
	e.To = own
	if !s.conn.Push(Push{Entry: e, Transient: true}) {
		s.noRoom = true
		return false
	}
	s.conn.Flush()
	return true
}

// Detach ends the connection's hold of the session and queues its record for writing.
// expiry, in seconds, says how long the subscriptions live on. It does nothing when
// another connection has taken the session over.
func (s *Session) Detach(_ context.Context, expiry uint32) { s.engine.detach(s, expiry) }

// wakeLocked hands the session to the pump when a track is behind and there is room. With
// little room it waits a moment for more acknowledgements, so that a page is worth its
// reading.
func (s *Session) wakeLocked() {
	if s.queued || !s.started || s.closed || s.noRoom {
		return
	}
	behind := false
	for _, t := range s.tracks {
		behind = behind || !t.live
	}
	room := s.window.room()
	switch {
	case !behind || room == 0:
	case room*2 >= s.window.size:
		s.queued, s.lazy = true, false
		s.engine.pump.enqueue(s)
	case !s.lazy:
		s.lazy = true
		s.engine.pump.enqueueLater(s)
	}
}

// ripe puts a session that waited for more room into the run queue as it is.
func (s *Session) ripe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lazy && !s.queued && !s.closed && !s.noRoom {
		s.queued = true
		s.engine.pump.enqueue(s)
	}
	s.lazy = false
}

func (s *Session) markDirtyLocked() {
	if !s.dirty && !s.closed {
		s.dirty = true
		s.engine.flusher.mark(s)
	}
}
