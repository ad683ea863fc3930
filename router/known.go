package router

import (
	"context"
	"sync"
	"time"

	"github.com/slimchat/slimchat/im"
)

const (
	knownFor   = time.Minute // an address that exists
	unknownFor = time.Second // one that does not: it may be created at any moment
	knownLimit = 1 << 18     // addresses remembered
)

// known caches the Directory. It is bounded, and safe for concurrent use. An answer that
// was being fetched while its user was evicted is not kept.
type known struct {
	dir Directory
	now func() time.Time

	mu      sync.RWMutex
	addrs   map[im.Address]knownAddress
	evicted uint64 // counts evictions
}

type knownAddress struct {
	exists  bool
	clients int // of a user; -1 when not asked yet
	until   time.Time
}

func newKnown(dir Directory) *known {
	return &known{dir: dir, now: time.Now, addrs: make(map[im.Address]knownAddress)}
}

// exists tells whether a local address exists.
func (k *known) exists(ctx context.Context, a im.Address) (bool, error) {
	if have, ok := k.lookup(a); ok {
		return have.exists, nil
	}
	mark := k.mark()
	exists, err := k.dir.Exists(ctx, a)
	if err != nil {
		return false, err
	}
	ttl := knownFor
	if !exists {
		ttl = unknownFor
	}
	k.keep(mark, a, knownAddress{exists: exists, clients: -1, until: k.now().Add(ttl)})
	return exists, nil
}

// clients is how many clients a user has.
func (k *known) clients(ctx context.Context, uid string) (int, error) {
	a := im.User(uid)
	if have, ok := k.lookup(a); ok && have.clients >= 0 {
		return have.clients, nil
	}
	mark := k.mark()
	n, err := k.dir.Clients(ctx, uid)
	if err != nil {
		return 0, err
	}
	if n > 0 { // else the user may be gone: exists must ask
		k.keep(mark, a, knownAddress{exists: true, clients: n, until: k.now().Add(knownFor)})
	}
	return n, nil
}

func (k *known) lookup(a im.Address) (knownAddress, bool) {
	k.mu.RLock()
	have, ok := k.addrs[a]
	k.mu.RUnlock()
	return have, ok && k.now().Before(have.until)
}

func (k *known) mark() uint64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.evicted
}

func (k *known) keep(mark uint64, a im.Address, v knownAddress) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.evicted != mark {
		return
	}
	if len(k.addrs) >= knownLimit {
		k.shrinkLocked()
	}
	k.addrs[a] = v
}

// shrinkLocked drops what has expired, and an arbitrary half of the rest if need be.
func (k *known) shrinkLocked() {
	now := k.now()
	for a, v := range k.addrs {
		if now.After(v.until) {
			delete(k.addrs, a)
		}
	}
	if len(k.addrs) < knownLimit/2 {
		return
	}
	n := 0
	for a := range k.addrs {
		if n++; n%2 == 0 {
			delete(k.addrs, a)
		}
	}
}

// evict forgets addresses.
func (k *known) evict(addrs ...im.Address) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.evicted++
	for _, a := range addrs {
		delete(k.addrs, a)
	}
}

// evictAll forgets everything.
func (k *known) evictAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.evicted++
	clear(k.addrs)
}
