package msglog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Limits of one group. A group is what one acknowledgement of JetStream answers for; one
// sync may cover several.
const (
	groupMsgs   = 512
	groupBytes  = 1 << 20
	groupsAhead = 4 // published and not yet acknowledged
)

// group is a run of items that are published together.
type group struct {
	id     uint64
	items  []item
	msgs   int
	bytes  int
	last   uint64 // the last position it takes
	pubErr error
}

var errAckTimeout = errors.New("no acknowledgement came in time")

// committer carries items from the queue into the log, in three goroutines:
//
//	publish  takes what waits as a group and publishes it
//	collect  waits for JetStream's acknowledgement of each group, in order
//	finish   syncs everything that is acknowledged, once, and calls the callbacks
//
// While one sync runs the next groups gather, so that groups are as large as the load
// makes them and a lonely message waits for nothing but itself.
//
// This process is the only writer of the stream. JetStream stores what one connection
// publishes in order, so only the last message of a group asks for an acknowledgement:
// when its position is exactly as many further as messages were published, all of them
// are stored, and their positions are known. Anything else is an unknown outcome, which
// resolve looks up in the log.
type committer struct {
	l     *Log
	nc    *nats.Conn
	inbox string
	acks  chan ack
	space space

	pub    sync.Mutex // held while a group is published; resolve holds it to stop that
	nextID uint64
	owed   []storedItem  // messages whose copy could not be written yet; pub guards it
	slots  chan struct{} // a token for each group that may be ahead
	flight chan *group
	synced chan *group
	last   uint64 // the last position that is accounted for; collect owns it

	reconnects uint64 // of nc, as far as resolve has dealt with them

	resolving atomic.Bool
	dead      atomic.Bool // JetStream does not write to a stream any more
	revived   time.Time   // when that was last dealt with; publish owns it

	ctx    context.Context // ends when stop gives up
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func startCommitter(l *Log, last uint64) (*committer, error) {
	nc, err := l.opts.Server.Connect("msglog commit")
	if err != nil {
		return nil, fmt.Errorf("msglog: %w", err)
	}
	c := &committer{
		l: l, nc: nc, last: last,
		inbox:  nats.NewInbox(),
		acks:   make(chan ack, 4*groupsAhead),
		slots:  make(chan struct{}, groupsAhead),
		flight: make(chan *group, groupsAhead),
		synced: make(chan *group, 4*groupsAhead),
	}
	c.space = space{min: l.opts.MinFree, free: l.opts.Free}
	if c.space.free == nil {
		c.space.free = func() (int64, error) { return freeBytes(l.opts.DataDir) }
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if _, err := nc.Subscribe(c.inbox+".*", c.onAck); err != nil {
		nc.Close()
		return nil, fmt.Errorf("msglog: %w", err)
	}
	if err := nc.Flush(); err != nil {
		nc.Close()
		return nil, fmt.Errorf("msglog: %w", err)
	}
	c.wg.Add(3)
	go c.publish()
	go c.collect()
	go c.finish()
	return c, nil
}

// stop commits what is queued and ends the goroutines.
func (c *committer) stop(ctx context.Context) error {
	ended := make(chan struct{})
	go func() { c.wg.Wait(); close(ended) }()
	defer c.cancel()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		c.cancel()
		<-ended
		return fmt.Errorf("msglog: close: %w", ctx.Err())
	}
}

// obstacle is why appends are refused at the moment, nil when they are not.
func (c *committer) obstacle() error {
	if c.resolving.Load() {
		return fmt.Errorf("%w: the outcome of a write is being looked up", ErrRefused)
	}
	if c.dead.Load() {
		return fmt.Errorf("%w: JetStream has met a write error", ErrRefused)
	}
	free, err := c.space.free()
	if err != nil {
		return fmt.Errorf("msglog: free space: %w", err)
	}
	// It is only healthy when it would take the largest message.
	if need := c.space.min + 2*int64(c.l.opts.MaxMsgBytes); free < need {
		return fmt.Errorf("%w: %d MiB are free, %d must be", ErrDiskFull, free>>20, need>>20)
	}
	return nil
}

func (c *committer) publish() {
	defer c.wg.Done()
	defer close(c.flight)
	defer func() { c.rejectOwed(closedErr()) }()
	q := &c.l.queue
	retry := time.NewTicker(reviveInterval)
	defer retry.Stop()
	for {
		select {
		case c.slots <- struct{}{}:
		case <-c.ctx.Done():
			c.reject(q.close(), closedErr())
			return
		}
		items := q.take(nil, groupMsgs, groupBytes)
		if len(items) > 0 {
			c.publishGroup(items)
			continue
		}
		<-c.slots
		if c.l.closing.Load() {
			c.reject(q.close(), closedErr())
			return
		}
		select {
		case <-q.ready:
		case <-retry.C:
			// Nobody may come to append while the log says that it is not healthy.
			if c.dead.Load() && c.l.failed.Load() == nil {
				if err := c.revive(0); err != nil {
					c.l.log.Debug("the log is not writable", "error", err)
				}
			}
		case <-c.ctx.Done():
		}
	}
}

// publishGroup publishes items, or refuses them. It owns a slot, which it gives back when
// nothing was published.
func (c *committer) publishGroup(items []item) {
	g := &group{items: items}
	for i := range items {
		g.msgs += items[i].msgs()
		g.bytes += items[i].bytes()
	}
	if err := c.mayWrite(g); err != nil {
		<-c.slots
		c.reject(items, err)
		return
	}
	c.pub.Lock()
	defer c.pub.Unlock()
	c.nextID++
	g.id = c.nextID
	reply := c.inbox + "." + strconv.FormatUint(g.id, 10)
	for i := range items {
		rec := &items[i].rec
		subject, data := rec.Subject, rec.Data
		if rec.CopySubject != "" {
			if g.pubErr = c.nc.Publish(subject, data); g.pubErr != nil {
				break
			}
			subject, data = rec.CopySubject, rec.CopyData
		}
		if i < len(items)-1 {
			g.pubErr = c.nc.Publish(subject, data)
		} else {
			g.pubErr = c.nc.PublishRequest(subject, reply, data)
		}
		if g.pubErr != nil {
			break
		}
	}
	c.flight <- g // has room, because we own a slot
}

// mayWrite tells whether the log can take a group now.
func (c *committer) mayWrite(g *group) error {
	if f := c.l.failed.Load(); f != nil {
		err := unavailable(f.err, "the server cannot store messages now")
		c.rejectOwed(err)
		return err
	}
	if c.dead.Load() {
		if err := c.revive(1); err != nil {
			return err
		}
	}
	ok, err := c.space.take(int64(g.bytes+64*g.msgs), time.Now())
	if err != nil {
		return unavailable(fmt.Errorf("free space: %w", err), "the server cannot store messages now")
	}
	if !ok {
		return unavailable(ErrDiskFull, "the server's disk is full")
	}
	return nil
}

// reject reports err for items that are certainly not, or not certainly, in the log.
func (c *committer) reject(items []item, err error) {
	if len(items) == 0 {
		return
	}
	c.l.stats.refused.Add(uint64(len(items)))
	for i := range items {
		items[i].done(0, err)
	}
	if c.l.opts.OnCommitted != nil {
		c.l.opts.OnCommitted()
	}
}

// collect accounts for published groups in order and hands them to finish.
func (c *committer) collect() {
	defer c.wg.Done()
	defer close(c.synced)
	for g := range c.flight {
		last, err := c.acknowledged(g)
		if err != nil {
			c.resolve(g, err)
			continue
		}
		c.assign(g, last)
		<-c.slots
		c.synced <- g
	}
}

// acknowledged waits for the acknowledgement of g. Without an error it proves that the log
// holds the whole group, up to the position last.
func (c *committer) acknowledged(g *group) (last uint64, err error) {
	if g.pubErr != nil {
		return 0, fmt.Errorf("publish: %w", g.pubErr)
	}
	timeout := time.NewTimer(c.l.opts.AckTimeout)
	defer timeout.Stop()
	for {
		select {
		case a := <-c.acks:
			want := c.last + uint64(g.msgs)
			switch {
			case a.id < g.id:
				continue // of a group that has been resolved
			case a.id > g.id:
				return 0, errors.New("no acknowledgement came")
			case a.err != nil:
				return 0, a.err
			case a.seq != want:
				return 0, fmt.Errorf("the position is %d, not %d", a.seq, want)
			}
			return a.seq, nil
		case <-timeout.C:
			return 0, errAckTimeout
		case <-c.ctx.Done():
			return 0, c.ctx.Err()
		}
	}
}

func (c *committer) assign(g *group, last uint64) {
	seq := c.last
	for i := range g.items {
		g.items[i].seq, g.items[i].copy = seq+1, seq+2
		seq += uint64(g.items[i].msgs())
	}
	c.last, g.last = last, last
}

// finish makes acknowledged groups durable and tells their callers.
func (c *committer) finish() {
	defer c.wg.Done()
	var batch []*group
	for g := range c.synced {
		batch = append(batch[:0], g)
	more:
		for {
			select {
			case g, ok := <-c.synced:
				if !ok {
					break more
				}
				batch = append(batch, g)
			default:
				break more
			}
		}
		c.complete(batch)
		clear(batch)
	}
}

func (c *committer) complete(batch []*group) {
	l, st := c.l, &c.l.stats
	if l.failed.Load() == nil {
		begin := time.Now()
		if err := l.syncer.Sync(); err != nil {
			// The kernel may have dropped what it could not write, and a second sync would
			// then succeed without it. So nothing is known from here on.
			l.fail(fmt.Errorf("sync: %w", err))
		} else {
			st.syncs.Add(1)
			st.syncNanos.Add(uint64(time.Since(begin)))
		}
	}
	if f := l.failed.Load(); f != nil {
		for _, g := range batch {
			c.reject(g.items, unavailable(f.err, "the server cannot store messages now"))
		}
		return
	}
	for _, g := range batch {
		l.recent.addGroup(g.items)
	}
	l.durable.advance(batch[len(batch)-1].last)
	for _, g := range batch {
		st.groups.Add(1)
		st.records.Add(uint64(len(g.items)))
		st.messages.Add(uint64(g.msgs))
		st.bytes.Add(uint64(g.bytes))
		if n := uint64(g.msgs); n > st.largest.Load() {
			st.largest.Store(n)
		}
		for i := range g.items {
			g.items[i].done(g.items[i].seq, nil)
		}
	}
	if l.opts.OnCommitted != nil {
		l.opts.OnCommitted()
	}
}
