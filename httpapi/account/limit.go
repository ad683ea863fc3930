package account

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"github.com/slimchat/slimchat/im"
)

// TooManyError is a refusal because of too many attempts. It unwraps to an *im.Error with
// im.CodeRateLimited or im.CodeUnavailable.
type TooManyError struct {
	After time.Duration // when to try again
	Err   *im.Error
}

// Error implements error.
func (e *TooManyError) Error() string { return e.Err.Error() }

// Unwrap returns the *im.Error.
func (e *TooManyError) Unwrap() error { return e.Err }

// errBusy says that more passwords are to be checked than can be in a reasonable time.
var errBusy error = &TooManyError{
	After: 2 * time.Second,
	Err:   im.Errorf(im.CodeUnavailable, "", "too many logins at this moment"),
}

// bucketsKept bounds the memory of one set of buckets to some 20 MB; those not used for
// longest are forgotten, which forgives them.
const bucketsKept = 100_000

// buckets are token buckets by key: each holds burst tokens and gets one back every so often.
type buckets[K comparable] struct {
	burst float64
	every time.Duration

	mu    sync.Mutex
	byKey map[K]*list.Element
	order *list.List // the one used last comes first
}

type bucket[K comparable] struct {
	key    K
	tokens float64
	at     time.Time // when tokens was right
	good   bool      // a login has succeeded
}

func newBuckets[K comparable](burst int, every time.Duration) *buckets[K] {
	return &buckets[K]{burst: float64(burst), every: every, byKey: make(map[K]*list.Element), order: list.New()}
}

// with runs fn on the key's bucket as it is now.
func (b *buckets[K]) with(key K, now time.Time, fn func(*bucket[K])) {
	b.mu.Lock()
	defer b.mu.Unlock()
	element, ok := b.byKey[key]
	if !ok {
		element = b.order.PushFront(&bucket[K]{key: key, tokens: b.burst, at: now})
		b.byKey[key] = element
		if b.order.Len() > bucketsKept {
			oldest := b.order.Back()
			if gone, ok := b.order.Remove(oldest).(*bucket[K]); ok {
				delete(b.byKey, gone.key)
			}
		}
	}
	b.order.MoveToFront(element)
	if k, ok := element.Value.(*bucket[K]); ok {
		k.tokens = min(b.burst, k.tokens+float64(now.Sub(k.at))/float64(b.every))
		k.at = now
		fn(k)
	}
}

// take takes a token, or tells how long until there is one.
func (b *buckets[K]) take(key K, now time.Time) (wait time.Duration) {
	b.with(key, now, func(k *bucket[K]) {
		if k.tokens >= 1 {
			k.tokens--
			return
		}
		wait = time.Duration((1 - k.tokens) * float64(b.every))
	})
	return wait
}

// peek tells how long until there is a token, without taking it. It remembers nothing of a
// key that it has not met, so that made-up names push nobody out.
func (b *buckets[K]) peek(key K, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	_, met := b.byKey[key]
	b.mu.Unlock()
	if met {
		b.with(key, now, func(k *bucket[K]) { wait = max(0, time.Duration((1-k.tokens)*float64(b.every))) })
	}
	return wait
}

// give returns a token.
func (b *buckets[K]) give(key K, now time.Time) {
	b.with(key, now, func(k *bucket[K]) { k.tokens = min(b.burst, k.tokens+1) })
}

// pair is an account as tried from one address.
type pair struct {
	name string
	from netip.Addr
}

// guard limits logins. Failures first: what somebody tries from one address slows that address down
// for that account, never the account for others. Against guessing from many addresses the
// account as a whole has a generous limit, which does not hold for addresses from which a
// login has succeeded before, nor for clients that have a token.
//
// Successes have a limit for each account as well, since each costs a hash, a row and a
// revocation that every process hears of. Only those who have the password can use it up.
type guard struct {
	now      func() time.Time
	pairs    *buckets[pair]
	address  *buckets[netip.Addr]
	accounts *buckets[string]
	entered  *buckets[im.Address] // successes of a user or node
}

func newGuard(logins, successes int, now func() time.Time) *guard {
	return &guard{
		now:      now,
		pairs:    newBuckets[pair](logins, 10*time.Second),
		address:  newBuckets[netip.Addr](10*logins, time.Second),
		accounts: newBuckets[string](20*logins, 3*time.Second),
		entered:  newBuckets[im.Address](successes, time.Second),
	}
}

// mayEnter tells whether the owner has a success left, before anything dear is done for it.
func (g *guard) mayEnter(owner im.Address) error {
	if wait := g.entered.peek(owner, g.now()); wait > 0 {
		return tooMany(wait)
	}
	return nil
}

// enter counts a success.
func (g *guard) enter(owner im.Address) error {
	if wait := g.entered.take(owner, g.now()); wait > 0 {
		return tooMany(wait)
	}
	return nil
}

// attempt is a login under way.
type attempt struct {
	guard *guard
	pair  pair
	known bool
}

// begin counts an attempt as failed, or refuses it. Attempts made at the same moment are
// thereby counted before any of them is judged.
func (g *guard) begin(name string, remote netip.Addr) (*attempt, error) {
	a := &attempt{guard: g, pair: pair{name, network(remote)}}
	now := g.now()
	wait := g.address.take(a.pair.from, now)
	if wait > 0 {
		return nil, tooMany(wait)
	}
	if wait = g.pairs.take(a.pair, now); wait > 0 {
		g.address.give(a.pair.from, now)
		return nil, tooMany(wait)
	}
	g.pairs.with(a.pair, now, func(k *bucket[pair]) { a.known = k.good })
	if a.known {
		return a, nil
	}
	if wait = g.accounts.take(name, now); wait > 0 {
		g.address.give(a.pair.from, now)
		g.pairs.give(a.pair, now)
		return nil, tooMany(wait)
	}
	return a, nil
}

// undo takes the attempt back: it was not judged.
func (a *attempt) undo() {
	now := a.guard.now()
	a.guard.address.give(a.pair.from, now)
	a.guard.pairs.give(a.pair, now)
	if !a.known {
		a.guard.accounts.give(a.pair.name, now)
	}
}

// succeed forgives the failures from this address.
func (a *attempt) succeed() {
	a.undo()
	a.guard.pairs.with(a.pair, a.guard.now(), func(k *bucket[pair]) {
		k.tokens, k.good = a.guard.pairs.burst, true
	})
}

func tooMany(wait time.Duration) error {
	return &TooManyError{
		After: wait,
		Err:   im.Errorf(im.CodeRateLimited, "", "too many attempts: try again later"),
	}
}

// network is what one party is taken to hold: an IPv4 address, or the /64 of an IPv6 one.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
