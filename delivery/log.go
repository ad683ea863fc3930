package delivery

import (
	"context"
	"time"

	"github.com/slimchat/slimchat/im"
)

// Log is what delivery needs of the message log. Positions are opaque but for their
// order: a later entry has a higher one.
type Log interface {
	// Position is the highest position whose entry may be seen, because it is durable.
	Position() uint64
	// PositionAt is the position before the first entry stored at or after t.
	PositionAt(ctx context.Context, t time.Time) (uint64, error)
	// Tail calls fn with the entries after a position, in order, as they become durable,
	// until ctx ends. It repairs gaps itself; an error means that it cannot go on.
	Tail(ctx context.Context, after uint64, fn func([]*im.Entry)) error
	// Read returns entries at any of addrs in (after, upTo], in order, at most maxMsgs
	// and about maxBytes. next is the position up to which the answer is complete.
	Read(ctx context.Context, addrs []im.Address, after, upTo uint64, maxMsgs, maxBytes int) (entries []*im.Entry, next uint64, err error)

	// LoadSession returns the record of a client, nil when there is none.
	LoadSession(ctx context.Context, key im.SessionKey) ([]byte, error)
	// ListSessions returns the records of all clients of an owner by client id.
	ListSessions(ctx context.Context, owner im.Address) (map[string][]byte, error)
	// StoreSessions writes records; a nil record deletes.
	StoreSessions(ctx context.Context, records map[im.SessionKey][]byte) error
}
