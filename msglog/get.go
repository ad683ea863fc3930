package msglog

import (
	"context"

	"github.com/slimchat/slimchat/im"
)

// Get returns the entry at a position, nil when there is none any more, or none yet that
// may be seen.
func (l *Log) Get(ctx context.Context, seq uint64) (*im.Entry, error) {
	if seq == 0 || seq > l.Position() {
		return nil, nil
	}
	var found *im.Entry
	_, err := l.get(ctx, StreamName, []getRequest{{seq: seq}}, func(_ int, e rawEntry) {
		if e.seq == seq {
			found = l.decode(e)
		}
	})
	return found, err
}
