// Package bench puts load on an MQTT broker and measures what comes of it: how many messages or connections a second, and how
// long they took. It works against any broker that speaks MQTT 3.1.1 or 5.0, and with SlimChat's own accounts and addresses
// against SlimChat.
//
// It is made to share a small machine with the broker it measures: a connection costs one goroutine, packets are written many
// at a time, and a message costs no allocation.
package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// Mode is a kind of load.
type Mode string

// The kinds of load.
const (
	// ModePairs sends from N publishers to one subscriber each, QoS 1 both ways.
	ModePairs Mode = "pairs"
	// ModeFanout sends from one publisher to N subscribers, QoS 1 both ways.
	ModeFanout Mode = "fanout"
	// ModeConnect connects, subscribes at QoS 1 and disconnects, over and over.
	ModeConnect Mode = "connect"
)

// Options describes a run.
type Options struct {
	Mode    Mode
	Broker  client.Options // address, version and TLS; who connects is up to the run
	Clients int            // pairs, subscribers, or connections at a time
	Window  int            // publishes of one publisher that wait for their acknowledgement
	Rate    float64        // messages a second of all publishers together; 0: as fast as the windows allow
	Size    int            // bytes of payload

	Warmup   time.Duration // load before the measurement starts
	Duration time.Duration // the measurement
	Drain    time.Duration // how long to wait for the last deliveries after it

	// SlimChat makes the run register and log in its own accounts at the server's REST service; nil means a broker of
	// another kind, with the Broker's user and password.
	SlimChat *SlimChat
	// Progress, when not nil, hears of the run several times a second.
	Progress func(Progress)
}

// Progress is how far a run is.
type Progress struct {
	Phase string  // accounts, connecting, warming up, measuring, draining
	Done  float64 // of the phase, 0 to 1
	Rate  float64 // deliveries or connects a second just now
}

// minSize is the least payload that holds a message with its stamp.
var minSize = len(newPayload("00000000", 0, 0).text)

// Check says what is wrong with the options.
func (o *Options) Check() error {
	switch {
	case o.Mode != ModePairs && o.Mode != ModeFanout && o.Mode != ModeConnect:
		return fmt.Errorf("there is no mode %q: want pairs, fanout or connect", o.Mode)
	case o.Clients < 1 || o.Clients > 1_000_000:
		return errors.New("want 1 to 1000000 clients")
	case o.Window < 1 || o.Window > 65_535:
		return errors.New("the window must be 1 to 65535 messages: MQTT has no more packet identifiers")
	case o.Rate < 0:
		return errors.New("the rate must not be negative")
	case o.Size < minSize || o.Size > 16<<20:
		return fmt.Errorf("the payload must have %d bytes (a message with its time stamp) to 16 MiB", minSize)
	case o.Duration <= 0 || o.Warmup < 0 || o.Drain < 0:
		return errors.New("the duration must be more than nothing")
	}
	return nil
}

// Run puts the load on the broker until it is over or ctx ends, which cuts the measurement short.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	id := make([]byte, 4)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	r := &run{o: o, id: hex.EncodeToString(id), epoch: time.Now()}
	r.o.Broker.MaxPacket = max(1<<20, 2*o.Size)
	defer r.close()
	var people identities = generic{r}
	if o.SlimChat != nil {
		accounts, err := newAccounts(*o.SlimChat, r)
		if err != nil {
			return nil, err
		}
		people = accounts
	}
	if o.Mode == ModeConnect {
		return r.connects(ctx, people)
	}
	return r.messages(ctx, people)
}

// run is one run's state.
type run struct {
	o     Options
	id    string // eight hexadecimal digits, in every name and message of this run
	epoch time.Time

	mu    sync.Mutex
	conns []*client.Conn

	series   atomic.Int64 // of made-up client identifiers
	workers  sync.WaitGroup
	stopping atomic.Bool // no new publishes
	closing  atomic.Bool // connections are being closed: their errors mean nothing
	from, to atomic.Int64

	sent, acked, refused  atomic.Int64
	delivered, duplicates atomic.Int64
	outOfOrder, foreign   atomic.Int64
	failures              failures
	deliveryTime, ackTime Histogram
}

// now is the time since the run began, in nanoseconds; it is what stamps hold.
func (r *run) now() int64 { return int64(time.Since(r.epoch)) }

// measuring tells whether what happens at the time now counts.
func (r *run) measuring(now int64) bool {
	from, to := r.from.Load(), r.to.Load()
	return from > 0 && now >= from && (to == 0 || now < to)
}

// identity is who a connection is, and where it receives.
type identity struct {
	clientID, user, password string
	inbox                    string // topic
}

// identities makes up, or registers, those who take part.
type identities interface {
	// users returns n users with one client each.
	users(ctx context.Context, n int) ([]identity, error)
	// group returns n clients that all receive what is sent to one topic.
	group(ctx context.Context, n int) ([]identity, error)
}

// generic makes up client identifiers and topics for brokers that know no accounts, or only one.
type generic struct{ run *run }

func (g generic) users(_ context.Context, n int) ([]identity, error) {
	return g.list(n, func(i int) string { return fmt.Sprintf("bench/%s/%d", g.run.id, i) }), nil
}

func (g generic) group(_ context.Context, n int) ([]identity, error) {
	return g.list(n, func(int) string { return fmt.Sprintf("bench/%s/all", g.run.id) }), nil
}

func (g generic) list(n int, inbox func(int) string) []identity {
	list := make([]identity, n)
	series := g.run.series.Add(1)
	for i := range list {
		list[i] = identity{
			clientID: fmt.Sprintf("b%s-%d-%d", g.run.id, series, i), user: g.run.o.Broker.User, password: g.run.o.Broker.Password, inbox: inbox(i),
		}
	}
	return list
}

// connect opens a connection of one of those who take part. It is closed at the end of the run.
func (r *run) connect(ctx context.Context, who identity) (*client.Conn, error) {
	o := r.o.Broker
	o.ClientID, o.User, o.Password, o.CleanStart = who.clientID, who.user, who.password, true
	conn, err := client.Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.conns = append(r.conns, conn)
	r.mu.Unlock()
	return conn, nil
}

// close ends all connections and waits for their goroutines.
func (r *run) close() {
	r.stopping.Store(true)
	r.closing.Store(true)
	r.mu.Lock()
	conns := r.conns
	r.mu.Unlock()
	bye := packet.AppendDisconnect(nil, r.o.Broker.Version, &packet.Disconnect{})
	for _, conn := range conns {
		if conn.SetWriteDeadline(time.Now().Add(time.Second)) == nil {
			conn.Write(bye) //nolint:errcheck // a goodbye that nobody hears
		}
		conn.Close()
	}
	r.workers.Wait()
}

// failed notes that a connection broke.
func (r *run) failed(err error) {
	if err != nil && !r.closing.Load() {
		r.failures.add(err)
	}
}

// failures keeps count of errors and the first of them.
type failures struct {
	mu    sync.Mutex
	count int64
	first error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count++; f.first == nil {
		f.first = err
	}
}

func (f *failures) get() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count, f.first
}

// progressEvery is how often the run tells of its progress.
const progressEvery = 250 * time.Millisecond

// phase waits for d, or until done says so or ctx ends, and tells of the progress meanwhile.
func (r *run) phase(ctx context.Context, name string, d time.Duration, done func() bool) error {
	start, last, lastCount := time.Now(), time.Now(), r.delivered.Load()
	step := progressEvery
	if done != nil {
		step = 10 * time.Millisecond
	}
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return nil
		case <-ticker.C:
		}
		if done != nil && done() {
			return nil
		}
		if passed := time.Since(last); r.o.Progress != nil && passed >= progressEvery {
			count := r.delivered.Load()
			r.o.Progress(Progress{Phase: name, Done: min(1, float64(time.Since(start))/float64(d)), Rate: float64(count-lastCount) / passed.Seconds()})
			last, lastCount = time.Now(), count
		}
	}
}

// each calls f for 0 to n-1 from a few goroutines and returns the first error, after which it starts no more.
func (r *run) each(ctx context.Context, phase string, n, parallel int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, done atomic.Int64
	var wg sync.WaitGroup
	for range min(n, parallel) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				if err := f(ctx, i); err != nil {
					cancel(err)
					return
				}
				if d := done.Add(1); r.o.Progress != nil && d%16 == 0 {
					r.o.Progress(Progress{Phase: phase, Done: float64(d) / float64(n)})
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
