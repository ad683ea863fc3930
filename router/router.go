package router

import (
	"context"
	"crypto/rand"
	"log/slog"
	"time"

	"github.com/slimchat/slimchat/im"
)

// lookBack is how many messages of a conversation are searched for one that its sender
// says it may be repeating.
const lookBack = 64

// Options configure a Router. Zero values take the defaults named here.
type Options struct {
	Domain    string // this domain's name; required
	Log       Log
	Directory Directory
	Window    Window
	Pusher    Pusher
	Logger    *slog.Logger

	PayloadLimit int              // bytes; 64 KiB
	PublishRate  int              // messages a second and client; 0 for no limit
	PublishBurst int              // messages
	Now          func() time.Time // the broker's clock
}

// Router is the one entrance to the log. It is safe for concurrent use.
type Router struct {
	o       Options
	log     *slog.Logger
	limits  *limiter
	known   *known
	pending pending
}

var _ Publisher = (*Router)(nil)

// New makes a router.
func New(o Options) *Router {
	if o.PayloadLimit <= 0 {
		o.PayloadLimit = im.DefaultPayloadLimit
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Router{
		o: o, log: o.Logger, limits: newLimiter(o.PublishRate, o.PublishBurst),
		known: newKnown(o.Directory), pending: pending{waits: make(map[messageKey][]waiter)},
	}
}

// Evict makes the router ask the Directory again about these addresses.
func (r *Router) Evict(addrs ...im.Address) { r.known.evict(addrs...) }

// EvictAll makes the router ask the Directory again about everything.
func (r *Router) EvictAll() { r.known.evictAll() }

// Publish implements Publisher.
func (r *Router) Publish(ctx context.Context, sender im.Principal, p Publish, done Done) {
	if !r.limits.take(sender.Key()) {
		done(Receipt{ID: r.idOf(p.Payload)}, im.Errorf(im.CodeRateLimited, "", "more than %d messages a second", r.o.PublishRate))
		return
	}
	draft, to, err := r.check(ctx, sender, &p)
	if err != nil {
		done(Receipt{ID: draft.ID}, err)
		return
	}
	if p.QoS == 0 && draft.Type == im.TypeEvent {
		r.push(sender, to, &draft, &p, done)
		return
	}
	key := messageKey{sender.Address, draft.ID}
	if !r.pending.begin(key, waiter{sender, done}) {
		return
	}
	settle := func(rc Receipt, err error) { r.settle(key, rc, err, done) }
	had, err := r.duplicate(ctx, sender, draft.ID, to, p.Again)
	if err != nil {
		settle(Receipt{ID: draft.ID}, err)
		return
	}
	if had != nil {
		settle(Receipt{ID: had.ID, TS: had.TS, Seq: had.Seq, Duplicate: true}, nil)
		return
	}
	r.append(ctx, sender, to, &draft, &p, settle)
}

// idOf finds the id of a payload that is refused unread, so that its sender can tell which
// one it was; empty when that would cost too much or it has none.
func (r *Router) idOf(payload []byte) string {
	if len(payload) > r.o.PayloadLimit {
		return ""
	}
	draft, err := im.ParseMessage(payload, true)
	if err != nil {
		return ""
	}
	return draft.ID
}

// settle reports an outcome to the publish that asked, and to those that repeated it
// meanwhile.
func (r *Router) settle(key messageKey, rc Receipt, err error, done Done) {
	if err == nil && !rc.Duplicate {
		// The tail will note it too, but perhaps after the next repetition has come.
		r.o.Window.Note(key.sender, key.id, rc.Seq)
	}
	waiting := r.pending.end(key)
	done(rc, err)
	rc.Duplicate = true
	for _, w := range waiting {
		w.done(rc, err)
	}
}

// check parses the payload and decides whether the sender may send it to the address.
func (r *Router) check(ctx context.Context, sender im.Principal, p *Publish) (im.Draft, im.Address, error) {
	if n := len(p.Payload); n > r.o.PayloadLimit {
		return im.Draft{}, p.To, im.Errorf(im.CodeTooLarge, "", "the payload has %d bytes, the limit is %d", n, r.o.PayloadLimit)
	} else if n += p.Props.Size(); n > r.o.PayloadLimit {
		return im.Draft{ID: r.idOf(p.Payload)}, p.To, im.Errorf(im.CodeTooLarge, "", "payload and properties have %d bytes, the limit is %d", n, r.o.PayloadLimit)
	}
	draft, err := im.ParseMessage(p.Payload, p.IDOptional)
	if err != nil {
		return draft, p.To, err
	}
	if draft.ID == "" {
		draft.ID = rand.Text()
	}
	if draft.From != "" {
		from, err := im.ParseAddress(draft.From)
		if err != nil || from.Local(r.o.Domain) != sender.Address {
			return draft, p.To, im.Errorf(im.CodeForgedFrom, "from", "is not the sender's own address %s", sender.Address)
		}
	}
	to := p.To.Local(r.o.Domain)
	if draft.To != "" {
		said, err := im.ParseAddress(draft.To)
		if err != nil {
			return draft, to, err
		}
		if said.Local(r.o.Domain) != to {
			return draft, to, im.Errorf(im.CodeWrongTo, "to", "differs from the address published to, %s", to)
		}
	}
	if err := checkType(&draft, to); err != nil {
		return draft, to, err
	}
	return draft, to, r.mayWrite(ctx, to)
}

// checkType tells whether a message of this type may go to this kind of address.
func checkType(d *im.Draft, to im.Address) error {
	switch {
	case d.IsPresence():
		return im.Errorf(im.CodeUnsupported, "type", "presence is not available in this version")
	case d.Type == im.TypeChat && to.Kind == im.KindRoom:
		return im.Errorf(im.CodeInvalid, "type", "chat does not go to a room: use grpchat")
	case d.Type == im.TypeGroupChat && to.Kind != im.KindRoom:
		return im.Errorf(im.CodeInvalid, "type", "grpchat goes to rooms only")
	}
	return nil
}

func (r *Router) mayWrite(ctx context.Context, to im.Address) error {
	switch {
	case to.Domain != "":
		return im.Errorf(im.CodeUnknownDomain, "to", "%s is no peer of this domain", to.Domain)
	case to.Kind == im.KindRoom:
		return im.Errorf(im.CodeNotMember, "to", "you are not a member of %s", to)
	}
	exists, err := r.known.exists(ctx, to)
	if err != nil {
		return &im.Error{Code: im.CodeUnavailable, Field: "to", Message: "the addressee cannot be looked up now", Err: err}
	}
	if !exists {
		return im.Errorf(im.CodeNotFound, "to", "there is no %s", to)
	}
	return nil
}

// duplicate returns the entry that the log has for (sender, id) already, if any.
func (r *Router) duplicate(ctx context.Context, sender im.Principal, id string, to im.Address, deep bool) (*im.Entry, error) {
	if seq, hit := r.o.Window.Lookup(sender.Address, id); hit {
		e, err := r.o.Log.Get(ctx, seq)
		if err != nil {
			return nil, unavailable("the log cannot be read now", err)
		}
		if e != nil && e.From == sender.Address && e.ID == id {
			return e, nil
		}
	}
	if !deep {
		return nil, nil
	}
	// Whatever is newer would have been a hit.
	e, err := r.o.Log.FindUpTo(ctx, sender.Address, id, to, r.o.Window.Floor(), lookBack)
	if err != nil {
		return nil, unavailable("the log cannot be read now", err)
	}
	return e, nil
}

func (r *Router) stamp(sender im.Principal, to im.Address) im.Stamp {
	return im.Stamp{From: sender.Address.String(), Client: sender.Client, To: to.String(), TS: r.o.Now().UnixMilli()}
}

func (r *Router) push(sender im.Principal, to im.Address, d *im.Draft, p *Publish, done Done) {
	s := r.stamp(sender, to)
	env := envelope(sender, d, p, s)
	env.Body = d.AppendStamped(nil, s)
	r.o.Pusher.PushTransient(to, env)
	done(Receipt{ID: d.ID, TS: s.TS}, nil)
}

func (r *Router) append(ctx context.Context, sender im.Principal, to im.Address, d *im.Draft, p *Publish, settle Done) {
	copied, err := r.wantsCopy(ctx, sender, to)
	if err != nil {
		settle(Receipt{ID: d.ID}, unavailable("the sender's clients cannot be looked up now", err))
		return
	}
	s := r.stamp(sender, to)
	env := envelope(sender, d, p, s)
	if copied {
		env.Flags = im.FlagHasCopy
	}
	// The envelope ends with the body, so the body is stamped into its place.
	head := env.Append(make([]byte, 0, len(p.Payload)+256))
	rec := im.Record{Subject: im.Subject(to, sender.Address), Data: d.AppendStamped(head, s)}
	if copied {
		rec.CopySubject = im.Subject(sender.Address, sender.Address)
		rec.CopyData = im.CopyOf(rec.Data)
	}
	rc := Receipt{ID: d.ID, TS: s.TS}
	stored := func(seq uint64, err error) {
		if err != nil {
			settle(rc, unavailable("the message could not be stored", err))
			return
		}
		rc.Seq = seq
		settle(rc, nil)
	}
	if err := r.o.Log.Append(ctx, rec, stored); err != nil {
		stored(0, err)
	}
}

// envelope is what goes with a message, but for its body.
func envelope(sender im.Principal, d *im.Draft, p *Publish, s im.Stamp) im.Envelope {
	env := im.Envelope{From: sender.Address, Client: sender.Client, ID: d.ID, TS: s.TS, Props: p.Props}
	if p.Expiry > 0 {
		env.Expires = s.TS + p.Expiry.Milliseconds()
	}
	return env
}

// wantsCopy tells whether the sender has other clients that must see what it sends to a
// user or node.
func (r *Router) wantsCopy(ctx context.Context, sender im.Principal, to im.Address) (bool, error) {
	if sender.Address.Kind != im.KindUser || to == sender.Address || to.Kind != im.KindUser && to.Kind != im.KindNode {
		return false, nil
	}
	n, err := r.known.clients(ctx, sender.Address.ID)
	return n > 1, err
}

// unavailable keeps the code of an error that has one.
func unavailable(message string, err error) error {
	if code := im.CodeOf(err); code != im.CodeInternal {
		return err
	}
	return &im.Error{Code: im.CodeUnavailable, Message: message, Err: err}
}
