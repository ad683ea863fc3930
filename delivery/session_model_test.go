package delivery

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/slimchat/slimchat/im"
)

// device is a simple model of a client: what it was sent, what it acknowledged, and what
// it may be sent at all.
type device struct {
	t   *rapid.T
	key im.SessionKey

	mu        sync.Mutex
	session   *Session
	link      *link
	acked     map[uint64]bool // over all connections
	pushed    chan struct{}   // shared by all devices: something was sent to one of them
	connected bool
}

// link is one connection of a device.
type link struct {
	d      *device
	mu     sync.Mutex
	room   int // pushes it takes before it is full
	full   bool
	open   map[uint16]uint64
	last   map[im.Address]uint64 // per address: the last position sent
	why    CloseReason
	errors []string
	window int
}

func (l *link) Push(p Push) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.room == 0 {
		l.full = true
		return false
	}
	l.room--
	l.check(p)
	select {
	case l.d.pushed <- struct{}{}:
	default:
	}
	return true
}

func (l *link) check(p Push) {
	fail := func(format string, args ...any) { l.errors = append(l.errors, fmt.Sprintf(format, args...)) }
	e := p.Entry
	own := im.Client(l.d.key.Owner.ID, l.d.key.Client)
	if e.To != l.d.key.Owner && e.To != own {
		fail("%v got %d addressed to %s", l.d.key, e.Seq, e.To)
	}
	if e.IsCopy() && e.Client == l.d.key.Client {
		fail("%v got the copy of its own message %d", l.d.key, e.Seq)
	}
	if e.Seq <= l.last[e.To] {
		fail("%v got %d after %d at %s", l.d.key, e.Seq, l.last[e.To], e.To)
	}
	l.last[e.To] = e.Seq
	if p.QoS > 0 {
		if _, twice := l.open[p.PacketID]; twice || p.PacketID == 0 {
			fail("%v: packet id %d is in use", l.d.key, p.PacketID)
		}
		l.open[p.PacketID] = e.Seq
		if len(l.open) > l.window {
			fail("%v: %d in flight, window %d", l.d.key, len(l.open), l.window)
		}
	} else {
		l.d.mu.Lock()
		l.d.acked[e.Seq] = true
		l.d.mu.Unlock()
	}
}

func (l *link) Flush() {}

func (l *link) Close(why CloseReason) {
	l.mu.Lock()
	l.why = why
	l.mu.Unlock()
}

type world struct {
	t       *rapid.T
	log     *memLog
	engine  *Engine
	devices []*device
	n       int
	pushed  chan struct{}
}

func (w *world) boot() {
	w.engine = New(Options{Log: w.log, RingBytes: 4096, Window: 8, CatchUp: 2})
	if err := w.engine.Start(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) connect(d *device, clean bool, window int, filters ...string) {
	l := &link{d: d, room: 1 << 20, open: map[uint16]uint64{}, last: map[im.Address]uint64{}, window: min(window, 8)}
	s, _, err := w.engine.Attach(context.Background(), AttachOptions{
		Principal: im.Principal{Address: d.key.Owner, Client: d.key.Client}, Clean: clean, Expiry: NeverExpires, Window: window, Conn: l})
	if err != nil {
		w.t.Fatal(err)
	}
	if old := d.link; d.connected && old.why != CloseTakenOver {
		w.t.Fatalf("the earlier connection was not told: %d", old.why)
	}
	d.session, d.link, d.connected = s, l, true
	s.Start()
	w.subscribe(d, filters...)
}

func (w *world) subscribe(d *device, filters ...string) {
	for _, f := range filters {
		parsed, err := im.ParseFilter(f, "")
		if err != nil {
			w.t.Fatal(err)
		}
		if g := d.session.Subscribe(context.Background(), []Subscription{{Filter: parsed, QoS: 1}}); g[0].Err != nil {
			w.t.Fatal(g[0].Err)
		}
	}
}

// ackSome acknowledges what pick chooses of the messages in flight.
func (d *device) ackSome(pick func(ids []uint16) []uint16) {
	d.link.mu.Lock()
	ids := slices.Sorted(maps.Keys(d.link.open))
	chosen := pick(ids)
	seqs := make([]uint64, len(chosen))
	for i, id := range chosen {
		seqs[i] = d.link.open[id]
		delete(d.link.open, id)
	}
	d.link.mu.Unlock()
	for i, id := range chosen {
		if d.session.Ack(id) {
			d.mu.Lock()
			d.acked[seqs[i]] = true
			d.mu.Unlock()
		} else if d.connected && d.link.why == 0 {
			d.t.Fatalf("%v: packet id %d was not in flight", d.key, id)
		}
	}
}

func (w *world) checkLinks() {
	for _, d := range w.devices {
		if d.link == nil {
			continue
		}
		d.link.mu.Lock()
		for _, e := range d.link.errors {
			w.t.Error(e)
		}
		d.link.mu.Unlock()
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
}

func everything(ids []uint16) []uint16 { return ids }

// drain connects every device, acknowledges all that comes, and waits until each has
// acknowledged all that the model says it is owed.
func (w *world) drain() {
	deadline := time.After(10 * time.Second)
	for _, d := range w.devices {
		w.connect(d, false, 8, "$IM/#")
	}
	for {
		missing := ""
		for _, d := range w.devices {
			d.ackSome(everything)
			d.mu.Lock()
			for _, e := range w.log.entries {
				if w.owed(d, e) && !d.acked[e.Seq] {
					missing = fmt.Sprintf("%v never acknowledged %d to %s", d.key, e.Seq, e.To)
				}
			}
			d.mu.Unlock()
		}
		w.checkLinks()
		if missing == "" {
			return
		}
		select {
		case <-w.pushed:
		case <-deadline:
			w.t.Fatal(missing, w.dump())
		}
	}
}

// dump describes the sessions for a failure report.
func (w *world) dump() string {
	out := fmt.Sprintf("tail at %d", w.engine.tail.done.Load())
	for _, d := range w.devices {
		s := d.session
		s.mu.Lock()
		out += fmt.Sprintf("\n%v closed=%v started=%v queued=%v noRoom=%v room=%d slots=%+v resume=%+v", d.key, s.closed, s.started, s.queued, s.noRoom, s.window.room(), s.window.slots, s.resume)
		for _, l := range s.lanes {
			out += fmt.Sprintf("\n  lane %s parked=%d floor=%d covered=%v resumes=%v", l.addr, l.parked, l.floor, l.track != nil, l.resumes)
		}
		for _, t := range s.tracks {
			out += fmt.Sprintf("\n  track pos=%d live=%v lanes=%d", t.pos, t.live, len(t.lanes))
		}
		s.mu.Unlock()
		d.link.mu.Lock()
		out += fmt.Sprintf("\n  link open=%v last=%v", d.link.open, d.link.last)
		d.link.mu.Unlock()
	}
	return out
}

func (w *world) owed(d *device, e *im.Entry) bool {
	if e.IsCopy() && e.Client == d.key.Client {
		return false
	}
	return e.To == d.key.Owner || e.To == im.Client(d.key.Owner.ID, d.key.Client)
}

func (w *world) publish(t *rapid.T) {
	alice, bob := im.User("alice"), im.User("bob")
	targets := []im.Address{alice, bob, im.Client("alice", "c1"), im.Client("alice", "c2"), im.User("stranger")}
	for range rapid.IntRange(1, 12).Draw(t, "messages") {
		w.n++
		id := fmt.Sprint(w.n)
		to := rapid.SampledFrom(targets).Draw(t, "to")
		if to == bob && rapid.Bool().Draw(t, "copied") {
			w.log.append(bob, alice, "c1", id, im.FlagHasCopy)
			w.log.append(alice, alice, "c1", id, im.FlagCopy)
			continue
		}
		w.log.append(to, im.User("carol"), "x", id, 0)
	}
}

// TestSessionsAgainstModel drives a few clients through random acknowledgements,
// disconnects, takeovers, stalls, changes of subscription and crashes. Whatever happens:
// nobody gets what is not his, per address in log order, within the window; and in the
// end everybody has acknowledged everything that he is owed.
func TestSessionsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, log: newMemLog(), pushed: make(chan struct{}, 1)}
		w.boot()
		defer func() { w.stop() }()
		for _, k := range []im.SessionKey{{Owner: im.User("alice"), Client: "c1"}, {Owner: im.User("alice"), Client: "c2"}, {Owner: im.User("bob"), Client: "p"}} {
			d := &device{t: t, key: k, acked: map[uint64]bool{}, pushed: w.pushed}
			w.devices = append(w.devices, d)
			w.connect(d, false, 8)
		}
		// The clients are known from here on, so all of them are owed all that follows.
		if err := w.engine.flush(context.Background(), true); err != nil {
			t.Fatal(err)
		}
		pick := func(t *rapid.T) *device { return rapid.SampledFrom(w.devices).Draw(t, "device") }
		t.Repeat(map[string]func(*rapid.T){
			"publish": w.publish,
			"ack": func(t *rapid.T) {
				d := pick(t)
				d.ackSome(func(ids []uint16) (some []uint16) {
					for _, id := range ids {
						if rapid.IntRange(0, 3).Draw(t, "ack") > 0 {
							some = append(some, id)
						}
					}
					return some
				})
			},
			"reconnect": func(t *rapid.T) {
				d := pick(t)
				clean := rapid.Bool().Draw(t, "clean")
				if d.connected && rapid.Bool().Draw(t, "detach") {
					d.session.Detach(context.Background(), NeverExpires)
					d.connected = false
				}
				w.connect(d, clean, rapid.IntRange(1, 10).Draw(t, "window"))
			},
			"subscribe": func(t *rapid.T) {
				d := pick(t)
				w.subscribe(d, rapid.SampledFrom([]string{"$IM/#", "$IM/" + d.key.Owner.String(), "$IM/user/+/client/+"}).Draw(t, "filter"))
			},
			"unsubscribe": func(t *rapid.T) {
				f, _ := im.ParseFilter(rapid.SampledFrom([]string{"$IM/#", "$IM/user/+/client/+"}).Draw(t, "filter"), "")
				pick(t).session.Unsubscribe(context.Background(), []im.Filter{f})
			},
			"stall": func(t *rapid.T) {
				l := pick(t).link
				l.mu.Lock()
				l.room = rapid.IntRange(0, 3).Draw(t, "room")
				l.mu.Unlock()
			},
			"unstall": func(t *rapid.T) {
				d := pick(t)
				d.link.mu.Lock()
				d.link.room, d.link.full = 1<<20, false
				d.link.mu.Unlock()
				d.session.Ready()
			},
			"flush": func(t *rapid.T) {
				if err := w.engine.flush(context.Background(), rapid.Bool().Draw(t, "live")); err != nil {
					t.Fatal(err)
				}
			},
			"crash": func(t *rapid.T) {
				w.crash()
				for _, d := range w.devices {
					d.connected = false
					w.connect(d, rapid.Bool().Draw(t, "clean"), 8)
				}
			},
			"": func(t *rapid.T) { w.checkLinks() },
		})
		for _, d := range w.devices {
			d.link.mu.Lock()
			d.link.room = 1 << 20
			d.link.mu.Unlock()
		}
		w.drain()
	})
}

// crash drops the engine without letting it write anything.
func (w *world) crash() {
	w.engine.pump.close()
	w.engine.cancel()
	w.engine.owned.Wait()
	w.boot()
}

func (w *world) stop() {
	w.engine.pump.close()
	w.engine.cancel()
	w.engine.owned.Wait()
}
