package router

import (
	"context"

	"github.com/slimchat/slimchat/im"
)

// Log is what the router needs of the message log.
type Log interface {
	// Append commits a record and reports its position once it is as durable as
	// configured. It blocks for back-pressure until ctx ends. done is called exactly
	// once and must not block; when Append itself returns an error, it never is.
	Append(ctx context.Context, rec im.Record, done func(seq uint64, err error)) error
	// Get returns the entry at a position, nil when there is none any more.
	Get(ctx context.Context, seq uint64) (*im.Entry, error)
	// FindUpTo looks for a message of sender with this id among the last limit messages
	// that sender sent to an address, at and before a position; nil when it is not there.
	FindUpTo(ctx context.Context, sender im.Address, id string, to im.Address, upTo uint64, limit int) (*im.Entry, error)
}

// Directory answers who exists. Its answers may be cached by the router for a minute;
// Router.Evict makes it ask again.
type Directory interface {
	// Exists tells whether a local user, client or node exists.
	Exists(ctx context.Context, a im.Address) (bool, error)
	// Clients is the number of clients that a user has logged in.
	Clients(ctx context.Context, uid string) (int, error)
}

// Window remembers which messages the log got lately. A hit is a hint, which the router
// confirms by reading the log.
type Window interface {
	Lookup(sender im.Address, id string) (seq uint64, ok bool)
	Note(sender im.Address, id string, seq uint64)
	// Floor is a position after which the window has every message of the log.
	Floor() uint64
}

// Pusher hands transient events to the clients that are online.
type Pusher interface {
	PushTransient(to im.Address, event im.Envelope) int
}
