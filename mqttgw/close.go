package mqttgw

import (
	"context"
	"errors"
	"time"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// endCause says why a connection ends; the first one counts.
type endCause uint8

const (
	endGone           endCause = iota // the network connection went away
	endDisconnect                     // DISCONNECT, normal
	endDisconnectWill                 // DISCONNECT that asks for the will, or reports an error
	endRefused                        // CONNECT was refused
	endPacket                         // the device broke the protocol; the reason stands beside
	endKeepAlive
	endTakenOver
	endRevoked
	endShutdown
	endInternal
	endWrite
)

// sendsWill tells whether the will is published: not when the device said good-bye, when
// the server goes, or when the device has lost the right to speak.
func (e endCause) sendsWill() bool {
	switch e {
	case endDisconnect, endRefused, endRevoked, endShutdown:
		return false
	}
	return true
}

// reason is what a 5.0 device is told; 0 for nothing.
func (e endCause) reason() packet.Reason {
	switch e {
	case endKeepAlive:
		return packet.KeepAliveTimeout
	case endTakenOver:
		return packet.SessionTakenOver
	case endRevoked:
		return packet.NotAuthorized
	case endShutdown:
		return packet.ServerShuttingDown
	case endInternal:
		return packet.UnspecifiedError
	}
	return 0
}

// Close implements delivery.Conn.
func (c *conn) Close(why delivery.CloseReason) {
	switch why {
	case delivery.CloseTakenOver:
		c.g.stats.takenOver.Add(1)
		c.end(endTakenOver, "another connection of this client took over")
	case delivery.CloseRevoked:
		c.end(endRevoked, "this login has ended")
	case delivery.CloseShutdown:
		c.end(endShutdown, "the server is shutting down")
	default:
		c.end(endInternal, "the session cannot go on")
	}
}

// end begins the end of the connection. It does not block: the writer writes what is left
// and the reader cleans up.
func (c *conn) end(cause endCause, text string) { c.endWith(cause, cause.reason(), text) }

func (c *conn) endWith(cause endCause, reason packet.Reason, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	c.ending, c.cause = true, cause
	c.stopped.Store(true)
	if cause == endKeepAlive {
		c.g.stats.keepAlive.Add(1)
	}
	if c.session != nil && c.version == packet.V5 && reason != 0 {
		p := packet.Disconnect{Reason: reason}
		if text != "" {
			p.Props.SetBytes(packet.ReasonString, []byte(text))
		}
		c.appendFittingLocked(func(dst []byte) []byte { return packet.AppendDisconnect(dst, c.version, &p) },
			func() { p.Props.Reset() })
	}
	c.wakeLocked()
	linger := c.g.opt.Timeouts.Linger
	_ = c.t.SetWriteDeadline(time.Now().Add(linger))
	c.timer.Reset(linger)
	c.kickLocked()
}

// appendFittingLocked appends a packet; when it is over the client's maximum packet size,
// without the properties that shrink takes away [MQTT-3.14.2-3].
func (c *conn) appendFittingLocked(encode func(dst []byte) []byte, shrink func()) {
	b := c.outLocked()
	start := len(b.data)
	b.data = encode(b.data)
	if c.maxPacket > 0 && len(b.data)-start > int(c.maxPacket) {
		shrink()
		b.data = encode(b.data[:start])
	}
}

// closeIfGone closes at once where nobody reads any more.
func (c *conn) closeIfGone() {
	c.mu.Lock()
	gone := c.cause == endGone || c.cause == endDisconnect || c.cause == endDisconnectWill
	c.mu.Unlock()
	if gone {
		_ = c.t.Close()
	}
}

// fail ends the connection for an error in handling what the device sent.
func (c *conn) fail(err error) {
	if errors.Is(err, errEnding) {
		return
	}
	var bad *packet.Error
	if !errors.As(err, &bad) {
		c.g.opt.Log.Warn("a connection failed", "client", c.principal.Client, "owner", c.principal.Address.String(), "error", err)
		c.end(endInternal, "")
		return
	}
	c.g.stats.malformed.Add(1)
	c.g.opt.Log.Debug("a device broke the protocol", "client", c.principal.Client,
		"owner", c.principal.Address.String(), "remote", c.remote.String(), "error", err)
	text := bad.Msg
	if bad.Clause != "" {
		text += " " + bad.Clause
	}
	c.endWith(endPacket, bad.Reason, text)
}

// finish cleans up after the connection. It runs once, on the last reading goroutine,
// when the transport is dead.
func (c *conn) finish() {
	defer c.g.wg.Done()
	c.end(endGone, "")
	_ = c.t.Close()
	c.mu.Lock()
	c.finished = true
	c.timer.Stop()
	session, expiry, cause, w := c.session, c.expiry, c.cause, c.will
	c.dropOutputLocked()
	c.mu.Unlock()
	if b := c.in.buf; b != nil {
		c.in.buf = nil
		releaseIn(b)
	}
	if session != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.g.ctx), c.g.opt.Timeouts.Call)
		session.Detach(ctx, expiry)
		cancel()
		c.g.stats.sessions.Add(-1)
	}
	c.g.leave(c)
	if w != nil && cause.sendsWill() {
		c.g.sendWill(c, w, cause, expiry)
	}
}
