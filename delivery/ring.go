package delivery

import (
	"sort"
	"sync"

	"github.com/slimchat/slimchat/im"
)

// ring keeps the newest entries of the log in memory, bounded in bytes, so that a session
// which has fallen behind by a little reads no disk. Entries are indexed by address. It
// is safe for concurrent use.
type ring struct {
	mu       sync.RWMutex
	maxBytes int
	bytes    int
	floor    uint64 // every entry after this position is in the ring
	order    []*im.Entry
	head     int // order[head:] are alive
	byAddr   map[im.Address]*addrEntries
}

type addrEntries struct {
	list []*im.Entry
	head int
}

func newRing(maxBytes int, after uint64) *ring {
	return &ring{maxBytes: maxBytes, floor: after, byAddr: make(map[im.Address]*addrEntries)}
}

// add appends entries, which must come in log order, and forgets the oldest ones that
// exceed the bound.
func (r *ring) add(batch []*im.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range batch {
		r.order = append(r.order, e)
		r.bytes += e.Size()
		a := r.byAddr[e.To]
		if a == nil {
			a = &addrEntries{}
			r.byAddr[e.To] = a
		}
		a.list = append(a.list, e)
	}
	for r.bytes > r.maxBytes && r.head < len(r.order) {
		r.forgetOldest()
	}
	if r.head > len(r.order)/2 && r.head > 1024 {
		n := copy(r.order, r.order[r.head:])
		clear(r.order[n:])
		r.order, r.head = r.order[:n], 0
	}
}

func (r *ring) forgetOldest() {
	e := r.order[r.head]
	r.order[r.head] = nil
	r.head++
	r.bytes -= e.Size()
	r.floor = e.Seq
	a := r.byAddr[e.To]
	a.list[a.head] = nil
	a.head++
	switch {
	case a.head == len(a.list):
		delete(r.byAddr, e.To)
	case a.head > len(a.list)/2 && a.head > 16:
		n := copy(a.list, a.list[a.head:])
		clear(a.list[n:])
		a.list, a.head = a.list[:n], 0
	}
}

// read returns the first maxMsgs entries at addrs in (after, upTo], in log order. ok is
// false when the ring does not reach back to after.
func (r *ring) read(addrs []im.Address, after, upTo uint64, maxMsgs int) (entries []*im.Entry, next uint64, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if after < r.floor {
		return nil, after, false
	}
	next = upTo
	sources := 0
	for _, addr := range addrs {
		a := r.byAddr[addr]
		if a == nil {
			continue
		}
		alive := a.list[a.head:]
		from := sort.Search(len(alive), func(i int) bool { return alive[i].Seq > after })
		taken := 0
		for _, e := range alive[from:] {
			if e.Seq > upTo || taken == maxMsgs {
				break
			}
			entries = append(entries, e)
			taken++
		}
		if taken > 0 {
			sources++
		}
	}
	if sources > 1 {
		sort.Slice(entries, func(i, j int) bool { return entries[i].Seq < entries[j].Seq })
	}
	if len(entries) >= maxMsgs {
		clear(entries[maxMsgs:])
		entries = entries[:maxMsgs]
		next = entries[maxMsgs-1].Seq
	}
	return entries, next, true
}
