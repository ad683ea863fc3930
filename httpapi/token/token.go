// Package token makes and checks the tokens that clients log in with: JSON Web Tokens
// (RFC 7519) signed with Ed25519 (RFC 8037) by a key that all processes of the domain share
// through their database. Checking a token needs no database: the keys and the revoked
// tickets are in memory.
package token

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
)

// The codes of a refused token.
const (
	CodeInvalid        im.Code = "token_invalid"
	CodeExpired        im.Code = "token_expired"
	CodeRevoked        im.Code = "token_revoked"
	CodeNameMismatch   im.Code = "name_mismatch"
	CodeClientMismatch im.Code = "client_mismatch"
)

// The refusals; compare with errors.Is. Each is an *im.Error that may be shown.
var (
	ErrTokenInvalid   error = im.Errorf(CodeInvalid, "", "the token is not one of this domain")
	ErrTokenExpired   error = im.Errorf(CodeExpired, "", "the token has expired: log in again")
	ErrTokenRevoked   error = im.Errorf(CodeRevoked, "", "this login has been ended: log in again")
	ErrNameMismatch   error = im.Errorf(CodeNameMismatch, "", "the user name is not the token's")
	ErrClientMismatch error = im.Errorf(CodeClientMismatch, "", "the client identifier is not the token's")
	// ErrUnavailable says that the token cannot be judged now: its key is not known and
	// the database does not answer.
	ErrUnavailable error = im.Errorf(im.CodeUnavailable, "", "tokens cannot be checked at the moment")
)

// Limits of tokens.
const (
	DefaultTTL = 24 * time.Hour
	// MaxTTL bounds every token's life, and so how long a retired key must be kept.
	MaxTTL      = 400 * 24 * time.Hour
	maxRawBytes = 4096
)

// Claims is what a token says of its bearer.
type Claims struct {
	Subject  im.Address // a user or a node, local
	Client   string
	Ticket   string // the login; shared by all tokens of one login, revoked as one
	Role     string
	IssuedAt time.Time
	Expires  time.Time
}

// Principal is the bearer as a verified sender.
func (c Claims) Principal() im.Principal {
	return im.Principal{Address: c.Subject, Client: c.Client, Role: c.Role, Ticket: c.Ticket}
}

// NewTicket makes the identifier of a new login: 26 characters, 130 random bits.
func NewTicket() string { return rand.Text() }

// claims is the JSON form. The subject is an address, `user/alice` or `node/n1`; issuer and
// audience are the domain.
type claims struct {
	jwt.RegisteredClaims
	Client string `json:"client"`
	Ticket string `json:"ticket"`
	Role   string `json:"role"`
}

// Keys is where the domain's signing keys are kept; *models.Store fulfils it.
type Keys interface {
	SigningKeys(ctx context.Context) ([]models.SigningKey, error)
	AddSigningKey(ctx context.Context, key models.SigningKey) error
	DeleteSigningKeys(ctx context.Context, before int64) error
}

// Options configure an Authority.
type Options struct {
	Domain string
	Keys   Keys
	Log    *slog.Logger
	Now    func() time.Time // nil for time.Now
}

// Authority signs and verifies the tokens of a domain. It is safe for concurrent use. Give
// it the changes of the feed (Apply), and Close it when nothing uses it any more.
type Authority struct {
	domain  string
	now     func() time.Time
	ring    *keyring
	revoked *revocations
	parser  *jwt.Parser
	checked verified
}

// New loads the domain's keys, making the first one if there is none.
func New(ctx context.Context, o Options) (*Authority, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Authority{domain: o.Domain, now: o.Now, revoked: newRevocations()}
	a.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithIssuer(o.Domain), jwt.WithAudience(o.Domain),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(o.Now), jwt.WithStrictDecoding(),
	)
	ring, err := newKeyring(ctx, o, a.revoked.prune)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	a.ring = ring
	return a, nil
}

// Close stops the upkeep of the keys and waits for it.
func (a *Authority) Close() { a.ring.close() }

// Apply takes a change of the accounts: register it with the feed. It does not block.
func (a *Authority) Apply(c models.Change) {
	switch c.Kind {
	case models.ChangeRevoke:
		a.revoked.add(c.Ticket, c.Expires)
	case models.ChangeKeys, models.ChangeReset:
		a.ring.refreshSoon()
	}
}

// Rotate makes a new key, which signs from a few seconds later, when every process of the
// domain knows it. Tokens signed with older keys stay valid until they expire.
func (a *Authority) Rotate(ctx context.Context) error { return a.ring.rotate(ctx, activationDelay) }

// Sign makes a token. IssuedAt is filled in; Expires must be at most MaxTTL away.
func (a *Authority) Sign(c Claims) (string, error) {
	key := a.ring.signing(a.now())
	if key == nil {
		return "", errors.New("token: there is no key to sign with")
	}
	now := a.now()
	if c.Expires.Sub(now) > MaxTTL {
		return "", fmt.Errorf("token: a token may live for %v at most", MaxTTL)
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: a.domain, Audience: jwt.ClaimStrings{a.domain}, Subject: c.Subject.String(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(c.Expires),
		},
		Client: c.Client, Ticket: c.Ticket, Role: c.Role,
	})
	t.Header["kid"] = key.id
	raw, err := t.SignedString(key.private)
	if err != nil {
		return "", fmt.Errorf("token: sign: %w", err)
	}
	return raw, nil
}

// Verify checks a token. The error is ErrTokenInvalid, ErrTokenExpired, ErrTokenRevoked or
// ErrUnavailable. The database is asked only for a key that is not known, at most once a
// second.
func (a *Authority) Verify(ctx context.Context, raw string) (Claims, error) {
	// Go's base64 skips line breaks: without this check a token would have many spellings.
	if raw == "" || len(raw) > maxRawBytes || strings.ContainsAny(raw, "\r\n") {
		return Claims{}, ErrTokenInvalid
	}
	sum := sha256.Sum256([]byte(raw))
	t, known := a.checked.get(sum)
	if known {
		if _, err := a.ring.public(ctx, t.kid); err != nil { // the key has been withdrawn since
			return Claims{}, refusal(err)
		}
		if !a.now().Before(t.claims.Expires) {
			return Claims{}, ErrTokenExpired
		}
	} else {
		var err error
		if t, err = a.check(ctx, raw); err != nil {
			return Claims{}, err
		}
		a.checked.put(sum, t)
	}
	if a.revoked.has(t.claims.Ticket) {
		return Claims{}, ErrTokenRevoked
	}
	return t.claims, nil
}

// check does what Verify does for a token that it has not seen lately, but for revocation.
func (a *Authority) check(ctx context.Context, raw string) (verifiedToken, error) {
	var c claims
	var kid string
	_, err := a.parser.ParseWithClaims(raw, &c, func(t *jwt.Token) (any, error) {
		kid, _ = t.Header["kid"].(string)
		return a.ring.public(ctx, kid)
	})
	if err != nil {
		return verifiedToken{}, refusal(err)
	}
	subject, err := im.ParseAddress(c.Subject)
	if err != nil || subject.Domain != "" || c.Ticket == "" || im.CheckID(c.Client) != nil ||
		!fitting(subject.Kind, c.Role) {
		return verifiedToken{}, ErrTokenInvalid
	}
	out := Claims{
		Subject: subject, Client: c.Client, Ticket: c.Ticket, Role: c.Role, Expires: c.ExpiresAt.Time,
	}
	if c.IssuedAt != nil {
		out.IssuedAt = c.IssuedAt.Time
	}
	return verifiedToken{claims: out, kid: strings.Clone(kid)}, nil
}

func fitting(kind im.Kind, role string) bool {
	switch kind {
	case im.KindUser:
		return role == models.RoleUser || role == models.RoleAdmin
	case im.KindNode:
		return role == models.RoleNode
	default:
		return false
	}
}

// refusal tells an expired token of ours from everything else: the parser judges the claims
// only after the signature, and joins what it finds.
func refusal(err error) error {
	switch {
	case errors.Is(err, ErrUnavailable):
		return ErrUnavailable
	case errors.Is(err, jwt.ErrTokenExpired) &&
		!errors.Is(err, jwt.ErrTokenInvalidIssuer) && !errors.Is(err, jwt.ErrTokenInvalidAudience):
		return ErrTokenExpired
	default:
		return ErrTokenInvalid
	}
}

// Authenticate checks what a device presents when it connects (wire.md section 2): the
// password is a token, username must be the id of the token's subject, and clientID the
// token's client unless it is empty. It returns who that is and until when. Errors are
// those of Verify, ErrNameMismatch and ErrClientMismatch.
func (a *Authority) Authenticate(ctx context.Context, username, password, clientID string) (im.Principal, time.Time, error) {
	c, err := a.Verify(ctx, password)
	switch {
	case err != nil:
		return im.Principal{}, time.Time{}, err
	case username != c.Subject.ID:
		return im.Principal{}, time.Time{}, ErrNameMismatch
	case clientID != "" && clientID != c.Client:
		return im.Principal{}, time.Time{}, ErrClientMismatch
	}
	return c.Principal(), c.Expires, nil
}

// Revoked tells whether the ticket has been revoked: for an edge to ask once more after it
// has registered a live session, so that no revocation falls in between.
func (a *Authority) Revoked(ticket string) bool { return a.revoked.has(ticket) }
