package msglog

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slimchat/slimchat/im"
)

const (
	// scanPerAddress: reading a stretch of the whole log and dropping what is not asked
	// for is cheaper than asking for each address while the stretch is shorter than this
	// for each of them.
	scanPerAddress = 24
	minPage        = 8
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
	maxMsgs, maxBytes = max(maxMsgs, 1), max(maxBytes, 1)
	addrs, known := l.recent.filter(addrs, after)
	if len(addrs) == 0 {
		return nil, upTo, nil
	}
	if len(addrs) > 1 && upTo-after <= uint64(scanPerAddress*len(addrs)) {
		return l.readScan(ctx, addrs, after, upTo, maxMsgs, maxBytes)
	}
	if len(addrs) > 1 && !known {
		if addrs, err = l.changed(ctx, addrs, after, upTo); err != nil || len(addrs) == 0 {
			return nil, upTo, err
		}
	}
	return l.readPages(ctx, addrs, after, upTo, maxMsgs, maxBytes)
}

// changed asks the server which addresses have something in (after, upTo].
func (l *Log) changed(ctx context.Context, addrs []im.Address, after, upTo uint64) ([]im.Address, error) {
	reqs := make([]getRequest, len(addrs))
	for i, a := range addrs {
		reqs[i] = getRequest{nextFor: im.SubjectFilter(a), seq: after + 1}
	}
	var some []im.Address
	_, err := l.get(ctx, StreamName, reqs, func(i int, e rawEntry) {
		if e.seq <= upTo {
			some = append(some, addrs[i])
		}
	})
	return some, err
}

// readPages asks for a page of each address and merges the pages as far as all of them
// reach.
func (l *Log) readPages(ctx context.Context, addrs []im.Address, after, upTo uint64, maxMsgs, maxBytes int) ([]*im.Entry, uint64, error) {
	page := min(maxMsgs, max(minPage, 2*maxMsgs/len(addrs)))
	bytes := max(maxBytes/len(addrs)*2, 4096)
	reqs := make([]getRequest, len(addrs))
	for i, a := range addrs {
		reqs[i] = getRequest{nextFor: im.SubjectFilter(a), seq: after + 1, batch: page, maxBytes: bytes}
	}
	var raw []rawEntry
	results, err := l.get(ctx, StreamName, reqs, func(_ int, e rawEntry) {
		if e.seq <= upTo {
			raw = append(raw, e)
		}
	})
	if err != nil {
		return nil, after, err
	}
	next := upTo
	for _, r := range results {
		if r.pending > 0 {
			next = min(next, r.last)
		}
	}
	if len(addrs) > 1 {
		slices.SortFunc(raw, func(a, b rawEntry) int { return cmp.Compare(a.seq, b.seq) })
	}
	return l.cut(raw, next, maxMsgs, maxBytes)
}

// cut decodes what is complete, up to next, within the limits.
func (l *Log) cut(raw []rawEntry, next uint64, maxMsgs, maxBytes int) ([]*im.Entry, uint64, error) {
	out := make([]*im.Entry, 0, min(len(raw), maxMsgs))
	size := 0
	for i, r := range raw {
		if r.seq > next {
			break
		}
		if i > 0 && (i >= maxMsgs || size >= maxBytes) {
			return out, raw[i-1].seq, nil
		}
		size += len(r.data)
		if e := l.decode(r); e != nil {
			out = append(out, e)
		}
	}
	return out, next, nil
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

// readScan reads the whole log in (after, upTo] and keeps what is addressed to addrs.
func (l *Log) readScan(ctx context.Context, addrs []im.Address, after, upTo uint64, maxMsgs, maxBytes int) ([]*im.Entry, uint64, error) {
	wanted := make(map[string]struct{}, len(addrs))
	for _, a := range addrs {
		wanted[strings.TrimSuffix(im.SubjectFilter(a), ".*")] = struct{}{}
	}
	var raw []rawEntry
	size := 0
	for after < upTo && len(raw) < maxMsgs && size < maxBytes {
		n := int(min(upTo-after, scanPage))
		res, err := l.get(ctx, StreamName, []getRequest{{seq: after + 1, batch: n, maxBytes: scanBytes}}, func(_ int, e rawEntry) {
			if _, ok := wanted[inboxOf(e.subject)]; ok && e.seq <= upTo {
				raw = append(raw, e)
				size += len(e.data)
			}
		})
		if err != nil {
			return nil, after, err
		}
		if res[0].n == 0 {
			after = upTo
			break
		}
		after = min(res[0].last, upTo)
	}
	return l.cut(raw, after, maxMsgs, maxBytes)
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
