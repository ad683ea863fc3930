package msglog

import (
	"hash/maphash"
	"strings"
	"sync"

	"github.com/slimchat/slimchat/im"
)

// recent remembers the last position of every address that got something in the recent
// part of the log, so that a reader who has missed nothing costs no request. It is
// complete for positions after its floor. An address is a 64-bit hash: two that collide
// cost a request in vain now and then, never an entry.
type recent struct {
	mu       sync.RWMutex
	seed     maphash.Seed
	young    map[uint64]uint64
	old      map[uint64]uint64
	floor    uint64 // nothing is known about positions up to here
	youngest uint64 // where young begins
	max      int
}

// recentAddresses bounds each of the two generations, about 40 bytes an address.
const recentAddresses = 500_000

func newRecent(floor uint64, max int) *recent {
	return &recent{
		seed: maphash.MakeSeed(), young: make(map[uint64]uint64), floor: floor, youngest: floor, max: max,
	}
}

// inboxOf is the part of a subject that names the address: all but the peer.
func inboxOf(subject string) string {
	if strings.HasPrefix(subject, im.SubjectRoot+".room.") {
		return subject
	}
	if i := strings.LastIndexByte(subject, '.'); i >= 0 {
		return subject[:i]
	}
	return subject
}

// addGroup notes the positions of a committed group.
func (r *recent) addGroup(items []item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range items {
		it := &items[i]
		r.add(it.rec.Subject, it.seq)
		if it.rec.CopySubject != "" {
			r.add(it.rec.CopySubject, it.copy)
		}
	}
}

func (r *recent) add(subject string, seq uint64) {
	h := maphash.String(r.seed, inboxOf(subject))
	if r.young[h] < seq {
		r.young[h] = seq
	}
	if len(r.young) >= r.max {
		r.floor, r.youngest = r.youngest, seq
		r.old, r.young = r.young, make(map[uint64]uint64, r.max/4)
	}
}

// filter returns those of the addresses that may have something after a position, all of
// them when that is too long ago to tell.
func (r *recent) filter(addrs []im.Address, after uint64) []im.Address {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if after < r.floor {
		return addrs
	}
	var some []im.Address
	for _, a := range addrs {
		h := maphash.String(r.seed, strings.TrimSuffix(im.SubjectFilter(a), ".*"))
		if r.young[h] > after || r.old[h] > after {
			some = append(some, a)
		}
	}
	return some
}
