package mqttgw

import (
	"runtime"
	"sync"
	"time"
)

const (
	writeBuffer     = 4 << 10
	keepWriteBuffer = 128 << 10
	// writeChunk is how many bytes a device must take within the write timeout: little, so
	// that a slow one which makes progress lives.
	writeChunk = 16 << 10
)

// outBuffer holds encoded packets.
type outBuffer struct{ data []byte }

var outBuffers = sync.Pool{New: func() any { return &outBuffer{data: make([]byte, 0, writeBuffer)} }}

func releaseOut(b *outBuffer) {
	if cap(b.data) <= keepWriteBuffer {
		b.data = b.data[:0]
		outBuffers.Put(b)
	}
}

// outLocked returns the buffer to append packets to.
func (c *conn) outLocked() *outBuffer {
	if c.out == nil {
		c.out = outBuffers.Get().(*outBuffer)
	}
	return c.out
}

// unwrittenLocked is the number of bytes that the device has not taken yet.
func (c *conn) unwrittenLocked() int {
	n := c.writing
	if c.out != nil {
		n += len(c.out.data)
	}
	return n
}

// send appends a packet and sees to it that it is written.
func (c *conn) send(encode func(dst []byte) []byte) {
	c.mu.Lock()
	if !c.ending {
		b := c.outLocked()
		b.data = encode(b.data)
		c.kickLocked()
	}
	c.mu.Unlock()
}

// kickLocked starts the writer unless it runs. It may be called when there is nothing to
// write but something to tell the session, or the end to be carried out.
func (c *conn) kickLocked() {
	if c.writer || c.shut || c.finished {
		return
	}
	c.writer = true
	c.g.wg.Add(1)
	go c.write()
}

// write writes what there is and ends when there is nothing more. Under load packets
// gather while it writes, so that the next write has many.
func (c *conn) write() {
	defer c.g.wg.Done()
	runtime.Gosched() // those who are about to append get their turn first
	for {
		c.mu.Lock()
		b := c.out
		oversized := c.oversized
		ready := c.refused && b == nil // drained: writing is 0 here
		c.out, c.oversized = nil, nil
		if ready {
			c.refused = false
		}
		if b == nil && len(oversized) == 0 && !ready {
			c.writer = false
			last := c.ending && !c.shut
			c.shut = c.shut || last
			c.mu.Unlock()
			if last {
				_ = c.t.CloseWrite()
				c.closeIfGone()
			}
			return
		}
		session, ending := c.session, c.ending
		if b != nil {
			c.writing = len(b.data)
		}
		c.mu.Unlock()
		if b != nil && !c.writeOut(b) {
			return
		}
		if session == nil || ending {
			continue
		}
		for _, id := range oversized {
			session.Ack(id) // as if it had been delivered [MQTT-3.1.2-25]
		}
		if ready {
			session.Ready()
		}
	}
}

// writeOut writes b in chunks, each of which has the write timeout, or three quarters of it
// at the least. It returns false when the connection is dead.
func (c *conn) writeOut(b *outBuffer) bool {
	defer releaseOut(b)
	for rest := b.data; len(rest) > 0; {
		chunk := rest[:min(len(rest), writeChunk)]
		rest = rest[len(chunk):]
		c.renewDeadline()
		n, err := c.t.Write(chunk)
		c.g.stats.writes.Add(1)
		c.g.stats.bytesOut.Add(uint64(n))
		if err != nil {
			c.writeFailed()
			return false
		}
		c.mu.Lock()
		c.writing -= len(chunk)
		c.wakeLocked()
		c.mu.Unlock()
	}
	return true
}

// renewDeadline gives the next write its time. A deadline that is almost as good stands, for
// setting it costs as much as a small write; so does that of the end.
func (c *conn) renewDeadline() {
	now := c.g.now()
	if c.renewed != 0 && now-c.renewed <= c.g.opt.Timeouts.Write/4 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ending {
		c.renewed = now
		_ = c.t.SetWriteDeadline(time.Now().Add(c.g.opt.Timeouts.Write))
	}
}

// writeFailed ends the connection: the device is gone or does not read, and there is no one
// to say good-bye to.
func (c *conn) writeFailed() {
	c.mu.Lock()
	c.writing = 0
	first := !c.ending
	c.ending, c.shut, c.writer = true, true, false
	c.stopped.Store(true)
	if first {
		c.cause = endWrite
	}
	c.dropOutputLocked()
	c.wakeLocked()
	c.mu.Unlock()
	if first {
		c.g.stats.writeError.Add(1)
	}
	_ = c.t.Close()
}

func (c *conn) dropOutputLocked() {
	if c.out != nil {
		releaseOut(c.out)
		c.out = nil
	}
	c.oversized = nil
}

// wakeLocked wakes the reader if it waits.
func (c *conn) wakeLocked() {
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

// waitLocked waits until ok, unlocking meanwhile; the reader's back-pressure. It returns
// errEnding when the connection ends first.
func (c *conn) waitLocked(ok func() bool) error {
	for first := true; !c.ending; first = false {
		if ok() {
			return nil
		}
		if first {
			c.g.stats.blocked.Add(1)
		}
		if c.wake == nil {
			c.wake = make(chan struct{})
		}
		wake := c.wake
		c.mu.Unlock()
		<-wake
		c.mu.Lock()
	}
	return errEnding
}

// waitForOutput stops reading from a device that does not read what it asked for.
func (c *conn) waitForOutput() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unwrittenLocked() <= c.g.opt.Limits.Output {
		return nil
	}
	return c.waitLocked(func() bool { return c.unwrittenLocked() <= c.g.opt.Limits.Output/2 })
}
