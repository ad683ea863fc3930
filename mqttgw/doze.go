package mqttgw

import "time"

// A goroutine that has handled packets keeps a stack of 4 to 16 KB, and only garbage
// collections make it smaller, by half each. So a connection that has been silent for a
// while changes to a goroutine that does nothing but wait for the socket and never needs
// more than the smallest stack, 2 KB. The read deadline tells when.

// wakeUp starts the watch for silence.
func (c *conn) wakeUp() {
	if w, ok := c.t.(waiter); ok {
		_ = w.SetReadDeadline(time.Now().Add(c.g.opt.Timeouts.Doze))
	}
}

// stayAwake ends the watch for silence.
func (c *conn) stayAwake() {
	if w, ok := c.t.(waiter); ok {
		_ = w.SetReadDeadline(time.Time{})
	}
}

// doze is called when the read deadline has passed. It returns true when another
// goroutine has taken the connection, and false when the device was not silent.
func (c *conn) doze() bool {
	silent := c.g.now() - time.Duration(c.lastSeen.Load())
	w, ok := c.t.(waiter)
	if !ok || c.in.buf != nil || silent < c.g.opt.Timeouts.Doze/2 {
		c.wakeUp()
		return false
	}
	_ = w.SetReadDeadline(time.Time{})
	c.g.stats.dozing.Add(1)
	go c.sleep(w)
	return true
}

// sleep waits until there is something to read and wakes the connection.
func (c *conn) sleep(w waiter) {
	// An error means that the connection is closed, which the reader will find too.
	_ = w.raw().Read(readableNow)
	c.g.stats.dozing.Add(-1)
	go c.serve()
}
