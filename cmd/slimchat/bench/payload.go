package bench

import "bytes"

// mark begins the stamp within a payload. A broker may put fields around it, but what follows stays as it was sent.
var mark = []byte(`"data":"@`)

const (
	timeDigits      = 16
	publisherDigits = 8
	seqDigits       = 16
	stampDigits     = timeDigits + publisherDigits + seqDigits
)

// payload is one publisher's message: a valid SlimChat message whose id, stamp and number are rewritten in place for each
// publish. It belongs to one goroutine at a time.
type payload struct {
	text    []byte
	idSeq   int // where the number stands in the id
	stampAt int // where the stamp begins: time, publisher, number
}

// newPayload returns the message of a publisher, padded to size bytes (0: not at all).
func newPayload(run string, publisher uint64, size int) *payload {
	p := &payload{}
	text := append([]byte(`{"id":"`), run...)
	text = appendHex(text, publisher, publisherDigits)
	p.idSeq = len(text)
	text = appendHex(text, 0, seqDigits)
	text = append(text, `","type":"chat","content":{"type":"text",`...)
	text = append(text, mark...)
	p.stampAt = len(text)
	text = appendHex(text, 0, timeDigits)
	text = appendHex(text, publisher, publisherDigits)
	text = appendHex(text, 0, seqDigits)
	const end = `"}}`
	if pad := size - len(text) - len(end); pad > 0 {
		text = append(text, bytes.Repeat([]byte("x"), pad)...)
	}
	text = append(text, end...)
	p.text = text
	return p
}

// stamp writes the time and the number of the next message and returns its bytes, which hold until the next call.
func (p *payload) stamp(now int64, seq uint64) []byte {
	putHex(p.text[p.idSeq:p.idSeq+seqDigits], seq)
	putHex(p.text[p.stampAt:p.stampAt+timeDigits], uint64(now))
	at := p.stampAt + timeDigits + publisherDigits
	putHex(p.text[at:at+seqDigits], seq)
	return p.text
}

// stampReader reads stamps out of payloads. It remembers where the last one stood, for the next is most often there too.
type stampReader struct{ at int }

func (s *stampReader) read(text []byte) (sent int64, publisher, seq uint64, ok bool) {
	if s.at < len(mark) || s.at > len(text) || !bytes.Equal(text[s.at-len(mark):s.at], mark) {
		i := bytes.Index(text, mark)
		if i < 0 {
			return 0, 0, 0, false
		}
		s.at = i + len(mark)
	}
	stamp := text[s.at:]
	if len(stamp) < stampDigits {
		return 0, 0, 0, false
	}
	t, ok1 := parseHex(stamp[:timeDigits])
	publisher, ok2 := parseHex(stamp[timeDigits : timeDigits+publisherDigits])
	seq, ok3 := parseHex(stamp[timeDigits+publisherDigits : stampDigits])
	return int64(t), publisher, seq, ok1 && ok2 && ok3
}

const hexDigits = "0123456789abcdef"

func appendHex(dst []byte, v uint64, digits int) []byte {
	dst = append(dst, make([]byte, digits)...)
	putHex(dst[len(dst)-digits:], v)
	return dst
}

func putHex(dst []byte, v uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = hexDigits[v&15]
		v >>= 4
	}
}

func parseHex(text []byte) (v uint64, ok bool) {
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}

// tracker judges the order of one publisher's messages at one subscriber. Numbers start at 1.
type tracker struct {
	next   uint64 // everything below it has arrived
	most   uint64
	beyond map[uint64]struct{} // what has arrived out of turn
}

// arrival is what a tracker makes of a message.
type arrival int

const (
	inOrder arrival = iota
	late            // after one that was sent after it
	duplicate
)

func (t *tracker) see(seq uint64) arrival {
	if t.next == 0 {
		t.next = 1
	}
	if seq < t.next {
		return duplicate
	}
	if _, seen := t.beyond[seq]; seen {
		return duplicate
	}
	verdict := inOrder
	if seq < t.most {
		verdict = late
	}
	t.most = max(t.most, seq)
	if seq > t.next {
		if t.beyond == nil {
			t.beyond = map[uint64]struct{}{}
		}
		t.beyond[seq] = struct{}{}
		return verdict
	}
	for t.next++; len(t.beyond) > 0; t.next++ {
		if _, seen := t.beyond[t.next]; !seen {
			break
		}
		delete(t.beyond, t.next)
	}
	return verdict
}
