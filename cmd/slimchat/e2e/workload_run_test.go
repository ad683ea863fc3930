package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// workload is publishers at full speed, readers of many habits and strangers, on one domain whose server may die at any
// moment, and a ledger of everything that was promised and received. Its problems are what no server may do: a message that
// was promised and is lost, out of order, changed, forged, or with somebody whom it was not for.
//
// Make one with newWorkload, say with serve and gone where the server is, end it with finish.
type workload struct {
	t      testing.TB
	seed   uint64
	tag    string // of the ids
	window int    // publishes in flight of one publisher, if the server allows it
	burst  int    // publishes in one write
	size   func(conv, n int) int

	target     target
	convs      []*conversation
	publishers []*publisher
	readers    []*reader
	strangers  []*reader

	stopping     atomic.Bool // publishers send nothing new
	calm         atomic.Bool // readers stay connected and acknowledge at once
	acknowledged atomic.Int64
	refusals     atomic.Int64

	cancel     context.CancelFunc
	publishing sync.WaitGroup
	reading    sync.WaitGroup

	mu         sync.Mutex
	problems   []string
	more       int // problems that are not kept
	complaints map[string]complaint
}

// complaint is what the server said of a publish that it refused.
type complaint struct {
	ID      string        `json:"id"`
	Code    string        `json:"code"` // of the event (3.1.1)
	Reason  packet.Reason `json:"-"`    // of the PUBACK (5.0)
	Message string        `json:"message"`
}

// workloadOptions say how large a workload is.
type workloadOptions struct {
	seed       uint64
	publishers int // users that send; the first has another client that sees it all
	receivers  int // users that receive, each with two or three clients
	window     int // publishes in flight of one publisher; 0: 256, or as many as the server allows
	size       func(conv, n int) int
}

// newWorkload makes the accounts on a running server and starts the readers, then the publishers.
func newWorkload(s *server, o workloadOptions) *workload {
	s.t.Helper()
	w := &workload{
		t: s.t, seed: o.seed, tag: fmt.Sprintf("w%x", o.seed&0xFFFF), window: o.window, burst: 16, size: o.size, complaints: map[string]complaint{},
	}
	if w.window == 0 {
		w.window = 256
	}
	if w.size == nil {
		w.size = func(conv, n int) int { return 40 + (conv*31+n*7)%200 }
	}
	w.plan(s, o)
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	s.t.Cleanup(w.halt)
	w.serve(s)
	for _, r := range append(w.readers, w.strangers...) {
		w.read(ctx, r)
	}
	for _, r := range append(w.readers, w.strangers...) {
		select {
		case <-r.ready:
		case <-time.After(patience):
			w.t.Fatalf("%s/%s does not get connected: %v", r.box.owner.User, r.box.owner.Client, w.problems)
		}
	}
	for _, p := range w.publishers {
		w.publishing.Go(func() { p.run(ctx) })
	}
	return w
}

func (w *workload) read(ctx context.Context, r *reader) { w.reading.Go(func() { r.run(ctx) }) }

// plan makes the accounts, the conversations and who receives them.
func (w *workload) plan(s *server, o workloadOptions) {
	rng := rand.New(rand.NewPCG(w.seed, 0))
	seed := uint64(0)
	reader := func(owner login, h habits) {
		seed++
		w.readers = append(w.readers, newReader(w, owner, h, seed))
	}
	name := func(kind string, i int) string { return fmt.Sprintf("%s-%s%d", w.tag, kind, i) }
	to := make([]im.Address, 0, 2*o.receivers)
	for i := range o.receivers {
		user := name("to", i)
		s.register(user)
		to = append(to, im.User(user), im.Client(user, "phone"))
		reader(s.login(user, "phone"), habits{version: packet.V5})
		reader(s.login(user, "laptop"), []habits{
			{version: packet.V5, life: 150 * time.Millisecond},
			{version: packet.V311, ackLate: 30 * time.Millisecond},
			{version: packet.V5, restart: true, life: 300 * time.Millisecond, ackLate: 20 * time.Millisecond, window: 20},
			{version: packet.V311, life: 200 * time.Millisecond},
		}[i%4])
	}
	for i := range o.publishers {
		user := name("from", i)
		s.register(user)
		seed++
		p := newPublisher(w, s.login(user, "app"), []packet.Version{packet.V5, packet.V311}[i%2], seed)
		for k, a := range to {
			if a.Kind == im.KindClient && (i+k/2)%o.publishers != 0 {
				continue // each receiver's client has one publisher that writes to it alone
			}
			c := &conversation{index: len(w.convs), sender: p.owner, to: a}
			w.convs = append(w.convs, c)
			p.convs = append(p.convs, c)
		}
		w.publishers = append(w.publishers, p)
		if i == 0 { // before anything is sent, so that everything is copied to it
			reader(s.login(user, "desk"), habits{version: packet.V5, life: 400 * time.Millisecond})
		}
	}
	for i := range 2 {
		h := []habits{{version: packet.V5}, {version: packet.V311, life: time.Second}}[i]
		seed++
		w.strangers = append(w.strangers, newReader(w, s.account(name("stranger", i), "phone"), h, seed))
	}
	rng.Shuffle(len(w.readers), func(i, k int) { w.readers[i], w.readers[k] = w.readers[k], w.readers[i] })
}

// text is the content of message n of a conversation.
func (w *workload) text(conv, n int) string { return filler[:w.size(conv, n)] }

// serve says that the server takes connections; clients come at once.
func (w *workload) serve(s *server) { w.target.set(s.addr.MQTT) }

// gone says that the server is about to go: call it before it does.
func (w *workload) gone() { w.target.set("") }

// finish stops the publishers once everything they sent is answered, and waits until everything that was promised has been
// received. It returns what is missing, as one line for each client.
func (w *workload) finish() (missing []string) {
	w.t.Helper()
	w.stopPublishing()
	w.calm.Store(true)
	w.awaitReaders()
	for _, r := range w.readers {
		if n, first := r.box.lacks(); n > 0 {
			missing = append(missing, fmt.Sprintf("%s/%s lacks %d messages, %s first", r.box.owner.User, r.box.owner.Client, n, strings.Join(first, " ")))
		}
	}
	w.halt()
	return missing
}

// stopPublishing returns once everything that was sent is answered.
func (w *workload) stopPublishing() {
	w.t.Helper()
	w.stopping.Store(true)
	for _, p := range w.publishers {
		p.wake()
	}
	done := make(chan struct{})
	go func() { w.publishing.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(startPatience):
		w.t.Fatalf("publishers do not get answers: %v", w.sample())
	}
}

// awaitReaders waits until nothing is lacking, as long as there is progress.
func (w *workload) awaitReaders() {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	least, since := -1, time.Now()
	for range tick.C {
		lacking := 0
		for _, r := range w.readers {
			n, _ := r.box.lacks()
			lacking += n
		}
		if lacking == 0 {
			return
		}
		if least < 0 || lacking < least {
			least, since = lacking, time.Now()
		} else if time.Since(since) > patience {
			return
		}
	}
}

// halt ends all connections.
func (w *workload) halt() {
	w.cancel()
	w.publishing.Wait()
	w.reading.Wait()
}

// problem keeps what must never be.
func (w *workload) problem(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.problems) < 50 {
		w.problems = append(w.problems, text)
	} else {
		w.more++
	}
}

// sample are the problems so far.
func (w *workload) sample() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := append([]string(nil), w.problems...)
	if w.more > 0 {
		list = append(list, fmt.Sprintf("and %d more", w.more))
	}
	return list
}

// refusedBy counts a refusal and keeps one of each kind.
func (w *workload) refusedBy(c complaint) {
	w.refusals.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	key := fmt.Sprintf("%s %#x", c.Code, uint8(c.Reason))
	if _, known := w.complaints[key]; !known {
		w.complaints[key] = c
	}
}

// connectionEnded notes how a connection broke, which is a problem unless the server is gone, and waits a moment.
func (w *workload) connectionEnded(ctx context.Context, who login, generation int, err error) {
	if ctx.Err() != nil {
		return
	}
	if w.target.is(generation) {
		w.problem(fmt.Sprintf("%s/%s: the connection broke: %v", who.User, who.Client, err))
	}
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
}

// requireNoProblems fails the test when the server did what none may do.
func (w *workload) requireNoProblems() {
	w.t.Helper()
	require.Empty(w.t, w.sample())
}

// target is where the server is.
type target struct {
	mu         sync.Mutex
	address    string // empty while there is none
	generation int    // of address
	changed    chan struct{}
}

func (t *target) set(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.address = address
	t.generation++
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// wait returns the address once there is one, and its generation; false when ctx ends.
func (t *target) wait(ctx context.Context) (address string, generation int, ok bool) {
	for {
		t.mu.Lock()
		if t.address != "" {
			defer t.mu.Unlock()
			return t.address, t.generation, true
		}
		if t.changed == nil {
			t.changed = make(chan struct{})
		}
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return "", 0, false
		}
	}
}

// is tells whether this generation of the server is still the one that runs.
func (t *target) is(generation int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.address != "" && t.generation == generation
}
