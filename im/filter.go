package im

import (
	"strings"
	"unicode/utf8"
)

// MaxFilterBytes bounds a subscription filter.
const MaxFilterBytes = 1024

// Filter is a parsed MQTT topic filter (MQTT 5.0 section 4.7). The zero Filter matches
// nothing.
type Filter struct {
	text   string
	levels []string
	exact  bool
}

// ParseFilter parses a topic filter. `+` must fill its level and `#` the last one. The
// prefix of the domain own is stripped, as it is from addresses. The error is an *Error
// with CodeInvalidAddress.
func ParseFilter(text, own string) (Filter, error) {
	switch {
	case text == "":
		return Filter{}, Errorf(CodeInvalidAddress, "filter", "is empty")
	case len(text) > MaxFilterBytes:
		return Filter{}, Errorf(CodeInvalidAddress, "filter", "is longer than %d bytes", MaxFilterBytes)
	case !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0:
		return Filter{}, Errorf(CodeInvalidAddress, "filter", "is not UTF-8 without NUL")
	}
	f := Filter{text: text, exact: true}
	if rest, ok := strings.CutPrefix(text, TopicPrefix+"domain/"+own+"/"); ok && own != "" {
		text = TopicPrefix + rest
	}
	f.levels = strings.Split(text, "/")
	for i, level := range f.levels {
		switch {
		case level == "+":
			f.exact = false
		case level == "#":
			if i != len(f.levels)-1 {
				return Filter{}, Errorf(CodeInvalidAddress, "filter", "# is not the last level")
			}
			f.exact = false
		case strings.ContainsAny(level, "+#"):
			return Filter{}, Errorf(CodeInvalidAddress, "filter", "a wildcard must fill its level")
		}
	}
	return f, nil
}

// String returns the filter as the client wrote it.
func (f Filter) String() string { return f.text }

// Exact tells whether the filter has no wildcard.
func (f Filter) Exact() bool { return f.exact }

// Match tells whether the filter matches a topic. A wildcard in the first level does not
// match a topic that starts with `$` (MQTT 5.0 section 4.7.2).
func (f Filter) Match(topic string) bool {
	if len(f.levels) == 0 {
		return false
	}
	if first := f.levels[0]; (first == "+" || first == "#") && strings.HasPrefix(topic, "$") {
		return false
	}
	rest, more := topic, true
	for _, level := range f.levels {
		if level == "#" {
			return true // also the parent level: `a/#` matches `a`
		}
		if !more {
			return false
		}
		var have string
		have, rest, more = strings.Cut(rest, "/")
		if level != "+" && level != have {
			return false
		}
	}
	return !more
}

// MatchAddress tells whether the filter matches the topic of a local address.
func (f Filter) MatchAddress(a Address) bool { return f.Match(a.Topic()) }

// CanMatchRooms tells whether the filter has wildcards and could match the topic of some
// room, so that it is worth keeping for a client that may join one later.
func (f Filter) CanMatchRooms() bool {
	if f.exact || len(f.levels) == 0 || f.levels[0] != "$IM" {
		return false
	}
	for i, level := range f.levels[1:] {
		switch {
		case level == "#":
			return true
		case i == 0 && level != "+" && level != "room":
			return false
		case i == 1 && level != "+" && CheckID(level) != nil:
			return false // no room is called that
		case i > 1:
			return false
		}
	}
	return len(f.levels) == 3
}
