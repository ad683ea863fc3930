package mqttgw

import (
	"context"
	"errors"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// publishReason maps a refusal to a reason code that PUBACK and PUBREC have (3.4.2.1).
func publishReason(code im.Code) packet.Reason {
	switch code {
	case im.CodeMalformed, im.CodeInvalid, im.CodeWrongTo:
		return packet.InvalidPayloadFormat
	case im.CodeForgedFrom, im.CodeForbidden, im.CodeNotMember:
		return packet.NotAuthorized
	case im.CodeInvalidAddress, im.CodeNotFound, im.CodeUnknownDomain:
		return packet.InvalidTopicName
	case im.CodeTooLarge, im.CodeRateLimited:
		return packet.QuotaExceeded
	case im.CodeConflict, im.CodeUnavailable, im.CodeUnsupported:
		return packet.ImplementationSpecific
	}
	return packet.UnspecifiedError
}

// subscribeCode maps a refusal to a code of SUBACK (3.9.3).
func subscribeCode(v packet.Version, code im.Code) packet.Reason {
	if v != packet.V5 {
		return packet.SubscribeFailure311
	}
	switch code {
	case im.CodeInvalidAddress:
		return packet.InvalidTopicFilter
	case im.CodeRateLimited, im.CodeTooLarge:
		return packet.QuotaExceeded
	case im.CodeUnavailable, im.CodeUnsupported:
		return packet.ImplementationSpecific
	case im.CodeInternal:
		return packet.UnspecifiedError
	}
	return packet.NotAuthorized
}

// refusal is a CONNECT that is refused.
type refusal struct {
	reason packet.Reason
	text   string
}

// code is the code of CONNACK in a version.
func (r *refusal) code(v packet.Version) uint8 {
	if v == packet.V5 {
		return uint8(r.reason)
	}
	switch r.reason {
	case packet.UnsupportedVersion:
		return packet.BadProtocolVersion311
	case packet.InvalidClientID:
		return packet.IdentifierRejected311
	case packet.BadUserNameOrPassword:
		return packet.BadUserOrPassword311
	case packet.NotAuthorized, packet.InvalidTopicName:
		return packet.NotAuthorized311
	}
	return packet.ServerUnavailable311
}

// authRefusal maps an error of the Authenticator.
func authRefusal(err error) *refusal {
	switch {
	case errors.Is(err, ErrBadToken):
		return &refusal{packet.NotAuthorized, "the token is not valid"}
	case errors.Is(err, ErrBadCredentials):
		return &refusal{packet.BadUserNameOrPassword, "the user name or password is malformed"}
	case errors.Is(err, ErrBadClientID):
		return &refusal{packet.InvalidClientID, "the client identifier is not valid"}
	case errors.Is(err, ErrAuthBusy):
		return &refusal{packet.ServerBusy, "too many are connecting now"}
	}
	return &refusal{packet.ServerUnavailable, "authentication is not available now"}
}

// attachRefusal maps an error of delivery.Edge.
func attachRefusal(err error) *refusal {
	switch {
	case errors.Is(err, delivery.ErrStopping):
		return &refusal{packet.ServerUnavailable, "the server is shutting down"}
	case errors.Is(err, delivery.ErrBusy), errors.Is(err, context.DeadlineExceeded):
		return &refusal{packet.ServerBusy, "too many are connecting now"}
	}
	return &refusal{packet.ServerUnavailable, "the session cannot be opened now"}
}
