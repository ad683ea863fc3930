package router

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/slimchat/slimchat/im"
)

const limiterShards = 64

// limiter is a token bucket for each client. Buckets that are full again are forgotten,
// so that memory follows the clients that are active. It is safe for concurrent use.
type limiter struct {
	rate, burst float64 // messages a second, messages
	seed        maphash.Seed
	now         func() time.Time
	shards      [limiterShards]limiterShard
}

type limiterShard struct {
	mu      sync.Mutex
	buckets map[im.SessionKey]bucket
	sweep   int // size at which the next sweep is due
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newLimiter(rate, burst int) *limiter {
	l := &limiter{rate: float64(rate), burst: float64(max(burst, 1)), seed: maphash.MakeSeed(), now: time.Now}
	for i := range l.shards {
		l.shards[i] = limiterShard{buckets: make(map[im.SessionKey]bucket), sweep: 256}
	}
	return l
}

// take takes one token of a client; false when there is none.
func (l *limiter) take(key im.SessionKey) bool {
	if l.rate <= 0 {
		return true // no limit
	}
	now := l.now()
	s := &l.shards[maphash.Comparable(l.seed, key)%limiterShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.buckets[key]
	if !ok {
		b = bucket{tokens: l.burst, at: now}
		if len(s.buckets) >= s.sweep {
			l.forget(s, now)
		}
	}
	b = l.refill(b, now)
	allowed := b.tokens >= 1
	if allowed {
		b.tokens--
	}
	s.buckets[key] = b
	return allowed
}

func (l *limiter) refill(b bucket, now time.Time) bucket {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(l.burst, b.tokens+d.Seconds()*l.rate)
		b.at = now
	}
	return b
}

func (l *limiter) forget(s *limiterShard, now time.Time) {
	for k, b := range s.buckets {
		if l.refill(b, now).tokens >= l.burst {
			delete(s.buckets, k)
		}
	}
	s.sweep = max(256, 2*len(s.buckets))
}
