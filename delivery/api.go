// Package delivery brings the log to the clients, whatever their protocol. A client is a
// cursor into the log. One tail per process reads the log as it grows and hands each
// message to the sessions that follow its address; what a session could not take then, it
// reads later from the tail's ring or from the log, at the pace of its in-flight window.
package delivery

import (
	"context"
	"errors"

	"github.com/slimchat/slimchat/im"
)

// CloseReason tells a connection why the engine ends it.
type CloseReason uint8

// The reasons.
const (
	CloseTakenOver CloseReason = iota + 1 // another connection of the same client came
	CloseRevoked                          // its login was revoked
	CloseShutdown                         // the process is stopping
	CloseInternal                         // the session could not go on
)

// Push is one message for one connection.
type Push struct {
	Entry    *im.Entry // shared with other sessions; read only
	PacketID uint16    // 1..65535 at QoS 1; 0 at QoS 0
	QoS      byte
	Dup      bool // this connection's session was sent it before
	// Transient marks an event that is not in the log: Entry.Seq is 0.
	Transient bool
}

// Conn is the edge's side of a session. The engine calls it with the session locked, so
// an implementation must neither block nor call back into the Session.
type Conn interface {
	// Push takes one message for sending. It returns false, taking nothing, when its
	// output buffer has no room; it must then call Session.Ready once there is room. It
	// returns false as well once the connection is ending, with Session.Detach to follow.
	Push(Push) bool
	// Flush is called after one or more Push calls.
	Flush()
	// Close ends the connection. The edge calls Session.Detach as it goes.
	Close(CloseReason)
}

// Subscription is a filter and the QoS asked for.
type Subscription struct {
	Filter  im.Filter
	QoS     byte
	NoLocal bool // MQTT 5: not what this client itself sent
}

// Grant answers one Subscription.
type Grant struct {
	QoS byte
	Err *im.Error // set when refused: the filter can match nothing of the client's
	New bool      // there was no subscription with this filter
}

// AttachOptions describe a connection that takes up a client's session.
type AttachOptions struct {
	Principal im.Principal
	Clean     bool   // discard subscriptions and in-flight state first
	Expiry    uint32 // seconds that subscriptions outlive the connection; 0xFFFFFFFF for ever
	Window    int    // the client's receive maximum; the engine caps it
	Conn      Conn
}

// Errors of Attach.
var (
	ErrStopping = errors.New("delivery: stopping")
	ErrBusy     = errors.New("delivery: too many sessions are being opened")
)

// Edge is what a protocol gateway needs of the Engine.
type Edge interface {
	// Attach takes up the durable session of a client, ending any other connection that
	// has it. present tells whether subscriptions were kept from before. Nothing is
	// pushed before Session.Start.
	Attach(ctx context.Context, o AttachOptions) (s *Session, present bool, err error)
}

// The methods of *Session that an edge uses; all are safe for concurrent use:
//
//	Start()                                     begin to push
//	Subscribe(ctx, []Subscription) []Grant      replaces equal filters
//	Unsubscribe(ctx, []im.Filter) []bool        which of them existed
//	Ack(packetID uint16) bool                   a PUBACK; false for an unknown id
//	Ready()                                     the connection has room again
//	Detach(ctx, expiry uint32)                  the connection is gone; flushes the cursor
//	SendTransient(body []byte) bool             push an event to this client alone, if subscribed
