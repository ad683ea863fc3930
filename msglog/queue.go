package msglog

import (
	"context"
	"sync"

	"github.com/slimchat/slimchat/im"
)

// item is one append on its way.
type item struct {
	rec  im.Record
	done func(seq uint64, err error)
	seq  uint64 // of the message, once it is known
	copy uint64 // of the copy, or a position that is not before it
}

func (it *item) msgs() int {
	if it.rec.CopySubject != "" {
		return 2
	}
	return 1
}

func (it *item) bytes() int {
	return len(it.rec.Subject) + len(it.rec.Data) + len(it.rec.CopySubject) + len(it.rec.CopyData)
}

// queue holds what waits to be published. It is bounded in messages and bytes; items that
// are already on their way do not count.
type queue struct {
	mu       sync.Mutex
	items    []item // those from head on are waiting
	head     int
	closed   bool
	n, size  int
	maxMsgs  int
	maxBytes int
	ready    chan struct{} // has a token when the publisher should look
	room     chan struct{} // closed and replaced when room appears while somebody waits
	waiting  bool
}

func (q *queue) init(maxMsgs, maxBytes int) {
	q.maxMsgs, q.maxBytes = maxMsgs, maxBytes
	q.ready = make(chan struct{}, 1)
	q.room = make(chan struct{})
}

// push adds it when there is room; otherwise it returns a channel that is closed when it
// is worth trying again. On a closed queue both results are zero.
func (q *queue) push(it item) (ok bool, room <-chan struct{}) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return false, nil
	}
	// One item always fits into an empty queue, however large it is.
	if q.n > 0 && (q.n+it.msgs() > q.maxMsgs || q.size+it.bytes() > q.maxBytes) {
		q.waiting = true
		room = q.room
		q.mu.Unlock()
		return false, room
	}
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, it)
	q.n += it.msgs()
	q.size += it.bytes()
	q.mu.Unlock()
	q.signal()
	return true, nil
}

// close refuses further items and returns those that still wait.
func (q *queue) close() []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	rest := q.items[q.head:]
	q.closed = true
	q.items, q.head, q.n, q.size = nil, 0, 0, 0
	q.freeLocked()
	return rest
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// wake lets the publisher and everybody who waits for room look again.
func (q *queue) wake() {
	q.mu.Lock()
	q.freeLocked()
	q.mu.Unlock()
	q.signal()
}

func (q *queue) freeLocked() {
	if q.waiting {
		q.waiting = false
		close(q.room)
		q.room = make(chan struct{})
	}
}

// take moves items of at most maxMsgs and maxBytes, but at least one, into dst.
func (q *queue) take(dst []item, maxMsgs, maxBytes int) []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size, end := 0, 0, q.head
	for end < len(q.items) {
		m, b := q.items[end].msgs(), q.items[end].bytes()
		if n > 0 && (n+m > maxMsgs || size+b > maxBytes) {
			break
		}
		n, size, end = n+m, size+b, end+1
	}
	dst = append(dst, q.items[q.head:end]...)
	clear(q.items[q.head:end])
	if q.head = end; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	q.n -= n
	q.size -= size
	q.freeLocked()
	return dst
}

func (q *queue) load() (int, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n, q.size
}

// Append hands in a record for its commit and returns as soon as it is queued; done is
// called exactly once with its outcome, seq being the position of the message (not of the
// copy). It blocks while the queue is full, until ctx ends. When Append itself returns an
// error, nothing was queued and done is never called. All errors are *im.Error; those with
// im.CodeUnavailable are temporary.
//
// The record's slices must not be changed until done is called. done runs on a goroutine
// of the committer, in the order of positions for those that succeed, and must not block:
// every other append waits for it. It may call TryAppend, but not Append or Close.
func (l *Log) Append(ctx context.Context, rec im.Record, done func(seq uint64, err error)) error {
	it := item{rec: rec, done: done}
	if it.bytes() > l.opts.MaxMsgBytes && l.oversized(rec) {
		return tooLarge()
	}
	for {
		if err := l.writeErr(); err != nil {
			return err
		}
		ok, room := l.queue.push(it)
		if ok {
			return nil
		}
		if room == nil {
			return closedErr()
		}
		select {
		case <-room:
		case <-ctx.Done():
			return unavailable(ctx.Err(), "the server is too busy to store the message")
		}
	}
}

// TryAppend is Append without waiting: a full queue is an error that is ErrOverload.
func (l *Log) TryAppend(rec im.Record, done func(seq uint64, err error)) error {
	it := item{rec: rec, done: done}
	if it.bytes() > l.opts.MaxMsgBytes && l.oversized(rec) {
		return tooLarge()
	}
	if err := l.writeErr(); err != nil {
		return err
	}
	ok, room := l.queue.push(it)
	switch {
	case ok:
		return nil
	case room == nil:
		return closedErr()
	}
	return unavailable(ErrOverload, "the server is too busy to store the message")
}

func (l *Log) oversized(rec im.Record) bool {
	return len(rec.Subject)+len(rec.Data) > l.opts.MaxMsgBytes ||
		len(rec.CopySubject)+len(rec.CopyData) > l.opts.MaxMsgBytes
}
