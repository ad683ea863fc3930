package packet

import (
	"errors"
	"io"
)

const (
	minReadBuffer  = 4 << 10
	keepReadBuffer = 64 << 10
)

// Reader takes packets one by one off a stream. It is not safe for concurrent use.
type Reader struct {
	src     io.Reader
	maxSize int
	buf     []byte // what has been read lies in buf[pos:end]
	pos     int
	end     int
}

// NewReader returns a Reader of src that refuses packets over maxSize bytes (0: no limit).
func NewReader(src io.Reader, maxSize int) *Reader {
	return &Reader{src: src, maxSize: maxSize}
}

// Buffered tells whether a whole packet can be had without reading from the source.
func (r *Reader) Buffered() bool {
	need, err := Frame(r.buf[r.pos:r.end], r.maxSize)
	return err != nil || need <= r.end-r.pos
}

// Next returns the next whole packet, ready for the Decode method of its type. It holds
// until the next call. A stream that ends between packets gives io.EOF, one that ends
// within a packet io.ErrUnexpectedEOF; a packet that cannot be framed gives an *Error.
func (r *Reader) Next() ([]byte, error) {
	for {
		need, err := Frame(r.buf[r.pos:r.end], r.maxSize)
		if err != nil {
			return nil, err
		}
		if need <= r.end-r.pos {
			frame := r.buf[r.pos : r.pos+need : r.pos+need]
			r.pos += need
			return frame, nil
		}
		r.room(need)
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) && r.end > r.pos {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// room makes space for a packet of size bytes at pos. The buffer grows by what arrives,
// not by what a header claims, so that a claim alone costs no memory.
func (r *Reader) room(size int) {
	have := r.end - r.pos
	if have == 0 && cap(r.buf) > keepReadBuffer {
		r.buf = nil // after a large packet
	}
	if r.end < len(r.buf) && (r.pos+size <= len(r.buf) || r.end < len(r.buf)/2) {
		return
	}
	next := r.buf
	if have*2 > len(r.buf) || len(r.buf) == 0 {
		next = make([]byte, max(minReadBuffer, 2*len(r.buf)))
	}
	copy(next, r.buf[r.pos:r.end])
	r.buf, r.pos, r.end = next, 0, have
}
