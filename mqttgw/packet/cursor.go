package packet

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// cursor walks over the body of a packet. The first error sticks and empties it, so that
// callers may check once at the end.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

func (c *cursor) short() { c.fail(malformed("2.1.4", "the packet ends too early")) }

func (c *cursor) u8() byte {
	if len(c.b) < 1 {
		c.short()
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

func (c *cursor) u16() uint16 {
	if len(c.b) < 2 {
		c.short()
		return 0
	}
	v := binary.BigEndian.Uint16(c.b)
	c.b = c.b[2:]
	return v
}

func (c *cursor) u32() uint32 {
	if len(c.b) < 4 {
		c.short()
		return 0
	}
	v := binary.BigEndian.Uint32(c.b)
	c.b = c.b[4:]
	return v
}

// varint reads a variable byte integer (section 1.5.5).
func (c *cursor) varint() int {
	v := 0
	for i := range 4 {
		if i >= len(c.b) {
			c.short()
			return 0
		}
		b := c.b[i]
		v |= int(b&0x7f) << (7 * i)
		if b < 0x80 {
			if b == 0 && i > 0 {
				c.fail(malformed("[MQTT-1.5.5-1]", "integer is not in its shortest form"))
				return 0
			}
			c.b = c.b[i+1:]
			return v
		}
	}
	c.fail(malformed("1.5.5", "integer has more than four bytes"))
	return 0
}

// binary reads binary data (section 1.5.6). It is never nil unless the cursor has failed.
func (c *cursor) binary() []byte {
	n := int(c.u16())
	if n > len(c.b) {
		c.short()
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// str reads a UTF-8 string (section 1.5.4).
func (c *cursor) str() []byte {
	v := c.binary()
	if !utf8.Valid(v) {
		c.fail(malformed("[MQTT-1.5.4-1]", "a string is not UTF-8"))
		return nil
	}
	if bytes.IndexByte(v, 0) >= 0 {
		c.fail(malformed("[MQTT-1.5.4-2]", "a string contains U+0000"))
		return nil
	}
	return v
}

// id reads a packet identifier, which is never zero.
func (c *cursor) id() uint16 {
	v := c.u16()
	if v == 0 && c.err == nil {
		c.fail(protocolError("[MQTT-2.2.1-3]", "packet identifier 0"))
	}
	return v
}

// done returns the error, if any, or one for bytes that nothing has read.
func (c *cursor) done() error {
	if c.err == nil && len(c.b) > 0 {
		c.fail(malformed("2.1.4", "bytes after the end of the packet"))
	}
	return c.err
}

// cut shortens s to what a two-byte length can say, at a character boundary.
func cut(s []byte) []byte {
	if len(s) <= maxString {
		return s
	}
	n := maxString
	for n > maxString-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func appendString(dst, s []byte) []byte {
	s = cut(s)
	dst = append(dst, byte(len(s)>>8), byte(len(s)))
	return append(dst, s...)
}

func appendU16(dst []byte, v uint16) []byte { return append(dst, byte(v>>8), byte(v)) }
