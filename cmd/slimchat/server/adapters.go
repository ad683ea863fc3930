package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/httpapi"
	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
	"github.com/slimchat/slimchat/mqttgw"
	"github.com/slimchat/slimchat/msglog"
)

// What one package asks for and another one has, where the two differ in shape.

// directory answers the router's questions from the accounts database.
type directory struct{ store *models.Store }

// Exists implements router.Directory.
func (d directory) Exists(ctx context.Context, a im.Address) (bool, error) {
	switch a.Kind {
	case im.KindUser:
		return d.store.UserExists(ctx, a.ID)
	case im.KindClient:
		return d.store.ClientExists(ctx, a.ID, a.Client)
	case im.KindNode:
		return d.store.NodeExists(ctx, a.ID)
	default:
		return false, nil
	}
}

// Clients implements router.Directory.
func (d directory) Clients(ctx context.Context, uid string) (int, error) {
	return d.store.ClientCount(ctx, uid)
}

// authenticator checks the tokens of devices.
type authenticator struct{ authority *token.Authority }

// Authenticate implements mqttgw.Authenticator.
func (a authenticator) Authenticate(ctx context.Context, username, password, clientID string) (im.Principal, time.Time, error) {
	if username == "" || password == "" {
		return im.Principal{}, time.Time{}, mqttgw.ErrBadCredentials
	}
	p, expires, err := a.authority.Authenticate(ctx, username, password, clientID)
	switch {
	case err == nil:
		return p, expires, nil
	case errors.Is(err, token.ErrUnavailable):
		return p, expires, fmt.Errorf("%w: %w", mqttgw.ErrAuthUnavailable, err)
	default: // of another user or client, too
		return p, expires, fmt.Errorf("%w: %w", mqttgw.ErrBadToken, err)
	}
}

// sessions is the delivery engine for the gateway, with what must happen as a device connects.
type sessions struct {
	engine    *delivery.Engine
	authority *token.Authority
	lastSeen  *models.LastSeen
}

// Attach implements delivery.Edge. A login that was revoked after its token was checked, and before its session was there for
// the revocation to find, is caught here.
func (s sessions) Attach(ctx context.Context, o delivery.AttachOptions) (*delivery.Session, bool, error) {
	session, present, err := s.engine.Attach(ctx, o)
	if err != nil {
		return nil, false, err
	}
	s.lastSeen.Seen(o.Principal.Address, o.Principal.Client, time.Now())
	if s.authority.Revoked(o.Principal.Ticket) {
		s.engine.Kick(o.Principal.Key(), o.Principal.Ticket, delivery.CloseRevoked)
	}
	return session, present, nil
}

// online tells the account service who is connected.
type online struct{ engine *delivery.Engine }

// IsOnline implements account.Sessions.
func (o online) IsOnline(owner im.Address, client string) bool {
	return o.engine.Online(im.SessionKey{Owner: owner, Client: client})
}

// history is the message log as REST sees it.
type history struct{ *msglog.Log }

// History implements httpapi.History.
func (h history) History(ctx context.Context, q httpapi.HistoryQuery) ([]*im.Entry, uint64, error) {
	return h.Log.History(ctx, msglog.HistoryQuery(q))
}

// endpoints are the MQTT URLs for the one who makes the request: those of the configuration, or else the host that the
// request came to with the ports that we listen on.
func (s *server) endpoints(r *http.Request) httpapi.Endpoints {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	at := func(announced, scheme, listener string) string {
		_, port, err := net.SplitHostPort(listener)
		if announced != "" || err != nil {
			return announced
		}
		return scheme + "://" + net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	ws := s.cfg.MQTT.Announce.WS
	if ws == "" {
		ws = "ws://" + r.Host + "/mqtt"
		if r.TLS != nil || s.proxiedTLS(r) {
			ws = "wss://" + r.Host + "/mqtt"
		}
	}
	return httpapi.Endpoints{
		TCP: at(s.cfg.MQTT.Announce.TCP, "mqtt", s.addresses.MQTT),
		TLS: at(s.cfg.MQTT.Announce.TLS, "mqtts", s.addresses.MQTTS),
		WS:  ws,
	}
}

// proxiedTLS tells whether a proxy that we trust took the request over TLS.
func (s *server) proxiedTLS(r *http.Request) bool {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || r.Header.Get("X-Forwarded-Proto") != "https" {
		return false
	}
	return slices.ContainsFunc(s.cfg.TrustedProxies(), func(p netip.Prefix) bool { return p.Contains(remote.Addr().Unmap()) })
}
