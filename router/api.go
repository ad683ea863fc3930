// Package router is the one entrance to the message log. Whatever protocol a message came
// by, Publish decides whether its verified sender may say it to that address, stamps it,
// appends it to the log, and reports when it is as durable as the domain promises.
package router

import (
	"context"
	"time"

	"github.com/slimchat/slimchat/im"
)

// Publish is one message on its way in.
type Publish struct {
	To      im.Address // parsed from the topic or the `to` field; the own domain's prefix is accepted
	Payload []byte     // the client's JSON; not retained after Router.Publish returns
	QoS     byte       // 0: a transient event is pushed and not stored; other messages are stored at any QoS
	// Again says that the sender may have sent this before (the DUP flag, or the first
	// publishes after a reconnect), so that the look for a duplicate goes further back.
	Again  bool
	Expiry time.Duration // not delivered after this time; 0 for never
	Props  im.Properties
	// IDOptional lets the router make up an id when the payload has none (REST).
	IDOptional bool
}

// Receipt tells what became of an accepted message.
type Receipt struct {
	ID        string
	TS        int64  // stamped broker time, Unix milliseconds
	Seq       uint64 // position in the log; 0 for a transient event
	Duplicate bool   // it was in the log already; nothing was appended
}

// Done reports the outcome of one Publish: err is nil once the message is in the log, as
// durable as configured, and an *im.Error when it was refused. It is called exactly once,
// perhaps before Publish returns, on any goroutine, and must not block. Outcomes may come
// in another order than the publishes.
type Done func(Receipt, error)

// Publisher is what the edges need of a Router.
type Publisher interface {
	// Publish hands in one message. It blocks only for back-pressure and cache misses,
	// until ctx ends. After the outcome of a burst, Flushed hooks of the log run.
	Publish(ctx context.Context, sender im.Principal, p Publish, done Done)
}
