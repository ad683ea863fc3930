package router

import (
	"sync"

	"github.com/slimchat/slimchat/im"
)

// messageKey identifies a message before it has a position.
type messageKey struct {
	sender im.Address
	id     string
}

// pending holds the messages whose commit is under way, so that a second publish of the
// same message waits for the outcome of the first instead of being appended beside it.
// Its size is bounded by the log's back-pressure.
type pending struct {
	mu    sync.Mutex
	waits map[messageKey][]waiter
}

type waiter struct {
	sender im.Principal
	done   Done
}

// begin tells whether the caller is the first; if not, done waits for the first one.
func (p *pending) begin(key messageKey, w waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting, busy := p.waits[key]
	if busy {
		p.waits[key] = append(waiting, w)
		return false
	}
	p.waits[key] = nil
	return true
}

// end returns who waited for the outcome of key, which is over.
func (p *pending) end(key messageKey) []waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := p.waits[key]
	delete(p.waits, key)
	return waiting
}
