package im

import (
	"errors"
	"fmt"
)

// Code names the reason of a refusal. Codes are part of the wire contract: they appear in
// REST errors and in `error` events, and each edge maps them once to what its protocol has
// (an HTTP status, an MQTT 5 reason code).
type Code string

// The codes that the core of the system gives. Clients may rely on their spelling.
const (
	CodeMalformed      Code = "malformed"       // not JSON, not UTF-8, not an object
	CodeInvalid        Code = "invalid_field"   // a field is missing or has a value it may not have
	CodeInvalidAddress Code = "invalid_address" // an address or topic that cannot be parsed
	CodeTooLarge       Code = "too_large"       // the payload is over the limit
	CodeForgedFrom     Code = "forged_from"     // `from` names somebody else
	CodeWrongTo        Code = "wrong_to"        // `to` differs from the address published to
	CodeForbidden      Code = "forbidden"       // the sender may not do this
	CodeNotFound       Code = "not_found"       // no such user, node, client or object
	CodeNotMember      Code = "not_a_member"    // the room does not exist for the sender
	CodeUnknownDomain  Code = "unknown_domain"  // the domain is no peer of this one
	CodeRateLimited    Code = "rate_limited"    // too fast; come back later
	CodeConflict       Code = "conflict"        // it exists already, or changed meanwhile
	CodeUnavailable    Code = "unavailable"     // a part of the service cannot answer now
	CodeUnsupported    Code = "unsupported"     // this version does not do that
	CodeInternal       Code = "internal"        // our fault; details are in the log
)

// Error is a refusal that may be shown to the one who caused it.
type Error struct {
	Code    Code
	Field   string // the JSON field or parameter at fault; may be empty
	Message string // a sentence for people, without secrets
	Err     error  // the cause, for logs and errors.Is; never shown; may be nil
}

// Errorf makes an Error whose message is formatted.
func Errorf(code Code, field, format string, args ...any) *Error {
	return &Error{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}

// Error implements error.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Field != "" {
		s += " (" + e.Field + ")"
	}
	s += ": " + e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary tells whether the same request may succeed later without a change.
func (e *Error) Temporary() bool {
	return e.Code == CodeUnavailable || e.Code == CodeRateLimited
}

// AsError returns err as an *Error: the one that it wraps, or an internal error whose
// message gives nothing away.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Message: "internal error", Err: err}
}

// CodeOf returns the code of err, CodeInternal when it carries none, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return AsError(err).Code
}
