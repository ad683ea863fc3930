package im

import (
	"strings"
)

// Subjects of the log. Every id is one token, encoded by AppendToken, so that no two ids
// meet in one subject and an id may contain `.`, `*`, `>` or any UTF-8.
//
//	im.user.{uid}.{peer}               to a user
//	im.user.{uid}.client.{cid}.{peer}  to one client
//	im.node.{id}.{peer}                to a node
//	im.room.{rid}                      to a room
//
// {peer} is the encoded address of the sender, so that what two endpoints said to each
// other is two exact subjects (docs/decisions/0005-conversation-subjects.md).
const (
	SubjectRoot = "im"
	SubjectAll  = "im.>"
)

const upperHex = "0123456789ABCDEF"

func tokenSafe(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c == '-' || c == '_'
}

// AppendToken appends s as one subject token: letters, digits, `-` and `_` stand for
// themselves, every other byte becomes `=XX` in upper-case hexadecimal. The result is
// also a legal key of a NATS key-value bucket, where `%` would not be.
func AppendToken[T string | []byte](dst []byte, s T) []byte {
	for i := range len(s) {
		c := s[i]
		if tokenSafe(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '=', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

// EncodeToken is AppendToken into a string; it does not allocate when s needs no escape.
func EncodeToken(s string) string {
	for i := range len(s) {
		if !tokenSafe(s[i]) {
			return string(AppendToken(make([]byte, 0, len(s)+8), s))
		}
	}
	return s
}

// DecodeToken reverses EncodeToken. Only what EncodeToken produces is accepted, so that
// each id has exactly one encoding.
func DecodeToken(t string) (string, error) {
	if strings.IndexByte(t, '=') < 0 {
		for i := range len(t) {
			if !tokenSafe(t[i]) {
				return "", badToken(t)
			}
		}
		if t == "" {
			return "", badToken(t)
		}
		return t, nil
	}
	out := make([]byte, 0, len(t))
	for i := 0; i < len(t); i++ {
		c := t[i]
		if c != '=' {
			if !tokenSafe(c) {
				return "", badToken(t)
			}
			out = append(out, c)
			continue
		}
		if i+2 >= len(t) {
			return "", badToken(t)
		}
		hi, lo := strings.IndexByte(upperHex, t[i+1]), strings.IndexByte(upperHex, t[i+2])
		if hi < 0 || lo < 0 || tokenSafe(byte(hi<<4|lo)) {
			return "", badToken(t)
		}
		out = append(out, byte(hi<<4|lo))
		i += 2
	}
	return string(out), nil
}

func badToken(t string) *Error {
	return Errorf(CodeInvalidAddress, "", "%q is not an encoded id", t)
}

// AppendSubject appends the log subject of a message from peer to the local address to.
func AppendSubject(dst []byte, to, peer Address) []byte {
	dst = appendInbox(dst, to)
	if to.Kind != KindRoom {
		var buf [64]byte
		dst = append(dst, '.')
		dst = AppendToken(dst, peer.Append(buf[:0]))
	}
	return dst
}

// Subject is AppendSubject into a string.
func Subject(to, peer Address) string {
	return string(AppendSubject(make([]byte, 0, 96), to, peer))
}

// SubjectFilter returns the subject, with a wildcard in place of the peer, that matches
// everything addressed to the local address a.
func SubjectFilter(a Address) string {
	dst := appendInbox(make([]byte, 0, 64), a)
	if a.Kind != KindRoom {
		dst = append(dst, ".*"...)
	}
	return string(dst)
}

func appendInbox(dst []byte, a Address) []byte {
	switch a.Kind {
	case KindUser:
		dst = append(dst, "im.user."...)
		return AppendToken(dst, a.ID)
	case KindClient:
		dst = append(dst, "im.user."...)
		dst = AppendToken(dst, a.ID)
		dst = append(dst, ".client."...)
		return AppendToken(dst, a.Client)
	case KindNode:
		dst = append(dst, "im.node."...)
		return AppendToken(dst, a.ID)
	case KindRoom:
		dst = append(dst, "im.room."...)
		return AppendToken(dst, a.ID)
	}
	return append(dst, "im.none"...)
}

// ParseSubject reverses Subject. The peer of a room subject is the zero Address.
func ParseSubject(subject string) (to, peer Address, err error) {
	rest, ok := strings.CutPrefix(subject, "im.")
	if !ok {
		return to, peer, badSubject(subject)
	}
	kind, rest, ok := strings.Cut(rest, ".")
	if !ok {
		return to, peer, badSubject(subject)
	}
	id, rest, more := strings.Cut(rest, ".")
	if to.ID, err = DecodeToken(id); err != nil {
		return Address{}, peer, err
	}
	switch kind {
	case "room":
		if more {
			return Address{}, peer, badSubject(subject)
		}
		to.Kind = KindRoom
		return to, peer, CheckID(to.ID)
	case "node":
		to.Kind = KindNode
	case "user":
		to.Kind = KindUser
		if client, isClient := strings.CutPrefix(rest, "client."); isClient {
			to.Kind = KindClient
			client, rest, more = strings.Cut(client, ".")
			if to.Client, err = DecodeToken(client); err != nil {
				return Address{}, peer, err
			}
			if err = CheckID(to.Client); err != nil {
				return Address{}, peer, err
			}
		}
	default:
		return Address{}, peer, badSubject(subject)
	}
	if err = CheckID(to.ID); err != nil || !more {
		return Address{}, peer, badSubject(subject)
	}
	from, err := DecodeToken(rest)
	if err != nil {
		return Address{}, peer, err
	}
	if peer, err = ParseAddress(from); err != nil {
		return Address{}, Address{}, err
	}
	return to, peer, nil
}

func badSubject(s string) *Error {
	return Errorf(CodeInvalidAddress, "", "%q is not a subject of the log", s)
}

// SessionBucketKey returns the key of a session record: `{kind}.{owner}.{client}`.
func (k SessionKey) SessionBucketKey() string {
	dst := make([]byte, 0, 64)
	dst = append(dst, k.OwnerPrefix()...)
	return string(AppendToken(dst, k.Client))
}

// OwnerPrefix is what all session keys of one owner start with, and no other owner's.
func (k SessionKey) OwnerPrefix() string {
	dst := make([]byte, 0, 64)
	if k.Owner.Kind == KindNode {
		dst = append(dst, "node."...)
	} else {
		dst = append(dst, "user."...)
	}
	dst = AppendToken(dst, k.Owner.ID)
	return string(append(dst, '.'))
}
