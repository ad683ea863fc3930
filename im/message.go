package im

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// The message types of wire.md sections 3 and 5.
const (
	TypeChat         = "chat"
	TypeGroupChat    = "grpchat"
	TypeEvent        = "event"
	TypeOnline       = "online"
	TypeOffline      = "offline"
	TypeSubscribe    = "subscribe"
	TypeSubscribed   = "subscribed"
	TypeUnsubscribe  = "unsubscribe"
	TypeUnsubscribed = "unsubscribed"
)

// DefaultPayloadLimit is the default of limits.payload in bytes.
const DefaultPayloadLimit = 64 << 10

// Limits of the fields of a message, in bytes.
const (
	MaxThreadBytes = 256
	maxTypeBytes   = 64
	maxFields      = 128 // top-level fields of one message
	maxDepth       = 64  // nesting of arrays and objects
)

// Draft is a message as a client sent it: parsed and checked, not yet stamped.
type Draft struct {
	ID          string
	From        string // as sent; empty when absent
	To          string // as sent; empty when absent
	Type        string
	Thread      string
	ContentType string // content.type; empty when there is no content
	Content     []byte // raw JSON, shares memory with the payload

	rest []byte // the other fields, `"k":v,` each, raw
}

// IsPresence tells whether the type is one of wire.md section 5.
func (d *Draft) IsPresence() bool {
	switch d.Type {
	case TypeOnline, TypeOffline, TypeSubscribe, TypeSubscribed, TypeUnsubscribe, TypeUnsubscribed:
		return true
	}
	return false
}

// ParseMessage parses a client's JSON message (wire.md section 3) and checks its fields.
// The Draft shares memory with payload. Errors are *Error with CodeMalformed or
// CodeInvalid and name the field. An absent id is an error unless idOptional.
func ParseMessage(payload []byte, idOptional bool) (Draft, error) {
	var d Draft
	if !utf8.Valid(payload) {
		return d, Errorf(CodeMalformed, "", "the payload is not UTF-8")
	}
	if !json.Valid(payload) {
		return d, Errorf(CodeMalformed, "", "the payload is not JSON")
	}
	if err := d.scan(payload); err != nil {
		return Draft{}, err
	}
	return d, d.check(idOptional)
}

// seenField is a bit for each field that the broker reads or stamps.
type seenField uint16

const (
	seenID seenField = 1 << iota
	seenFrom
	seenTo
	seenType
	seenThread
	seenContent
	seenIgnored // client, ts, seq: stamped by the broker, whatever the client says
)

func (d *Draft) scan(payload []byte) error {
	s := objectScanner{data: payload}
	if !s.open() {
		return Errorf(CodeMalformed, "", "the payload is not a JSON object")
	}
	var seen seenField
	var names map[string]struct{} // of the fields that are only carried through
	for n := 0; ; n++ {
		rawKey, rawValue, ok := s.next()
		if !ok {
			break
		}
		if n == maxFields {
			return Errorf(CodeInvalid, "", "more than %d fields", maxFields)
		}
		key := decodeKey(rawKey)
		if s.deepest > maxDepth {
			return Errorf(CodeInvalid, key, "nested deeper than %d levels", maxDepth)
		}
		bit, err := d.field(key, rawValue)
		if err != nil {
			return err
		}
		if bit == 0 {
			if _, twice := names[key]; twice {
				return Errorf(CodeInvalid, key, "appears twice")
			}
			if names == nil {
				names = make(map[string]struct{}, 4)
			}
			names[key] = struct{}{}
			d.rest = append(append(append(append(d.rest, rawKey...), ':'), rawValue...), ',')
			continue
		}
		if bit != seenIgnored && seen&bit != 0 {
			return Errorf(CodeInvalid, key, "appears twice")
		}
		seen |= bit
	}
	return nil
}

// field takes a field that the broker knows; bit is 0 for any other.
func (d *Draft) field(key string, raw []byte) (bit seenField, err error) {
	switch key {
	case "id":
		d.ID, err = stringField(key, raw)
		return seenID, err
	case "from":
		d.From, err = stringField(key, raw)
		return seenFrom, err
	case "to":
		d.To, err = stringField(key, raw)
		return seenTo, err
	case "type":
		if string(raw) == `"chat"` {
			d.Type = TypeChat
			return seenType, nil
		}
		d.Type, err = stringField(key, raw)
		return seenType, err
	case "thread":
		if bytes.Equal(raw, []byte("null")) {
			return seenThread, nil
		}
		d.Thread, err = stringField(key, raw)
		return seenThread, err
	case "content":
		d.Content = raw
		d.ContentType, err = contentType(raw)
		return seenContent, err
	case "client", "ts", "seq":
		return seenIgnored, nil
	}
	return 0, nil
}

func (d *Draft) check(idOptional bool) error {
	switch {
	case d.ID == "" && !idOptional:
		return Errorf(CodeInvalid, "id", "is required")
	case len(d.ID) > MaxIDBytes:
		return Errorf(CodeInvalid, "id", "is longer than %d bytes", MaxIDBytes)
	case len(d.Thread) > MaxThreadBytes:
		return Errorf(CodeInvalid, "thread", "is longer than %d bytes", MaxThreadBytes)
	case d.Type == "":
		return Errorf(CodeInvalid, "type", "is required")
	}
	if d.IsPresence() {
		return nil
	}
	switch d.Type {
	case TypeChat, TypeGroupChat, TypeEvent:
	default:
		return Errorf(CodeInvalid, "type", "is none of chat, grpchat, event or a presence type")
	}
	if d.Content == nil {
		return Errorf(CodeInvalid, "content", "is required")
	}
	return nil
}

// Stamp is what the broker adds to a message.
type Stamp struct {
	From   string // the verified sender's address
	Client string // the sending client's id; empty for none
	To     string // the address published to
	TS     int64  // Unix milliseconds
}

// AppendStamped appends the message as it will be delivered. The fields that the broker
// stamps come last, so that a reader which folds the case of names, or takes the last of
// two, never takes a client's word for them.
func (d *Draft) AppendStamped(dst []byte, s Stamp) []byte {
	dst = append(dst, '{')
	dst = append(dst, d.rest...)
	dst = appendField(dst, `"id":`, d.ID)
	dst = appendField(dst, `,"from":`, s.From)
	if s.Client != "" {
		dst = appendField(dst, `,"client":`, s.Client)
	}
	dst = appendField(dst, `,"to":`, s.To)
	dst = appendField(dst, `,"type":`, d.Type)
	dst = appendField(dst, `,"thread":`, d.Thread)
	if d.Content != nil {
		dst = append(dst, `,"content":`...)
		dst = append(dst, d.Content...)
	}
	dst = append(dst, `,"ts":`...)
	dst = strconv.AppendInt(dst, s.TS, 10)
	return append(dst, '}')
}

func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	return AppendJSONString(dst, value)
}

// AppendJSONString appends s as a JSON string.
func AppendJSONString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			if err != nil { // cannot be: a string always marshals
				return append(dst, `""`...)
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

func stringField(key string, raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", Errorf(CodeInvalid, key, "is not a string")
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", Errorf(CodeInvalid, key, "is not a string")
	}
	return s, nil
}

func contentType(raw []byte) (string, error) {
	s := objectScanner{data: raw}
	if !s.open() {
		return "", Errorf(CodeInvalid, "content", "is not an object")
	}
	kind, found := "", false
	for {
		k, v, ok := s.next()
		if !ok {
			break
		}
		if decodeKey(k) != "type" {
			continue
		}
		if found {
			return "", Errorf(CodeInvalid, "content.type", "appears twice")
		}
		var err error
		if kind, err = stringField("content.type", v); err != nil {
			return "", err
		}
		found = true
	}
	switch {
	case kind == "":
		return "", Errorf(CodeInvalid, "content.type", "is required")
	case len(kind) > maxTypeBytes:
		return "", Errorf(CodeInvalid, "content.type", "is longer than %d bytes", maxTypeBytes)
	}
	return kind, nil
}

func decodeKey(raw []byte) string {
	switch string(raw) { // the usual ones cost no memory
	case `"id"`:
		return "id"
	case `"from"`:
		return "from"
	case `"to"`:
		return "to"
	case `"type"`:
		return "type"
	case `"thread"`:
		return "thread"
	case `"content"`:
		return "content"
	case `"data"`:
		return "data"
	}
	s, err := stringField("", raw)
	if err != nil {
		return ""
	}
	return s
}
