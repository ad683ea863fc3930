package msglog

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/cluster"
	"github.com/slimchat/slimchat/im"
)

const testDomain = "example.test"

// env is a real embedded server with a log on it.
type env struct {
	t    testing.TB
	opts Options
	node *cluster.Node
	log  *Log
}

// start opens a log in dir; edit may change its options.
func start(t testing.TB, dir string, edit func(*Options)) *env {
	t.Helper()
	e := &env{t: t}
	e.opts = Options{DataDir: dir, MinFree: 1 << 20}
	if edit != nil {
		edit(&e.opts)
	}
	node := startNode(t, dir, e.opts)
	var err error
	e.node, e.opts.Server = node, node
	e.log, err = Open(context.Background(), e.opts)
	require.NoError(t, err)
	t.Cleanup(func() { e.stop() })
	return e
}

// startNode starts the server; it is stopped at the end of the test at the latest.
func startNode(t testing.TB, dir string, o Options) *cluster.Node {
	t.Helper()
	node, err := cluster.Start(context.Background(), cluster.Options{
		DataDir: dir, Domain: testDomain, SyncAlways: NeedsSyncAlways(o.Durability, 1), Logger: o.Logger,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, node.Stop(context.Background())) })
	return node
}

// stop closes the log and the server; a second call does nothing.
func (e *env) stop() {
	e.t.Helper()
	if e.node == nil {
		return
	}
	require.NoError(e.t, e.log.Close(context.Background()))
	require.NoError(e.t, e.node.Stop(context.Background()))
	e.node = nil
}

// message makes the record of a message, with its copy for the sender when copied is set.
func message(from, to im.Address, id string, copied bool) im.Record {
	env := im.Envelope{
		From: from, Client: "c1", ID: id, TS: time.Now().UnixMilli(),
		Body: []byte(fmt.Sprintf(`{"id":%q,"from":%q,"to":%q,"type":"chat","content":{"type":"text","data":"hello"},"ts":1}`, id, from, to)),
	}
	if copied {
		env.Flags = im.FlagHasCopy
	}
	rec := im.Record{Subject: im.Subject(to, from), Data: env.Append(nil)}
	if copied {
		env.Flags = im.FlagCopy
		rec.CopySubject, rec.CopyData = im.Subject(from, from), env.Append(nil)
	}
	return rec
}

// append commits rec and returns its position.
func (e *env) append(rec im.Record) uint64 {
	e.t.Helper()
	seq, err := e.try(rec)
	require.NoError(e.t, err)
	return seq
}

func (e *env) try(rec im.Record) (uint64, error) {
	type outcome struct {
		seq uint64
		err error
	}
	ch := make(chan outcome, 1)
	if err := e.log.Append(context.Background(), rec, func(seq uint64, err error) { ch <- outcome{seq, err} }); err != nil {
		return 0, err
	}
	o := <-ch
	return o.seq, o.err
}

// appendAll commits all records at once and returns their positions.
func (e *env) appendAll(recs []im.Record) []uint64 {
	e.t.Helper()
	var wg sync.WaitGroup
	seqs := make([]uint64, len(recs))
	errs := make([]error, len(recs))
	wg.Add(len(recs))
	for i := range recs {
		err := e.log.Append(context.Background(), recs[i], func(seq uint64, err error) {
			seqs[i], errs[i] = seq, err
			wg.Done()
		})
		require.NoError(e.t, err)
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(e.t, err)
	}
	return seqs
}

// collector gathers what a tail delivers.
type collector struct {
	mu      sync.Mutex
	entries []*im.Entry
	more    chan struct{}
}

func newCollector() *collector { return &collector{more: make(chan struct{}, 1)} }

func (c *collector) add(batch []*im.Entry) {
	c.mu.Lock()
	c.entries = append(c.entries, batch...)
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// wait returns the first n entries once they are there.
func (c *collector) wait(t testing.TB, n int) []*im.Entry {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		c.mu.Lock()
		if len(c.entries) >= n {
			out := c.entries[:n:n]
			c.mu.Unlock()
			return out
		}
		have := len(c.entries)
		c.mu.Unlock()
		select {
		case <-c.more:
		case <-timeout:
			t.Fatalf("the tail delivered %d of %d entries", have, n)
		}
	}
}

// tail runs a tail until the test ends.
func (e *env) tail(after uint64) *collector {
	c := newCollector()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.log.Tail(ctx, after, c.add) }()
	e.t.Cleanup(func() {
		cancel()
		<-done
	})
	return c
}
