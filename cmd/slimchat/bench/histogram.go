package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// The histogram's buckets: every power of two is cut into subBuckets equal ones, so a value is known to about 1.6 %.
const (
	subBits    = 6
	subBuckets = 1 << subBits
	topBits    = 42 // values from 2^42 ns (73 minutes) on share the last bucket
	buckets    = (topBits - subBits + 1) * subBuckets
)

// Histogram counts durations in buckets of logarithmic width. It is safe for concurrent use and never allocates.
type Histogram struct {
	counts [buckets]atomic.Int64
	sum    atomic.Int64
	most   atomic.Int64
}

// Record counts one duration in nanoseconds; a negative one counts as zero.
func (h *Histogram) Record(ns int64) {
	ns = max(ns, 0)
	h.counts[bucket(ns)].Add(1)
	h.sum.Add(ns)
	for {
		most := h.most.Load()
		if ns <= most || h.most.CompareAndSwap(most, ns) {
			return
		}
	}
}

func bucket(ns int64) int {
	if ns < subBuckets {
		return int(ns)
	}
	shift := bits.Len64(uint64(ns)) - subBits - 1
	return min((shift+1)*subBuckets+int(ns>>shift)-subBuckets, buckets-1)
}

// upper is the largest value of a bucket.
func upper(i int) int64 {
	if i < subBuckets {
		return int64(i)
	}
	shift := i/subBuckets - 1
	return int64(i%subBuckets+subBuckets+1)<<shift - 1
}

// Count is how many durations were recorded.
func (h *Histogram) Count() int64 {
	var n int64
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Quantile returns the duration that the share q (0 to 1) of all recorded ones does not exceed; 0 when there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	total := h.Count()
	rank := int64(q*float64(total) + 0.5)
	var seen int64
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			if seen += n; seen >= max(rank, 1) {
				return time.Duration(min(upper(i), h.most.Load()))
			}
		}
	}
	return 0
}

// Mean is the average.
func (h *Histogram) Mean() time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	return time.Duration(h.sum.Load() / n)
}

// Max is the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return time.Duration(h.most.Load()) }
