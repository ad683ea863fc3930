package im

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

// Flags of a stored message.
const (
	FlagCopy        = 1 << iota // this is the copy for the sender's other clients
	FlagHasCopy                 // a copy of this message stands at the sender's own address
	flagProperties              // the MQTT 5 properties section is present
	flagPayloadUTF8             // MQTT 5 payload format indicator 1
)

const (
	envelopeVersion = 1
	// MaxProperties bounds the user properties of one message.
	MaxProperties = 64
)

// Property is one MQTT 5 user property (section 3.3.2.3.7), carried through unchanged.
type Property struct{ Key, Value string }

// Properties are the parts of an MQTT 5 PUBLISH that travel with a message.
type Properties struct {
	User          []Property
	ContentType   string
	ResponseTopic string
	Correlation   string // binary
	PayloadUTF8   bool   // payload format indicator is 1
}

// Size is the number of bytes that the properties add to a message.
func (p *Properties) Size() int {
	n := len(p.ContentType) + len(p.ResponseTopic) + len(p.Correlation)
	for _, u := range p.User {
		n += len(u.Key) + len(u.Value)
	}
	return n
}

func (p *Properties) sectioned() bool {
	return len(p.User) > 0 || p.ContentType != "" || p.ResponseTopic != "" || p.Correlation != ""
}

// Envelope is what the log stores for one message: what delivery needs to know without
// reading JSON, and the JSON exactly as it will be delivered.
type Envelope struct {
	Flags   uint8
	From    Address // the verified sender
	Client  string  // the sending client's id; may be empty
	ID      string  // the message id, unique per sender
	TS      int64   // broker time, Unix milliseconds
	Expires int64   // Unix milliseconds after which it is not delivered any more; 0 for never
	Props   Properties
	Body    []byte // the stamped JSON
}

// ErrEnvelope says that stored bytes are no envelope this version can read.
var ErrEnvelope = errors.New("im: not an envelope")

// Append appends the encoded envelope to dst.
func (e *Envelope) Append(dst []byte) []byte {
	flags := e.Flags &^ (flagProperties | flagPayloadUTF8)
	if e.Props.sectioned() {
		flags |= flagProperties
	}
	if e.Props.PayloadUTF8 {
		flags |= flagPayloadUTF8
	}
	dst = append(dst, envelopeVersion, flags)
	var from [64]byte
	dst = appendString(dst, e.From.Append(from[:0]))
	dst = appendString(dst, e.Client)
	dst = appendString(dst, e.ID)
	dst = binary.AppendUvarint(dst, uint64(max(e.TS, 0)))
	dst = binary.AppendUvarint(dst, uint64(max(e.Expires, 0)))
	if flags&flagProperties != 0 {
		dst = appendString(dst, e.Props.ContentType)
		dst = appendString(dst, e.Props.ResponseTopic)
		dst = appendString(dst, e.Props.Correlation)
		n := min(len(e.Props.User), MaxProperties)
		dst = binary.AppendUvarint(dst, uint64(n))
		for _, p := range e.Props.User[:n] {
			dst = appendString(dst, p.Key)
			dst = appendString(dst, p.Value)
		}
	}
	return append(dst, e.Body...)
}

// CopyOf returns the encoded copy, for the sender's other clients, of an encoded message
// that has FlagHasCopy.
func CopyOf(message []byte) []byte {
	c := append([]byte(nil), message...)
	c[1] = c[1]&^FlagHasCopy | FlagCopy
	return c
}

func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// Decode reads an envelope. The strings and the body share memory with data, which must
// not be changed afterwards. Errors wrap ErrEnvelope.
func (e *Envelope) Decode(data []byte) error {
	if len(data) < 2 {
		return fmt.Errorf("%w: %d bytes", ErrEnvelope, len(data))
	}
	if data[0] != envelopeVersion {
		return fmt.Errorf("%w: version %d", ErrEnvelope, data[0])
	}
	*e = Envelope{Flags: data[1] &^ (flagProperties | flagPayloadUTF8)}
	r := envelopeReader{data: data[2:]}
	from := r.str()
	e.Client = r.str()
	e.ID = r.str()
	e.TS = r.num()
	e.Expires = r.num()
	e.Props.PayloadUTF8 = data[1]&flagPayloadUTF8 != 0
	if data[1]&flagProperties != 0 {
		e.Props.ContentType = r.str()
		e.Props.ResponseTopic = r.str()
		e.Props.Correlation = r.str()
		n := r.num()
		if n > MaxProperties {
			return fmt.Errorf("%w: %d properties", ErrEnvelope, n)
		}
		if n > 0 && !r.bad {
			e.Props.User = make([]Property, n)
			for i := range e.Props.User {
				e.Props.User[i] = Property{Key: r.str(), Value: r.str()}
			}
		}
	}
	if r.bad {
		return fmt.Errorf("%w: truncated", ErrEnvelope)
	}
	a, err := ParseAddress(from)
	if err != nil {
		return fmt.Errorf("%w: sender: %w", ErrEnvelope, err)
	}
	e.From, e.Body = a, r.data
	return nil
}

type envelopeReader struct {
	data []byte
	bad  bool
}

func (r *envelopeReader) str() string {
	n, k := binary.Uvarint(r.data)
	if k <= 0 || n > uint64(len(r.data)-k) {
		r.bad, r.data = true, nil
		return ""
	}
	b := r.data[k : k+int(n)]
	r.data = r.data[k+int(n):]
	if n == 0 {
		return ""
	}
	// The caller promised that the bytes do not change: a string may share them.
	return unsafe.String(&b[0], len(b))
}

func (r *envelopeReader) num() int64 {
	n, k := binary.Uvarint(r.data)
	if k <= 0 || n > 1<<62 {
		r.bad, r.data = true, nil
		return 0
	}
	r.data = r.data[k:]
	return int64(n)
}

// Entry is a stored message as it is read from the log. It is immutable and may be shared
// by any number of readers.
type Entry struct {
	Seq uint64  // position in the log
	To  Address // the address it is stored at, and whose topic its receivers see
	Envelope

	stored int // bytes that were read for it, which its fields share
}

// DecodeEntry reads the entry at position seq. data must not be changed afterwards.
func DecodeEntry(seq uint64, subject string, data []byte) (*Entry, error) {
	e := &Entry{Seq: seq, stored: len(subject) + len(data)}
	var err error
	if e.To, _, err = ParseSubject(subject); err != nil {
		return nil, fmt.Errorf("entry %d: %w", seq, err)
	}
	if err := e.Decode(data); err != nil {
		return nil, fmt.Errorf("entry %d: %w", seq, err)
	}
	return e, nil
}

// IsCopy tells whether the entry is the copy for the sender's other clients.
func (e *Entry) IsCopy() bool { return e.Flags&FlagCopy != 0 }

// Size is the number of bytes of memory that the entry keeps alive, roughly.
func (e *Entry) Size() int { return max(e.stored, len(e.Body)) + 384 }

// Record is what one commit appends: a message and, when the sender has other clients,
// its copy at the sender's own address. Both are in the log before it is acknowledged.
type Record struct {
	Subject     string
	Data        []byte
	CopySubject string // empty when there is no copy
	CopyData    []byte
}
