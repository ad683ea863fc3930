package msglog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/slimchat/slimchat/im"
)

const (
	// scanPerAddress: reading a stretch of the whole log and dropping what is not asked
	// for is cheaper than asking for each address while the stretch is shorter than this
	// for each of them.
	scanPerAddress = 2
	// scanProbe is how much of the log is read to find out how much of it is asked for.
	scanProbe = 256
	// batchStretch: for a batch the server counts what is left, which takes it through
	// every block up to the end. Further back than this, single messages are cheaper.
	batchStretch = 200_000
)

// Read returns the entries at any of addrs in (after, upTo], in log order: at most
// maxMsgs, and about maxBytes of stored size but at least one. next is the position up to
// which the answer is complete: a caller that has taken entries continues after it, and
// next == upTo when there is nothing more. upTo beyond Position is reduced to it. It takes
// one of the connections for reading and waits for it, so callers should bound how many
// reads they begin.
func (l *Log) Read(ctx context.Context, addrs []im.Address, after, upTo uint64, maxMsgs, maxBytes int) (entries []*im.Entry, next uint64, err error) {
	upTo = min(upTo, l.Position())
	if after >= upTo || len(addrs) == 0 {
		return nil, max(after, upTo), nil
	}
	addrs = l.recent.filter(addrs, after)
	if len(addrs) == 0 {
		return nil, upTo, nil
	}
	p := page{l: l, maxMsgs: max(maxMsgs, 1), maxBytes: max(maxBytes, 1), next: after}
	switch {
	case len(addrs) > 1:
		err = l.readMany(ctx, addrs, upTo, &p)
	case upTo-after <= batchStretch:
		err = l.readBatch(ctx, im.SubjectFilter(addrs[0]), upTo, &p)
	default:
		err = l.readHeads(ctx, addrs, upTo, &p)
	}
	if err != nil {
		return nil, after, err
	}
	return p.entries, p.next, nil
}

// page gathers the answer of one Read.
type page struct {
	l                 *Log
	maxMsgs, maxBytes int
	entries           []*im.Entry
	n, size           int
	next              uint64 // the answer is complete up to here
}

// add takes the next entry and tells whether there is room for another.
func (p *page) add(r rawEntry) bool {
	if e := p.l.decode(r); e != nil {
		p.entries = append(p.entries, e)
	}
	p.n++
	p.size += len(r.data)
	p.next = r.seq
	return !p.full()
}

func (p *page) full() bool { return p.n >= p.maxMsgs || p.size >= p.maxBytes }

// readBatch reads one address by one batch.
func (l *Log) readBatch(ctx context.Context, filter string, upTo uint64, p *page) error {
	full := false
	res, err := l.get(ctx, StreamName, []getRequest{{nextFor: filter, seq: p.next + 1, batch: p.maxMsgs, maxBytes: p.maxBytes}},
		func(_ int, e rawEntry) {
			if !full && e.seq <= upTo {
				full = !p.add(e)
			}
		})
	if err == nil && (res[0].pending == 0 && !full || res[0].last > upTo) {
		p.next = upTo
	}
	return err
}

// readHeads merges the addresses message by message.
func (l *Log) readHeads(ctx context.Context, addrs []im.Address, upTo uint64, p *page) error {
	filters := make([]string, len(addrs))
	for i, a := range addrs {
		filters[i] = im.SubjectFilter(a)
	}
	ended, err := l.walkForward(ctx, l.readers, filters, p.next, upTo, p.add)
	if ended && err == nil {
		p.next = upTo
	}
	return err
}

// readMany reads the log as it stands and keeps what is addressed to addrs, as long as
// that promises to be cheaper than to ask for each address.
func (l *Log) readMany(ctx context.Context, addrs []im.Address, upTo uint64, p *page) error {
	wanted := make(map[string]struct{}, len(addrs))
	for _, a := range addrs {
		wanted[strings.TrimSuffix(im.SubjectFilter(a), ".*")] = struct{}{}
	}
	budget := uint64(scanPerAddress*len(addrs) + scanProbe)
	begin, size := p.next, uint64(scanProbe)
	for p.next < upTo {
		// What is left to read until the page is full, by the density seen so far.
		scanned := p.next - begin
		left := upTo - p.next
		if scanned > 0 {
			left = min(left, uint64(p.maxMsgs-p.n)*scanned/uint64(max(p.n, 1)))
		}
		if scanned > 0 && left > budget {
			return l.readHeads(ctx, addrs, upTo, p)
		}
		at, full := p.next, false
		res, err := l.get(ctx, StreamName, []getRequest{{seq: at + 1, batch: int(min(upTo-at, size)), maxBytes: scanBytes}},
			func(_ int, e rawEntry) {
				if _, ok := wanted[inboxOf(e.subject)]; ok && e.seq <= upTo && !full {
					full = !p.add(e)
				}
			})
		if err != nil || full {
			return err
		}
		if p.next = min(res[0].last, upTo); res[0].n == 0 {
			p.next = upTo
		}
		size = min(2*size, scanPage)
	}
	return nil
}

// decode never fails for what Append stored. What it cannot read is skipped and logged, so
// that one bad entry does not stop a client's reading for ever.
func (l *Log) decode(r rawEntry) *im.Entry {
	e, err := r.entry()
	if err != nil {
		l.log.Error("skipping an entry that cannot be read", "seq", r.seq, "subject", r.subject, "error", err)
		return nil
	}
	return e
}

// PositionAt is the position before the first entry stored at or after t.
func (l *Log) PositionAt(ctx context.Context, t time.Time) (uint64, error) {
	pos := l.Position()
	_, err := l.get(ctx, StreamName, []getRequest{{startTime: t, batch: 1}}, func(_ int, e rawEntry) {
		if e.seq > 0 {
			pos = min(pos, e.seq-1)
		}
	})
	if err != nil {
		return 0, fmt.Errorf("position at %s: %w", t.Format(time.RFC3339), err)
	}
	return pos, nil
}
