package mqttgw

import (
	"io"
	"sync"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

const (
	readBuffer     = 16 << 10
	keepReadBuffer = 32 << 10 // larger ones, made for large packets, are not kept
	peekBuffer     = 256      // what an idle connection without a raw socket holds
)

// inBuffer holds bytes that were read; those in data[pos:end] are not handled yet.
type inBuffer struct {
	data     []byte
	pos, end int
}

var inBuffers = sync.Pool{New: func() any { return &inBuffer{data: make([]byte, readBuffer)} }}

func releaseIn(b *inBuffer) {
	if len(b.data) <= keepReadBuffer {
		b.pos, b.end = 0, 0
		inBuffers.Put(b)
	}
}

// input is the reading side of a connection. Only its reading goroutine uses it.
type input struct {
	buf      *inBuffer // nil while idle
	peek     []byte    // for transports that are no raw sockets
	readable func(fd uintptr) bool
	err      error // of readable
}

// next returns the next whole packet that has been read, nil when more bytes are needed.
// It holds until fill.
func (c *conn) next() ([]byte, error) {
	b := c.in.buf
	if b == nil {
		return nil, nil
	}
	need, err := packet.Frame(b.data[b.pos:b.end], c.g.opt.Limits.PacketSize)
	if err != nil {
		return nil, err
	}
	if need > b.end-b.pos {
		return nil, nil
	}
	frame := b.data[b.pos : b.pos+need : b.pos+need]
	b.pos += need
	return frame, nil
}

// settle gives the buffer back when all of it has been handled, and otherwise makes room
// for the rest of the packet that has begun. It tells whether one has.
func (c *conn) settle() (partial bool) {
	b := c.in.buf
	if b == nil {
		return false
	}
	have := b.end - b.pos
	if have == 0 {
		c.in.buf = nil
		releaseIn(b)
		return false
	}
	next := b.data
	if have > len(next)/2 { // grows as bytes come, not as a header claims
		next = make([]byte, 2*len(next))
	}
	copy(next, b.data[b.pos:b.end])
	b.data, b.pos, b.end = next, 0, have
	return true
}

// fill reads at least one byte, waiting for it without a buffer where that is possible.
func (c *conn) fill() error {
	switch t := c.t.(type) {
	case waiter:
		if c.in.buf != nil {
			break
		}
		if c.in.readable == nil {
			c.in.readable = c.readReady
		}
		c.in.err = nil
		if err := t.raw().Read(c.in.readable); err != nil {
			return err
		}
		return c.in.err
	default:
		if c.in.buf != nil {
			break
		}
		if c.in.peek == nil {
			c.in.peek = make([]byte, peekBuffer)
		}
		n, err := c.t.Read(c.in.peek)
		if n == 0 {
			return err
		}
		c.in.buf = inBuffers.Get().(*inBuffer)
		c.in.buf.end = copy(c.in.buf.data, c.in.peek[:n])
		return nil // an error comes again with the next read
	}
	b := c.in.buf
	n, err := c.t.Read(b.data[b.end:])
	b.end += n
	if n > 0 {
		return nil
	}
	return err
}

// readReady is called when the socket may be readable; false asks to be called again.
func (c *conn) readReady(fd uintptr) bool {
	b := inBuffers.Get().(*inBuffer)
	n, again, err := readRaw(fd, b.data)
	if n > 0 {
		b.end = n
		c.in.buf = b
		return true
	}
	releaseIn(b)
	switch {
	case again:
		return false
	case err == nil:
		err = io.EOF
	}
	c.in.err = err
	return true
}

// discard reads what the device still sends until it closes or we do.
func (c *conn) discard() {
	for {
		if b := c.in.buf; b != nil {
			c.in.buf = nil
			releaseIn(b)
		}
		if err := c.fill(); err != nil {
			return
		}
	}
}
