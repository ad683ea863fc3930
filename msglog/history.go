package msglog

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"

	"github.com/slimchat/slimchat/im"
)

// HistoryQuery asks for a part of a conversation.
type HistoryQuery struct {
	// Me and With are the two ends; when With is a room, Me does not matter.
	Me, With im.Address
	// Before and After bound the positions, both exclusive; 0 leaves that end open. With
	// After alone the answer holds the entries that follow it, otherwise the newest.
	Before, After uint64
	Limit         int // how many entries; 50 by default
	// Match, when set, keeps only entries for which it is true. At most MaxScan entries,
	// by default 20 times Limit, are then looked at.
	Match   func(*im.Entry) bool
	MaxScan int
}

const (
	defaultHistory = 50
	// windowGrowth is by how much a look back widens while it finds too little, and
	// windowShrink by how much it narrows when it finds far too much.
	windowGrowth = 4
	windowShrink = 8
)

// subjects are those that the conversation is stored at: one for a room, else one for each
// direction.
func (q *HistoryQuery) subjects() []string {
	if q.With.Kind == im.KindRoom || q.Me == q.With {
		return []string{im.Subject(q.With, q.Me)}
	}
	return []string{im.Subject(q.With, q.Me), im.Subject(q.Me, q.With)}
}

// History returns a part of a conversation, newest first, without the copies that senders
// keep. more is the position to go on from in the same direction, as the next Before, or
// the next After when only that was given; it is 0 when there is nothing further.
//
// The cost depends on the answer, not on the size of the conversation or of the log: what
// lies between its entries is skipped block by block.
func (l *Log) History(ctx context.Context, q HistoryQuery) (entries []*im.Entry, more uint64, err error) {
	if q.Limit <= 0 {
		q.Limit = defaultHistory
	}
	if q.MaxScan <= 0 {
		q.MaxScan = 20 * q.Limit
	}
	scanned := 0
	visit := func(r rawEntry) bool {
		scanned++
		if e := l.decode(r); e != nil && !e.IsCopy() && (q.Match == nil || q.Match(e)) {
			entries = append(entries, e)
		}
		more = r.seq
		return len(entries) < q.Limit && scanned < q.MaxScan
	}
	hi := l.Position()
	if q.Before > 0 {
		hi = min(hi, q.Before-1)
	}
	var ended bool
	if q.After > 0 && q.Before == 0 {
		ended, err = l.walkForward(ctx, l.historians, q.subjects(), q.After, hi, visit)
		slices.Reverse(entries)
	} else {
		ended, err = l.walkBack(ctx, l.historians, q.subjects(), q.After, hi, q.Limit, visit)
	}
	if err != nil {
		return nil, 0, err
	}
	if ended {
		more = 0
	}
	return entries, more, nil
}

// Find looks back for the message of a sender with an id, among the last limit messages
// of what the sender wrote to an address (of the whole room, when it is one). It returns
// nil when there is none.
func (l *Log) Find(ctx context.Context, sender im.Address, id string, to im.Address, limit int) (*im.Entry, error) {
	return l.find(ctx, l.historians, sender, id, to, math.MaxUint64, limit)
}

// FindUpTo is Find among the messages at and before a position. It does not wait for those
// who read history.
func (l *Log) FindUpTo(ctx context.Context, sender im.Address, id string, to im.Address, upTo uint64, limit int) (*im.Entry, error) {
	return l.find(ctx, l.readers, sender, id, to, upTo, limit)
}

func (l *Log) find(ctx context.Context, pool *readerPool, sender im.Address, id string, to im.Address, upTo uint64, limit int) (*im.Entry, error) {
	var found *im.Entry
	n := 0
	_, err := l.walkBack(ctx, pool, []string{im.Subject(to, sender)}, 0, min(upTo, l.Position()), min(limit, 256), func(r rawEntry) bool {
		n++
		if e := l.decode(r); e != nil && !e.IsCopy() && e.ID == id && e.From == sender {
			found = e
		}
		return found == nil && n < limit
	})
	return found, err
}

// walkForward visits the entries of a few exact subjects in (lo, hi], oldest first, until
// visit returns false. ended tells that it came to the end.
func (l *Log) walkForward(ctx context.Context, pool *readerPool, subjects []string, lo, hi uint64, visit func(rawEntry) bool) (ended bool, err error) {
	heads, err := l.heads(ctx, pool, subjects, lo)
	for err == nil {
		least := -1
		for i, h := range heads {
			if h.seq > 0 && h.seq <= hi && (least < 0 || h.seq < heads[least].seq) {
				least = i
			}
		}
		if least < 0 {
			return true, nil
		}
		h := heads[least]
		if !visit(h) {
			return false, nil
		}
		var next []rawEntry
		next, err = l.heads(ctx, pool, subjects[least:least+1], h.seq)
		if err == nil {
			heads[least] = next[0]
		}
	}
	return false, err
}

// heads returns the first entry after a position of each subject; seq is 0 where there is
// none. It asks for single messages, because for a batch the server counts what is left,
// which may take it through every later block of the log.
func (l *Log) heads(ctx context.Context, pool *readerPool, subjects []string, after uint64) ([]rawEntry, error) {
	out := make([]rawEntry, len(subjects))
	reqs := make([]getRequest, len(subjects))
	for i, s := range subjects {
		reqs[i] = getRequest{nextFor: s, seq: after + 1}
	}
	_, err := l.getBy(ctx, pool, StreamName, reqs, func(i int, e rawEntry) { out[i] = e })
	return out, err
}

// walkBack visits the entries of a few exact subjects in (lo, hi], newest first, until
// visit returns false. It reads windows forward, each before the last, which widen while
// they hold little; page is how many entries the caller is likely to want. ended tells
// that it came to the beginning.
func (l *Log) walkBack(ctx context.Context, pool *readerPool, subjects []string, lo, hi uint64, page int, visit func(rawEntry) bool) (ended bool, err error) {
	if hi >= l.Position() {
		if hi, err = l.lastOf(ctx, pool, subjects, hi); err != nil {
			return false, err
		}
	}
	most := 4 * page
	for width := uint64(most); hi > lo; {
		from := lo
		if hi-lo > width {
			from = hi - width
		}
		var found []rawEntry
		full, err := l.walkForward(ctx, pool, subjects, from, hi, func(r rawEntry) bool {
			found = append(found, r)
			return len(found) <= most
		})
		if err != nil {
			return false, err
		}
		if !full && width > uint64(most) {
			width = max(width/windowShrink, uint64(most))
			continue
		}
		for i := len(found) - 1; i >= 0; i-- {
			if !visit(found[i]) {
				return false, nil
			}
		}
		if hi = from; len(found) < page {
			width *= windowGrowth
		}
	}
	return true, nil
}

// lastOf returns the last position of any of the subjects, but at most hi.
func (l *Log) lastOf(ctx context.Context, pool *readerPool, subjects []string, hi uint64) (uint64, error) {
	last := uint64(0)
	_, err := l.getBy(ctx, pool, StreamName, []getRequest{{multiLast: subjects}}, func(_ int, e rawEntry) { last = max(last, e.seq) })
	if errors.Is(err, errTooMany) {
		return hi, nil
	}
	return min(last, hi), err
}

// pairWindow is how many positions back recoverPairs looks: all that can be on its way at
// one moment, and then some.
const pairWindow = 2 * groupsAhead * groupMsgs

// recoverPairs completes what a crash cut in half: messages at the end of the log whose
// copy for the sender's other clients is missing. None of them was acknowledged. It
// returns the new end of the log.
func (l *Log) recoverPairs(ctx context.Context, last uint64, store func(subject string, data []byte) (uint64, error)) (uint64, error) {
	// In the last PerAddress positions the limit cannot have taken a copy.
	window := uint64(min(pairWindow, l.opts.PerAddress))
	raw, err := l.scan(ctx, last-min(last, window), last)
	if err != nil {
		return 0, err
	}
	type key struct {
		from im.Address
		id   string
	}
	missing := make(map[key]*im.Entry)
	for _, r := range raw {
		e := l.decode(r)
		switch {
		case e == nil:
		case e.Flags&im.FlagHasCopy != 0:
			missing[key{e.From, e.ID}] = e
		case e.IsCopy():
			delete(missing, key{e.From, e.ID})
		}
	}
	var half []*im.Entry
	for _, e := range missing {
		half = append(half, e)
	}
	slices.SortFunc(half, func(a, b *im.Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, e := range half {
		env := e.Envelope
		env.Flags = env.Flags&^im.FlagHasCopy | im.FlagCopy
		if last, err = store(im.Subject(e.From, e.From), env.Append(nil)); err != nil {
			return 0, err
		}
		l.log.Info("completed a message whose copy was missing", "seq", e.Seq, "copy", last)
	}
	return last, nil
}
