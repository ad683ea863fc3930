package packet

import "fmt"

// Version is the protocol level of a connection as CONNECT states it.
type Version uint8

// The protocol levels this package speaks.
const (
	V311 Version = 4
	V5   Version = 5
)

// String returns "3.1.1" or "5.0".
func (v Version) String() string {
	switch v {
	case V311:
		return "3.1.1"
	case V5:
		return "5.0"
	}
	return fmt.Sprintf("level %d", uint8(v))
}

// Type is the type of a control packet (section 2.1.2).
type Type uint8

// The control packet types.
const (
	CONNECT Type = iota + 1
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

var typeNames = [16]string{
	"reserved", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

// String returns the name that the standard uses.
func (t Type) String() string { return typeNames[t&15] }

// TypeOf returns the type of the packet that starts with the byte b.
func TypeOf(b byte) Type { return Type(b >> 4) }

const (
	maxString = 65535 // a two-byte length (section 1.5.4)
	// MaxUserProperties bounds the user properties, and the subscription identifiers, of one
	// packet, because they are the only parts that may repeat without end.
	MaxUserProperties = 128
	// MaxFilters bounds the filters in one SUBSCRIBE or UNSUBSCRIBE.
	MaxFilters = 1024
)
