package token

import (
	"sync"
	"time"
)

// revocations is the set of tickets that are no longer valid though their tokens have not
// expired. One costs about 100 bytes.
type revocations struct {
	mu      sync.RWMutex
	tickets map[string]int64 // when the last token of the ticket ends, Unix milliseconds
}

func newRevocations() *revocations { return &revocations{tickets: make(map[string]int64)} }

func (r *revocations) add(ticket string, expires int64) {
	if ticket == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tickets[ticket] = max(r.tickets[ticket], expires)
}

func (r *revocations) has(ticket string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, found := r.tickets[ticket]
	return found
}

// prune forgets tickets whose tokens have all expired.
func (r *revocations) prune(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ticket, expires := range r.tickets {
		if expires < now.UnixMilli() {
			delete(r.tickets, ticket)
		}
	}
}
