package mqttgw

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/router"
)

// Authenticator tells who a device is. Its errors wrap one of the Err… values below; any
// other error is taken for ErrAuthUnavailable.
type Authenticator interface {
	// Authenticate checks the user name and the token (the password) of a CONNECT.
	// clientID may be empty, which stands for the one in the token. expiresAt is when the
	// token ends, zero for never.
	Authenticate(ctx context.Context, username, password, clientID string) (p im.Principal, expiresAt time.Time, err error)
}

// What an Authenticator refuses, and the code that the device gets (3.1.1, 5.0).
var (
	ErrBadToken        = errors.New("mqttgw: the token is not valid")              // 5, 0x87: bad, expired, revoked, of somebody else
	ErrBadCredentials  = errors.New("mqttgw: not a user name and token")           // 4, 0x86: their shape is wrong
	ErrBadClientID     = errors.New("mqttgw: not a client identifier")             // 2, 0x85
	ErrAuthUnavailable = errors.New("mqttgw: authentication is not available now") // 3, 0x88
	ErrAuthBusy        = errors.New("mqttgw: too many are authenticating now")     // 3, 0x89
)

// Limits bound what devices can make the gateway spend. A zero field takes its default.
type Limits struct {
	Connections  int // in all; 100,000
	PerPrincipal int // clients of one user or node that are connected; 20
	PerAddress   int // connections of one remote address other than loopback; 4,096
	Handshakes   int // CONNECTs being authenticated at a time; 128
	// PacketSize is the largest packet taken from a device in bytes, told to 5.0 clients.
	// It should leave room above the payload limit, so that a message that is somewhat
	// too large is refused by itself and not with its connection. Default 96 KiB.
	PacketSize int
	// Inflight is the Receive Maximum: publishes of one connection that are not
	// acknowledged yet. Default 100.
	Inflight int
	// Wills bounds the bytes of delayed wills that are held in all, 16 MiB, and
	// WillsPerPrincipal those of one user's or node's clients, 256 KiB. A will over either
	// is published without its delay.
	Wills, WillsPerPrincipal int
	// Output bounds the bytes waiting to be written to one device; 64 KiB. A single packet
	// may exceed it.
	Output int
}

// Timeouts of a connection. A zero field takes its default.
type Timeouts struct {
	Connect time.Duration // from accepting to a whole CONNECT; 10 s
	Packet  time.Duration // from a packet's first byte to its last; 30 s
	Write   time.Duration // for a device to take 16 KiB or what there is; 30 s
	Doze    time.Duration // of silence, after which a connection gives back its stack; 2 s
	Linger  time.Duration // for the device to read our last words; 1 s
	Call    time.Duration // for one call into authentication or a session; 10 s
	// KeepAlive is the longest keep-alive granted; 5.0 clients that ask for more or for
	// none are told (Server Keep Alive). 20 min.
	KeepAlive time.Duration
}

// Options of a Gateway. Auth, Sessions and Router are required.
type Options struct {
	Domain   string // this domain's name; its prefix is stripped from topics and filters
	Node     string // this broker's node id, the sender of error events
	Auth     Authenticator
	Sessions delivery.Edge
	Router   router.Publisher
	Log      *slog.Logger // default: discard
	Limits   Limits
	Timeouts Timeouts

	// Revoked tells whether a login (im.Principal.Ticket) has been revoked; a will is asked
	// about before it is published. It is called on many goroutines and must not block.
	// Default: none is.
	Revoked func(ticket string) bool
	// Remote is the address that a WebSocket comes from, for Limits.PerAddress; the zero
	// Addr when it has none. Default: the request's RemoteAddr, which behind a reverse proxy
	// is the proxy's.
	Remote func(*http.Request) netip.Addr
}

const (
	topicAliasMaximum = 16   // topic aliases a 5.0 client may use towards us
	maxHeld           = 4096 // QoS 2 identifiers a 3.1.1 client may hold unreleased
	neverExpires      = 0xFFFFFFFF
	longestWillDelay  = time.Hour
	longestPause      = 50 * time.Millisecond // of the reader, for publishes that come too fast
)

func orDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

func (o *Options) complete() error {
	if o.Auth == nil || o.Sessions == nil || o.Router == nil {
		return errors.New("mqttgw: options lack Auth, Sessions or Router")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Revoked == nil {
		o.Revoked = func(string) bool { return false }
	}
	if o.Remote == nil {
		o.Remote = func(r *http.Request) netip.Addr { return addrOf(r.RemoteAddr) }
	}
	orDefault(&o.Limits.Connections, 100_000)
	orDefault(&o.Limits.PerPrincipal, 20)
	orDefault(&o.Limits.PerAddress, 4096)
	orDefault(&o.Limits.Handshakes, 128)
	orDefault(&o.Limits.PacketSize, 96<<10)
	orDefault(&o.Limits.Inflight, 100)
	o.Limits.Inflight = min(o.Limits.Inflight, 65535)
	orDefault(&o.Limits.Output, 64<<10)
	orDefault(&o.Limits.Wills, 16<<20)
	orDefault(&o.Limits.WillsPerPrincipal, 256<<10)
	orDefault(&o.Timeouts.Connect, 10*time.Second)
	orDefault(&o.Timeouts.Packet, 30*time.Second)
	orDefault(&o.Timeouts.Write, 30*time.Second)
	orDefault(&o.Timeouts.Doze, 2*time.Second)
	orDefault(&o.Timeouts.Linger, time.Second)
	orDefault(&o.Timeouts.Call, 10*time.Second)
	orDefault(&o.Timeouts.KeepAlive, 20*time.Minute)
	return nil
}
