package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
	"github.com/slimchat/slimchat/mqttgw"
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
	case errors.Is(err, token.ErrClientMismatch):
		return p, expires, fmt.Errorf("%w: %w", mqttgw.ErrBadClientID, err)
	default:
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
