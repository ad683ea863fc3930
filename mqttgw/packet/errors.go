package packet

import "fmt"

// Reason is an MQTT 5 reason code (section 2.4).
type Reason uint8

// The reason codes of MQTT 5.0. Below 0x80 is success.
const (
	Success                 Reason = 0x00 // also: normal disconnection, granted QoS 0
	GrantedQoS1             Reason = 0x01
	GrantedQoS2             Reason = 0x02
	DisconnectWithWill      Reason = 0x04
	NoMatchingSubscribers   Reason = 0x10
	NoSubscriptionExisted   Reason = 0x11
	ContinueAuthentication  Reason = 0x18
	ReAuthenticate          Reason = 0x19
	UnspecifiedError        Reason = 0x80
	MalformedPacket         Reason = 0x81
	ProtocolError           Reason = 0x82
	ImplementationSpecific  Reason = 0x83
	UnsupportedVersion      Reason = 0x84
	InvalidClientID         Reason = 0x85
	BadUserNameOrPassword   Reason = 0x86
	NotAuthorized           Reason = 0x87
	ServerUnavailable       Reason = 0x88
	ServerBusy              Reason = 0x89
	Banned                  Reason = 0x8A
	ServerShuttingDown      Reason = 0x8B
	BadAuthMethod           Reason = 0x8C
	KeepAliveTimeout        Reason = 0x8D
	SessionTakenOver        Reason = 0x8E
	InvalidTopicFilter      Reason = 0x8F
	InvalidTopicName        Reason = 0x90
	PacketIDInUse           Reason = 0x91
	PacketIDNotFound        Reason = 0x92
	ReceiveMaximumExceeded  Reason = 0x93
	InvalidTopicAlias       Reason = 0x94
	PacketTooLarge          Reason = 0x95
	MessageRateTooHigh      Reason = 0x96
	QuotaExceeded           Reason = 0x97
	AdministrativeAction    Reason = 0x98
	InvalidPayloadFormat    Reason = 0x99
	RetainNotSupported      Reason = 0x9A
	QoSNotSupported         Reason = 0x9B
	UseAnotherServer        Reason = 0x9C
	ServerMoved             Reason = 0x9D
	SharedSubsNotSupported  Reason = 0x9E
	ConnectionRateExceeded  Reason = 0x9F
	MaximumConnectTime      Reason = 0xA0
	SubIDsNotSupported      Reason = 0xA1
	WildcardSubsUnsupported Reason = 0xA2
)

// Failed tells whether r reports an error.
func (r Reason) Failed() bool { return r >= 0x80 }

// CONNACK return codes of MQTT 3.1.1 (section 3.2.2.3 there).
const (
	Accepted311            = 0
	BadProtocolVersion311  = 1
	IdentifierRejected311  = 2
	ServerUnavailable311   = 3
	BadUserOrPassword311   = 4
	NotAuthorized311       = 5
	SubscribeFailure311    = 0x80
	highestReturnCode311   = NotAuthorized311
	highestGrantedQoS      = 2
	highestRetainHandling  = 2
	unsupportedNameOrLevel = "the protocol name and level are not MQTT 3.1.1 or 5.0"
)

// Error says what is wrong with a packet.
type Error struct {
	Reason Reason // what a server answers an MQTT 5.0 client
	Clause string // the clause of the standard that the packet breaks
	Msg    string // for people; holds nothing of the packet's contents
}

// Error implements error.
func (e *Error) Error() string {
	if e.Clause == "" {
		return fmt.Sprintf("packet: %s (0x%02X)", e.Msg, uint8(e.Reason))
	}
	return fmt.Sprintf("packet: %s (0x%02X, %s)", e.Msg, uint8(e.Reason), e.Clause)
}

func malformed(clause, msg string) error { return &Error{MalformedPacket, clause, msg} }

func protocolError(clause, msg string) error { return &Error{ProtocolError, clause, msg} }
