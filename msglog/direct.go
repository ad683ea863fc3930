package msglog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/slimchat/slimchat/im"
)

// rawEntry is a stored message before it is decoded.
type rawEntry struct {
	seq     uint64
	subject string
	data    []byte
}

func (r rawEntry) entry() (*im.Entry, error) { return im.DecodeEntry(r.seq, r.subject, r.data) }

// getRequest is one direct get, by which a single message or a batch is read.
type getRequest struct {
	nextFor   string   // the next messages of a subject or wildcard
	multiLast []string // the last message of each of these
	seq       uint64   // from this position on
	upTo      uint64   // with multiLast
	batch     int      // 0 asks for one message and no end mark
	maxBytes  int
	startTime time.Time
}

// appendJSON writes the request. Subjects are encoded ids and wildcards, which need no
// escapes in JSON.
func (g *getRequest) appendJSON(b []byte) []byte {
	b = append(b, '{')
	field := func(name string) {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), name...), '"', ':')
	}
	if g.seq > 0 {
		field("seq")
		b = strconv.AppendUint(b, g.seq, 10)
	}
	if g.nextFor != "" {
		field("next_by_subj")
		b = append(append(append(b, '"'), g.nextFor...), '"')
	}
	if len(g.multiLast) > 0 {
		field("multi_last")
		b = append(b, '[')
		for i, s := range g.multiLast {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, '"'), s...), '"')
		}
		b = append(b, ']')
	}
	if g.upTo > 0 {
		field("up_to_seq")
		b = strconv.AppendUint(b, g.upTo, 10)
	}
	if g.batch > 0 {
		field("batch")
		b = strconv.AppendInt(b, int64(g.batch), 10)
	}
	if g.maxBytes > 0 {
		field("max_bytes")
		b = strconv.AppendInt(b, int64(g.maxBytes), 10)
	}
	if !g.startTime.IsZero() {
		field("start_time")
		b = append(g.startTime.UTC().AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
	}
	return append(b, '}')
}

// batched tells whether the answer ends with an end mark.
func (g *getRequest) batched() bool { return g.batch > 0 || len(g.multiLast) > 0 }

// getResult is what one direct get gave besides its messages.
type getResult struct {
	n       int    // messages
	last    uint64 // position of the last message
	pending uint64 // how many more there are; only for batches
}

const (
	directGet      = "$JS.API.DIRECT.GET."
	readsAhead     = 64 // requests of one reader that are under way
	readTimeout    = 15 * time.Second
	tooManyResults = "413"
)

// errTooMany: a multiLast matches more subjects than the server answers for.
var errTooMany = errors.New("msglog: too many subjects match")

// reader is a connection for direct gets, which the server answers inline, so that a long
// read delays nothing but its own connection. One caller at a time.
type reader struct {
	nc     *nats.Conn
	sub    *nats.Subscription
	inbox  string
	call   uint64
	buf    []byte
	broken bool
}

func newReader(server Connector) (*reader, error) {
	nc, err := server.Connect("msglog read")
	if err != nil {
		return nil, err
	}
	r := &reader{nc: nc, inbox: nats.NewInbox()}
	if r.sub, err = nc.SubscribeSync(r.inbox + ".*.*"); err == nil {
		err = r.sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return r, nil
}

// get sends reqs to the stream's direct get and calls each for every message, in order per
// request. It returns one result for each request.
func (r *reader) get(ctx context.Context, stream string, reqs []getRequest, each func(i int, e rawEntry)) ([]getResult, error) {
	r.call++
	results := make([]getResult, len(reqs))
	prefix := r.inbox + "." + strconv.FormatUint(r.call, 10) + "."
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	sent, open := 0, 0
	for sent < len(reqs) || open > 0 {
		for sent < len(reqs) && open < readsAhead {
			r.buf = reqs[sent].appendJSON(r.buf[:0])
			if err := r.nc.PublishRequest(directGet+stream, prefix+strconv.Itoa(sent), r.buf); err != nil {
				r.broken = true
				return nil, fmt.Errorf("msglog: read: %w", err)
			}
			sent, open = sent+1, open+1
		}
		m, err := r.sub.NextMsgWithContext(ctx)
		if err != nil {
			r.broken = true
			return nil, fmt.Errorf("msglog: read: %w", err)
		}
		index, ok := strings.CutPrefix(m.Subject, prefix)
		if !ok {
			continue // the rest of a call that was given up
		}
		i, err := strconv.Atoi(index)
		if err != nil || i < 0 || i >= sent {
			continue
		}
		ended, err := r.accept(m, &reqs[i], &results[i], i, each)
		if err != nil {
			r.broken = open > 1
			return nil, err
		}
		if ended {
			open--
		}
	}
	return results, nil
}

// accept takes one message of an answer and tells whether the answer is complete.
func (r *reader) accept(m *nats.Msg, req *getRequest, res *getResult, i int, each func(int, rawEntry)) (bool, error) {
	if status := header(m, "Status"); status != "" {
		switch status {
		case "204":
			res.pending, _ = strconv.ParseUint(header(m, "Nats-Num-Pending"), 10, 64)
			return true, nil
		case "404":
			return true, nil
		case tooManyResults:
			return true, errTooMany
		}
		return true, fmt.Errorf("msglog: read: status %s %s", status, header(m, "Description"))
	}
	seq, err := strconv.ParseUint(header(m, "Nats-Sequence"), 10, 64)
	if err != nil {
		return true, fmt.Errorf("msglog: read: answer without a position")
	}
	res.n++
	res.last = seq
	each(i, rawEntry{seq: seq, subject: header(m, "Nats-Subject"), data: m.Data})
	return !req.batched(), nil
}

func header(m *nats.Msg, name string) string {
	if v := m.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// readerPool lends readers. It opens them when they are first needed.
type readerPool struct {
	server Connector
	slots  chan struct{}

	mu     sync.Mutex
	idle   []*reader
	closed bool
}

func newReaderPool(server Connector, n int) *readerPool {
	return &readerPool{server: server, slots: make(chan struct{}, n)}
}

func (p *readerPool) acquire(ctx context.Context) (*reader, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.mu.Lock()
	closed := p.closed
	var r *reader
	if n := len(p.idle); n > 0 {
		r, p.idle = p.idle[n-1], p.idle[:n-1]
	}
	p.mu.Unlock()
	if r == nil && !closed {
		var err error
		if r, err = newReader(p.server); err != nil {
			<-p.slots
			return nil, fmt.Errorf("msglog: %w", err)
		}
	}
	if r == nil {
		<-p.slots
		return nil, ErrClosed
	}
	return r, nil
}

func (p *readerPool) release(r *reader) {
	p.mu.Lock()
	if r.broken || p.closed {
		p.mu.Unlock()
		r.nc.Close()
	} else {
		p.idle = append(p.idle, r)
		p.mu.Unlock()
	}
	<-p.slots
}

func (p *readerPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, r := range p.idle {
		r.nc.Close()
	}
	p.idle = nil
}

// get borrows a reader for one call of its get.
func (l *Log) get(ctx context.Context, stream string, reqs []getRequest, each func(i int, e rawEntry)) ([]getResult, error) {
	return l.getBy(ctx, l.readers, stream, reqs, each)
}

// getBy is get with a reader of a certain pool.
func (l *Log) getBy(ctx context.Context, pool *readerPool, stream string, reqs []getRequest, each func(i int, e rawEntry)) ([]getResult, error) {
	r, err := pool.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer pool.release(r)
	l.stats.reads.Add(uint64(len(reqs)))
	return r.get(ctx, stream, reqs, each)
}

// scan reads every entry of the log in (after, upTo].
func (l *Log) scan(ctx context.Context, after, upTo uint64) ([]rawEntry, error) {
	var out []rawEntry
	for after < upTo {
		res, err := l.get(ctx, StreamName, []getRequest{{seq: after + 1, batch: scanPage, maxBytes: scanBytes}},
			func(_ int, e rawEntry) {
				if e.seq <= upTo {
					out = append(out, e)
				}
			})
		if err != nil {
			return nil, err
		}
		if res[0].n == 0 {
			break
		}
		after = res[0].last
	}
	return out, nil
}

const (
	scanPage  = 1024
	scanBytes = 2 << 20
)
