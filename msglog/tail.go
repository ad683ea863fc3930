package msglog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slimchat/slimchat/im"
)

const (
	tailBatch     = 512
	tailHeartbeat = time.Second
	tailMissed    = 3 // heartbeats until the consumer counts as lost
	tailRetry     = 200 * time.Millisecond
)

// Tail calls fn with the entries after a position, in log order and in batches, as soon as
// they are durable, until ctx ends, whose error it then returns, or the log is closed,
// which is ErrClosed. fn owns the slice only
// during the call and should return quickly: the tail waits for it, while JetStream's flow
// control bounds what waits in memory. A gap, a lost consumer or connection is repaired by
// reading on from the last entry delivered; the receiver notices nothing but a pause.
func (l *Log) Tail(ctx context.Context, after uint64, fn func(batch []*im.Entry)) error {
	if l.ctx.Err() != nil {
		return ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	nc, err := l.opts.Server.Connect("msglog tail")
	if err != nil {
		return fmt.Errorf("msglog: tail: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("msglog: tail: %w", err)
	}
	t := &tail{l: l, nc: nc, js: js, fn: fn, after: after}
	for {
		err := t.follow(ctx)
		if l.ctx.Err() != nil {
			return ErrClosed
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.stats.tailRepairs.Add(1)
		l.log.Warn("repairing the tail", "after", t.after, "cause", err)
		select {
		case <-time.After(tailRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tail is one call of Tail. Its fields belong to the goroutine of the subscription while
// one consumer is followed, and to Tail in between.
type tail struct {
	l     *Log
	nc    *nats.Conn
	js    jetstream.JetStream
	fn    func([]*im.Entry)
	after uint64 // the last position that fn was given, or that has no entry for it
	batch []*im.Entry
	upTo  uint64 // the last position that batch covers
}

// follow reads one consumer until it is lost or ctx ends.
func (t *tail) follow(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	f := &follower{t: t, ctx: ctx, lost: cancel}
	revivals := t.l.revivals.Load()
	t.batch, t.upTo = t.batch[:0], t.after
	inbox := nats.NewInbox()
	sub, err := t.nc.Subscribe(inbox, f.take)
	if err != nil {
		return err
	}
	f.sub.Store(sub)
	ended := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(ended) })
	defer func() {
		// The callback must have returned before the fields of t are used again.
		cancel(nil)
		if sub.Unsubscribe() == nil {
			<-ended
		}
	}()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	c, err := t.js.CreatePushConsumer(ctx, StreamName, jetstream.ConsumerConfig{
		Description:       "tail",
		DeliverSubject:    inbox,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       t.after + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		ReplayPolicy:      jetstream.ReplayInstantPolicy,
		MaxDeliver:        1,
		FlowControl:       true,
		IdleHeartbeat:     tailHeartbeat,
		InactiveThreshold: 30 * time.Second,
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return err
	}
	defer t.drop(c.CachedInfo().Name)
	f.touch()
	tick := time.NewTicker(tailHeartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if t.l.revivals.Load() != revivals {
				return errors.New("JetStream was started again")
			}
			if !f.busy.Load() && time.Since(time.Unix(0, f.seen.Load())) > tailMissed*tailHeartbeat {
				return errors.New("no heartbeats")
			}
		}
	}
}

// drop deletes a consumer that is not needed any more; the server would do it by itself.
func (t *tail) drop(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := t.js.DeleteConsumer(ctx, StreamName, name); err != nil {
		t.l.log.Debug("deleting the consumer of a tail", "error", err)
	}
}

// follower takes the messages of one consumer.
type follower struct {
	t    *tail
	ctx  context.Context
	lost context.CancelCauseFunc
	sub  atomic.Pointer[nats.Subscription]
	next uint64       // the consumer's own count of the last message
	seen atomic.Int64 // when something came, Unix nanoseconds
	busy atomic.Bool  // fn is running, or the durable position is waited for
}

func (f *follower) touch() { f.seen.Store(time.Now().UnixNano()) }

// take is the subscription's callback.
func (f *follower) take(m *nats.Msg) {
	if f.ctx.Err() != nil {
		return
	}
	if len(m.Header) > 0 {
		if f.control(m) {
			return
		}
	}
	stream, consumer, ok := parseAckReply(m.Reply)
	if !ok {
		f.lost(fmt.Errorf("message with the reply subject %q", m.Reply))
		return
	}
	if consumer != f.next+1 {
		f.lost(fmt.Errorf("gap: message %d of the consumer came after %d", consumer, f.next))
		return
	}
	f.next = consumer
	t := f.t
	if e := t.l.decode(rawEntry{stream, m.Subject, m.Data}); e != nil {
		t.batch = append(t.batch, e)
	}
	t.upTo = stream
	if len(t.batch) < tailBatch {
		if sub := f.sub.Load(); sub != nil {
			if n, _, err := sub.Pending(); err == nil && n > 1 { // this one counts until the callback returns
				return
			}
		}
	}
	f.deliver()
}

// deliver hands the batch over as it becomes durable.
func (f *follower) deliver() {
	t := f.t
	f.busy.Store(true)
	defer func() { f.touch(); f.busy.Store(false) }()
	for t.after < t.upTo && f.ctx.Err() == nil {
		want := t.upTo
		if len(t.batch) > 0 {
			want = t.batch[0].Seq
		}
		pos, err := t.l.durable.wait(f.ctx, want)
		if err != nil {
			return
		}
		n := len(t.batch)
		if pos < t.upTo {
			for n = 0; n < len(t.batch) && t.batch[n].Seq <= pos; n++ {
			}
		}
		if n > 0 {
			t.fn(t.batch[:n:n])
			t.l.stats.tailed.Add(uint64(n))
			t.after = t.batch[n-1].Seq
		}
		if n == len(t.batch) && pos >= t.upTo {
			t.after = t.upTo
		}
		rest := copy(t.batch, t.batch[n:])
		clear(t.batch[rest:])
		t.batch = t.batch[:rest]
	}
}

// control deals with what is not a message of the log: heartbeats and flow control.
func (f *follower) control(m *nats.Msg) bool {
	if header(m, "Status") != "100" {
		return false
	}
	if len(f.t.batch) > 0 {
		f.deliver()
	}
	f.touch()
	reply := m.Reply
	if reply == "" {
		reply = header(m, "Nats-Consumer-Stalled")
	}
	if reply != "" {
		if err := f.t.nc.Publish(reply, nil); err != nil {
			f.lost(fmt.Errorf("flow control: %w", err))
		}
	}
	if last := header(m, "Nats-Last-Consumer"); last != "" {
		if n, err := strconv.ParseUint(last, 10, 64); err == nil && n > f.next {
			f.lost(fmt.Errorf("gap: the consumer has sent %d messages, %d came", n, f.next))
		}
	}
	return true
}

// parseAckReply finds the positions in the reply subject of a consumer's message:
//
//	$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
//	$JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>[.<token>]
func parseAckReply(s string) (stream, consumer uint64, ok bool) {
	dots := 0
	for i := range len(s) {
		if s[i] == '.' {
			dots++
		}
	}
	skip := 5
	if dots >= 10 {
		skip = 7
	} else if dots != 8 {
		return 0, 0, false
	}
	field := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '.' {
			field++
			continue
		}
		if field != skip && field != skip+1 {
			if field > skip+1 {
				break
			}
			continue
		}
		if c < '0' || c > '9' {
			return 0, 0, false
		}
		if field == skip {
			stream = stream*10 + uint64(c-'0')
		} else {
			consumer = consumer*10 + uint64(c-'0')
		}
	}
	return stream, consumer, stream > 0 && consumer > 0
}
