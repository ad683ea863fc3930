package im

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind tells what an address points to.
type Kind uint8

// The kinds of endpoint. The zero Kind is no address.
const (
	KindUser   Kind = iota + 1 // all clients of a user
	KindClient                 // one client of a user
	KindNode                   // a device or service that is not a person
	KindRoom                   // a room
)

// MaxIDBytes is the length limit of one id in bytes.
const MaxIDBytes = 128

// Address names an endpoint. It is comparable and may be a map key. Domain is empty for
// an endpoint of the domain at hand.
type Address struct {
	Domain string
	Kind   Kind
	ID     string // uid, node id or room id
	Client string // only with KindClient
}

// User returns the address of a local user.
func User(uid string) Address { return Address{Kind: KindUser, ID: uid} }

// Client returns the address of one client of a local user.
func Client(uid, client string) Address {
	return Address{Kind: KindClient, ID: uid, Client: client}
}

// Node returns the address of a local node.
func Node(id string) Address { return Address{Kind: KindNode, ID: id} }

// Room returns the address of a local room.
func Room(id string) Address { return Address{Kind: KindRoom, ID: id} }

// IsZero tells whether a is no address at all.
func (a Address) IsZero() bool { return a.Kind == 0 }

// Local returns a with its domain removed when that is own; other addresses are returned
// unchanged. In domain `a`, `domain/a/user/bob` is `user/bob`.
func (a Address) Local(own string) Address {
	if a.Domain == own {
		a.Domain = ""
	}
	return a
}

// String returns the address as it is written on the wire, `user/bob` for example. It is
// empty for the zero Address.
func (a Address) String() string {
	var buf [64]byte
	return string(a.Append(buf[:0]))
}

// Append appends what String returns.
func (a Address) Append(dst []byte) []byte {
	if a.Kind == 0 {
		return dst
	}
	if a.Domain != "" {
		dst = append(dst, "domain/"...)
		dst = append(dst, a.Domain...)
		dst = append(dst, '/')
	}
	switch a.Kind {
	case KindNode:
		dst = append(dst, "node/"...)
	case KindRoom:
		dst = append(dst, "room/"...)
	default:
		dst = append(dst, "user/"...)
	}
	dst = append(dst, a.ID...)
	if a.Kind == KindClient {
		dst = append(dst, "/client/"...)
		dst = append(dst, a.Client...)
	}
	return dst
}

// TopicPrefix starts every MQTT topic that SlimChat handles.
const TopicPrefix = "$IM/"

// Topic returns the MQTT topic of the address.
func (a Address) Topic() string { return TopicPrefix + a.String() }

// ParseAddress parses an address as it is written on the wire and checks every id in it.
// The error is an *Error with CodeInvalidAddress.
func ParseAddress(s string) (Address, error) {
	var a Address
	kind, rest, ok := strings.Cut(s, "/")
	if !ok {
		return Address{}, badAddress(s, "want user/…, room/…, node/… or domain/…/…")
	}
	if kind == "domain" {
		a.Domain, rest, ok = strings.Cut(rest, "/")
		if !ok {
			return Address{}, badAddress(s, "nothing follows the domain")
		}
		if err := CheckDomain(a.Domain); err != nil {
			return Address{}, badAddress(s, "the domain is not a DNS name in lower case")
		}
		if kind, rest, ok = strings.Cut(rest, "/"); !ok {
			return Address{}, badAddress(s, "nothing follows the domain")
		}
	}
	switch kind {
	case "user":
		a.Kind = KindUser
		if uid, client, found := strings.Cut(rest, "/client/"); found {
			a.Kind, a.Client, rest = KindClient, client, uid
			if err := CheckID(client); err != nil {
				return Address{}, badAddress(s, "client id "+AsError(err).Message)
			}
		}
	case "node":
		a.Kind = KindNode
	case "room":
		a.Kind = KindRoom
	default:
		return Address{}, badAddress(s, "want user/…, room/…, node/… or domain/…/…")
	}
	if err := CheckID(rest); err != nil {
		return Address{}, badAddress(s, "id "+AsError(err).Message)
	}
	a.ID = rest
	return a, nil
}

func badAddress(s, why string) *Error {
	if len(s) > 2*MaxIDBytes {
		s = s[:2*MaxIDBytes] + "…"
	}
	return Errorf(CodeInvalidAddress, "to", "%q is not an address: %s", s, why)
}

// ParseTopic parses an MQTT topic name (not a filter) under `$IM/`.
func ParseTopic(topic string) (Address, error) {
	rest, ok := strings.CutPrefix(topic, TopicPrefix)
	if !ok {
		return Address{}, Errorf(CodeInvalidAddress, "topic", "topics start with %s", TopicPrefix)
	}
	return ParseAddress(rest)
}

// CheckID tells whether s may be an id: 1 to 128 bytes of UTF-8 without `/`, `+`, `#`,
// control characters, or spaces at either end. The error is an *Error with CodeInvalid
// whose message is the second half of a sentence.
func CheckID(s string) error {
	switch {
	case s == "":
		return Errorf(CodeInvalid, "", "is empty")
	case len(s) > MaxIDBytes:
		return Errorf(CodeInvalid, "", "is longer than %d bytes", MaxIDBytes)
	}
	plain := true
	for i := range len(s) {
		c := s[i]
		if c >= utf8.RuneSelf {
			plain = false
			continue
		}
		if c == '/' || c == '+' || c == '#' {
			return Errorf(CodeInvalid, "", "contains %q", c)
		}
		if c < 0x20 || c == 0x7f {
			return Errorf(CodeInvalid, "", "contains a control character")
		}
	}
	if s[0] == ' ' || s[len(s)-1] == ' ' {
		return Errorf(CodeInvalid, "", "starts or ends with a space")
	}
	if plain {
		return nil
	}
	return checkUnicodeID(s)
}

func checkUnicodeID(s string) error {
	if !utf8.ValidString(s) {
		return Errorf(CodeInvalid, "", "is not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return Errorf(CodeInvalid, "", "contains a control character")
		}
	}
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	if unicode.IsSpace(first) || unicode.IsSpace(last) {
		return Errorf(CodeInvalid, "", "starts or ends with a space")
	}
	return nil
}

// CheckDomain tells whether s is a DNS name in lower case (RFC 1123 section 2.1): labels
// of 1 to 63 letters, digits and inner hyphens, 253 bytes in all.
func CheckDomain(s string) error {
	if s == "" || len(s) > 253 {
		return Errorf(CodeInvalid, "domain", "has %d bytes, want 1 to 253", len(s))
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return Errorf(CodeInvalid, "domain", "has the label %q, which no DNS name has", label)
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return Errorf(CodeInvalid, "domain", "contains %q", c)
			}
		}
	}
	return nil
}

// Principal is a sender whose identity has been verified: a user or node and the client
// that speaks for it.
type Principal struct {
	Address Address // KindUser or KindNode, local
	Client  string  // the client id, CheckID holds
	Role    string  // "user", "admin" or "node"
	Ticket  string  // the login that this connection or request belongs to
}

// ClientAddress is the address of this one client: `user/{uid}/client/{cid}`, or the
// node's own address, for a node has no client addresses.
func (p Principal) ClientAddress() Address {
	if p.Address.Kind == KindUser {
		return Client(p.Address.ID, p.Client)
	}
	return p.Address
}

// Key names the durable session of this client.
func (p Principal) Key() SessionKey { return SessionKey{Owner: p.Address, Client: p.Client} }

// SessionKey identifies a client's durable state: its owner (user or node) and client id.
type SessionKey struct {
	Owner  Address
	Client string
}
