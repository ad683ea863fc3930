package httpapi

import (
	"context"
	"sync"
	"time"

	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/im"
)

// Limits of the requests for history of one user or node.
const (
	readsPerOwner   = 2  // served at a time
	waitingPerOwner = 16 // that wait for those
)

// readLimit bounds how many requests for history are served at a time: of each user or node,
// so that one cannot keep the others from theirs, and in all, since one may read thousands of
// messages. Those over the limit wait for their turn.
type readLimit struct {
	slots    chan struct{}
	patience time.Duration

	mu     sync.Mutex
	owners map[im.Address]*ownerReads // those who read or wait
}

// ownerReads is what one user or node has under way.
type ownerReads struct {
	turns    chan struct{}
	requests int // reading and waiting; guarded by readLimit.mu
}

func newReadLimit(slots int, patience time.Duration) *readLimit {
	return &readLimit{slots: make(chan struct{}, slots), patience: patience, owners: make(map[im.Address]*ownerReads)}
}

// acquire waits for the turn of a request of owner; release ends it. The error is a
// *TooManyError: CodeRateLimited when the owner has too many requests waiting already, and
// CodeUnavailable when the turn does not come in time.
func (l *readLimit) acquire(ctx context.Context, owner im.Address) (release func(), err error) {
	own, err := l.enter(owner)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	// The own turn first: who waits for it takes no place from others.
	select {
	case own.turns <- struct{}{}:
	case <-ctx.Done():
		l.leave(owner, own)
		return nil, errReadsBusy
	}
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		<-own.turns
		l.leave(owner, own)
		return nil, errReadsBusy
	}
	return func() {
		<-l.slots
		<-own.turns
		l.leave(owner, own)
	}, nil
}

func (l *readLimit) enter(owner im.Address) (*ownerReads, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.owners[owner]
	if own == nil {
		own = &ownerReads{turns: make(chan struct{}, readsPerOwner)}
		l.owners[owner] = own
	}
	if own.requests == readsPerOwner+waitingPerOwner {
		return nil, errReadsPerOwner
	}
	own.requests++
	return own, nil
}

func (l *readLimit) leave(owner im.Address, own *ownerReads) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if own.requests--; own.requests == 0 {
		delete(l.owners, owner)
	}
}

var (
	errReadsBusy error = &account.TooManyError{
		After: 2 * time.Second,
		Err:   im.Errorf(im.CodeUnavailable, "", "too much history is being read at this moment"),
	}
	errReadsPerOwner error = &account.TooManyError{
		After: time.Second,
		Err:   im.Errorf(im.CodeRateLimited, "", "too many requests for history at a time: wait for the answers"),
	}
)
