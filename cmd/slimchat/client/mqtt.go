package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// handshakeTimeout bounds dialling, CONNECT and SUBSCRIBE, each with its answer.
const handshakeTimeout = 30 * time.Second

// Options says how to connect to a broker.
type Options struct {
	// Address is host:port, mqtt://host:port, or mqtts://host:port for TLS.
	Address string
	// Insecure accepts any certificate.
	Insecure bool
	Version  packet.Version

	ClientID   string
	User       string // empty: CONNECT carries neither user nor password
	Password   string
	CleanStart bool
	KeepAlive  uint16 // seconds, 0: none
	// SessionExpiry in seconds; 5.0 only.
	SessionExpiry uint32
	// ReceiveMax bounds what the broker has under way to this client; 0 leaves the protocol's 65,535. 5.0 only.
	ReceiveMax uint16
	// MaxPacket bounds what is read, in bytes; 0 means 1 MiB.
	MaxPacket int
}

// Conn is an open connection to a broker. Read packets from Reader and write them to Conn; both sides are the caller's, and
// one goroutine at a time may use each.
type Conn struct {
	net.Conn
	Reader  *packet.Reader
	Version packet.Version
	// ClientID is the identifier in use, the broker's when none was given.
	ClientID string
	// SessionPresent tells whether the broker kept a session of this client.
	SessionPresent bool
	// SendMax is how many QoS 1 publishes the broker takes at once.
	SendMax int
	// KeepAlive is the number of seconds within which a packet must be sent; 0: none.
	KeepAlive uint16

	nextID uint16
}

// Refused is a broker's refusal of a connection or a subscription.
type Refused struct {
	What   string // CONNECT or SUBSCRIBE
	Code   uint8  // a return code in 3.1.1, a reason code in 5.0
	Reason string // the broker's words, if any
}

// Error implements error.
func (e *Refused) Error() string {
	text := fmt.Sprintf("the broker refused %s with code 0x%02X", e.What, e.Code)
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// Connect dials a broker and connects to it.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := dial(ctx, o)
	if err != nil {
		return nil, err
	}
	limit := o.MaxPacket
	if limit == 0 {
		limit = 1 << 20
	}
	c := &Conn{Conn: raw, Reader: packet.NewReader(raw, limit), Version: o.Version, ClientID: o.ClientID, SendMax: 65_535, KeepAlive: o.KeepAlive}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	if err := c.handshake(o); err != nil {
		raw.Close()
		return nil, errors.Join(ctx.Err(), err)
	}
	return c, nil
}

func dial(ctx context.Context, o Options) (net.Conn, error) {
	address, secure, err := ParseAddress(o.Address)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	if secure {
		config := &tls.Config{InsecureSkipVerify: o.Insecure, MinVersion: tls.VersionTLS12} //nolint:gosec // only when the user asks for it
		return (&tls.Dialer{NetDialer: &dialer, Config: config}).DialContext(ctx, "tcp", address)
	}
	return dialer.DialContext(ctx, "tcp", address)
}

// ParseAddress reads a broker's address: host:port, mqtt://host[:port] or mqtts://host[:port].
func ParseAddress(s string) (hostPort string, secure bool, err error) {
	if _, _, err := net.SplitHostPort(s); err == nil {
		return s, false, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "mqtt" && u.Scheme != "mqtts" {
		return "", false, fmt.Errorf("%q is not a broker's address: want host:port, mqtt://host or mqtts://host", s)
	}
	secure = u.Scheme == "mqtts"
	port := u.Port()
	if port == "" {
		port = "1883"
		if secure {
			port = "8883"
		}
	}
	return net.JoinHostPort(u.Hostname(), port), secure, nil
}

func (c *Conn) handshake(o Options) error {
	connect := packet.Connect{
		Version: o.Version, CleanStart: o.CleanStart, KeepAlive: o.KeepAlive, ClientID: []byte(o.ClientID),
		HasUsername: o.User != "", Username: []byte(o.User), HasPassword: o.User != "", Password: []byte(o.Password),
	}
	if o.SessionExpiry > 0 {
		connect.Props.SetUint(packet.SessionExpiry, o.SessionExpiry)
	}
	if o.ReceiveMax > 0 {
		connect.Props.SetUint(packet.ReceiveMaximum, uint32(o.ReceiveMax))
	}
	if _, err := c.Write(packet.AppendConnect(nil, &connect)); err != nil {
		return fmt.Errorf("CONNECT: %w", err)
	}
	frame, err := c.expect(packet.CONNACK)
	if err != nil {
		return err
	}
	var ack packet.Connack
	if err := ack.Decode(c.Version, frame); err != nil {
		return err
	}
	if ack.Code != 0 {
		return &Refused{What: "CONNECT", Code: ack.Code, Reason: string(ack.Props.Bytes(packet.ReasonString))}
	}
	c.SessionPresent = ack.SessionPresent
	c.SendMax = int(ack.Props.Uint(packet.ReceiveMaximum, 65_535))
	c.KeepAlive = uint16(ack.Props.Uint(packet.ServerKeepAlive, uint32(c.KeepAlive))) //nolint:gosec // a two-byte property
	if id := ack.Props.Bytes(packet.AssignedClientID); len(id) > 0 {
		c.ClientID = string(id)
	}
	return nil
}

// Subscribe asks for the filter at QoS qos and waits for the answer. Publishes that arrive before it go to early, with the
// frame good until it returns; nil refuses them as an error. It may only be called while nobody else reads.
func (c *Conn) Subscribe(filter string, qos uint8, early func(frame []byte) error) error {
	c.nextID++
	id := c.nextID
	subscribe := packet.Subscribe{PacketID: id, Filters: []packet.Subscription{{Filter: []byte(filter), QoS: qos}}}
	if err := c.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	defer c.SetDeadline(time.Time{})
	if _, err := c.Write(packet.AppendSubscribe(nil, c.Version, &subscribe)); err != nil {
		return fmt.Errorf("SUBSCRIBE: %w", err)
	}
	for {
		frame, err := c.Reader.Next()
		if err != nil {
			return fmt.Errorf("SUBSCRIBE: %w", err)
		}
		if packet.TypeOf(frame[0]) == packet.PUBLISH && early != nil {
			if err := early(frame); err != nil {
				return err
			}
			continue
		}
		if err := c.wrong(frame, packet.SUBACK); err != nil {
			return err
		}
		var answer packet.SubAnswer
		if err := answer.Decode(c.Version, frame); err != nil {
			return err
		}
		if answer.PacketID != id || len(answer.Codes) != 1 {
			return errors.New("SUBACK does not answer our SUBSCRIBE")
		}
		if answer.Codes[0] >= 0x80 {
			return &Refused{What: "SUBSCRIBE to " + filter, Code: answer.Codes[0], Reason: string(answer.Props.Bytes(packet.ReasonString))}
		}
		return nil
	}
}

// Disconnect says goodbye and closes the connection.
func (c *Conn) Disconnect() error {
	_, err := c.Write(packet.AppendDisconnect(nil, c.Version, &packet.Disconnect{}))
	return errors.Join(err, c.Close())
}

func (c *Conn) expect(t packet.Type) ([]byte, error) {
	frame, err := c.Reader.Next()
	if err != nil {
		return nil, fmt.Errorf("waiting for %s: %w", t, err)
	}
	return frame, c.wrong(frame, t)
}

// wrong is nil for a packet of type t, and otherwise says what came instead.
func (c *Conn) wrong(frame []byte, t packet.Type) error {
	switch got := packet.TypeOf(frame[0]); got {
	case t:
		return nil
	case packet.DISCONNECT:
		return Disconnected(c.Version, frame)
	default:
		return fmt.Errorf("want %s, got %s", t, got)
	}
}

// Disconnected is the error that a broker's DISCONNECT packet stands for.
func Disconnected(v packet.Version, frame []byte) error {
	var bye packet.Disconnect
	if err := bye.Decode(v, frame); err != nil {
		return err
	}
	if why := bye.Props.Bytes(packet.ReasonString); len(why) > 0 {
		return fmt.Errorf("the broker disconnected with code 0x%02X: %s", uint8(bye.Reason), why)
	}
	return fmt.Errorf("the broker disconnected with code 0x%02X", uint8(bye.Reason))
}
