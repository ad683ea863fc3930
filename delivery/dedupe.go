package delivery

import (
	"hash/maphash"
	"math"
	"sync"
	"time"

	"github.com/slimchat/slimchat/im"
)

// Window remembers which (sender, id) pairs the log got lately, and where. It holds
// hashes: a hit must be confirmed by reading the log at the position it gives. Memory is
// bounded by two generations of at most half the entry limit each; a generation is also
// retired when it is older than the window. It is safe for concurrent use.
type Window struct {
	seed   maphash.Seed
	age    time.Duration
	limit  int // per generation
	now    func() time.Time
	mu     sync.RWMutex
	young  map[uint64]uint64
	old    map[uint64]uint64
	opened time.Time // when the young generation began

	// Once the tail fills the window, each generation holds everything after a position.
	tailed             uint64
	youngFrom, oldFrom uint64
}

// NewWindow makes a window that remembers for at least age, unless more than entries
// messages come in that time: then for about the newest half of entries and more.
func NewWindow(age time.Duration, entries int) *Window {
	return &Window{
		seed: maphash.MakeSeed(), age: age, limit: max(entries/2, 1), now: time.Now,
		young: make(map[uint64]uint64), opened: time.Now(), oldFrom: math.MaxUint64,
	}
}

// follow says that the tail is going to note everything after a position.
func (w *Window) follow(after uint64) {
	w.mu.Lock()
	w.tailed, w.youngFrom, w.oldFrom = after, after, after
	w.mu.Unlock()
}

// Floor is a position after which the window has every message that is in the log: what it
// does not know can only stand at or before it. It is the largest position there is when
// no tail fills the window.
func (w *Window) Floor() uint64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.oldFrom
}

func (w *Window) hash(sender im.Address, id string) uint64 {
	var h maphash.Hash
	h.SetSeed(w.seed)
	_, _ = h.WriteString(sender.Domain)
	_ = h.WriteByte(byte(sender.Kind))
	_, _ = h.WriteString(sender.ID)
	_ = h.WriteByte('/') // no id contains it
	_, _ = h.WriteString(id)
	return h.Sum64()
}

// Note remembers that the log has (sender, id) at position seq.
func (w *Window) Note(sender im.Address, id string, seq uint64) {
	h := w.hash(sender, id)
	w.mu.Lock()
	w.noteLocked(h, seq)
	w.mu.Unlock()
}

func (w *Window) noteLocked(h, seq uint64) {
	if have, ok := w.young[h]; ok && have <= seq {
		return // the first one is the message; what comes later is its repetition
	}
	if len(w.young) >= w.limit || w.now().Sub(w.opened) > w.age {
		w.old, w.young, w.opened = w.young, make(map[uint64]uint64, min(len(w.young), w.limit)), w.now()
		if w.oldFrom != math.MaxUint64 {
			w.oldFrom, w.youngFrom = w.youngFrom, w.tailed
		}
	}
	w.young[h] = seq
}

// noteAll remembers a batch of the tail. Copies are no messages of their own.
func (w *Window) noteAll(batch []*im.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range batch {
		if !e.IsCopy() {
			w.noteLocked(w.hash(e.From, e.ID), e.Seq)
		}
		w.tailed = e.Seq
	}
}

// Lookup returns the position that the log may have (sender, id) at.
func (w *Window) Lookup(sender im.Address, id string) (seq uint64, ok bool) {
	h := w.hash(sender, id)
	w.mu.RLock()
	defer w.mu.RUnlock()
	if seq, ok = w.young[h]; ok {
		return seq, true
	}
	seq, ok = w.old[h]
	return seq, ok
}
