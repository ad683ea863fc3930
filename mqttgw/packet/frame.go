package packet

import "fmt"

// Frame tells how many bytes the packet at the head of buf takes, as far as buf shows it:
// the packet is complete when the result is at most len(buf), and until then at least that
// many bytes are needed to go on. A packet over maxSize bytes (0: no limit) is refused
// with PacketTooLarge as soon as its length is known, before its body has arrived.
// The type and the flags of the first byte are checked too. Errors are *Error.
func Frame(buf []byte, maxSize int) (int, error) {
	if len(buf) == 0 {
		return 2, nil
	}
	if err := checkFirstByte(buf[0]); err != nil {
		return 0, err
	}
	body := 0
	for i := 1; i <= 4; i++ {
		if i >= len(buf) {
			return i + 1, nil
		}
		b := buf[i]
		body |= int(b&0x7f) << (7 * (i - 1))
		if b >= 0x80 {
			continue
		}
		if b == 0 && i > 1 {
			return 0, malformed("[MQTT-1.5.5-1]", "remaining length is not in its shortest form")
		}
		size := 1 + i + body
		if maxSize > 0 && size > maxSize {
			return 0, &Error{PacketTooLarge, "[MQTT-3.2.2-15]",
				fmt.Sprintf("%d bytes, over the maximum packet size of %d", size, maxSize)}
		}
		return size, nil
	}
	return 0, malformed("1.5.5", "remaining length has more than four bytes")
}

// checkFirstByte checks the packet type and the reserved flags [MQTT-2.1.3-1].
func checkFirstByte(b byte) error {
	flags := b & 15
	switch TypeOf(b) {
	case 0:
		return malformed("2.1.2", "packet type 0 is reserved")
	case PUBLISH:
		if flags&6 == 6 {
			return malformed("[MQTT-3.3.1-4]", "PUBLISH with QoS 3")
		}
		if flags&14 == 8 {
			return malformed("[MQTT-3.3.1-2]", "PUBLISH with DUP at QoS 0")
		}
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		if flags != 2 {
			return malformed("[MQTT-2.1.3-1]", TypeOf(b).String()+" flags are not 0010")
		}
	default:
		if flags != 0 {
			return malformed("[MQTT-2.1.3-1]", TypeOf(b).String()+" flags are not 0000")
		}
	}
	return nil
}

// open returns the body of a whole frame whose type must be want.
func open(frame []byte, want Type) (cursor, error) {
	size, err := Frame(frame, 0)
	if err != nil {
		return cursor{}, err
	}
	if size != len(frame) {
		return cursor{}, malformed("2.1.4", "the frame is not exactly one packet")
	}
	if TypeOf(frame[0]) != want {
		return cursor{}, protocolError("2.1.2", TypeOf(frame[0]).String()+" where "+want.String()+" is due")
	}
	head := 2
	for frame[head-1] >= 0x80 {
		head++
	}
	return cursor{b: frame[head:]}, nil
}

// begin appends the fixed header with one byte for the remaining length, which end
// completes.
func begin(dst []byte, first byte) ([]byte, int) {
	dst = append(dst, first, 0)
	return dst, len(dst)
}

// end writes the remaining length of the packet whose body starts at start. Bodies over
// 127 bytes move by the bytes that the length needs more; the one packet with large
// bodies, PUBLISH, does not come this way.
func end(dst []byte, start int) []byte {
	n := len(dst) - start
	if n < 128 {
		dst[start-1] = byte(n)
		return dst
	}
	var length [4]byte
	enc := appendVarint(length[:0], n)
	dst = append(dst, enc[1:]...)
	copy(dst[start-1+len(enc):], dst[start:start+n])
	copy(dst[start-1:], enc)
	return dst
}

func appendVarint(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func varintLen(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}
