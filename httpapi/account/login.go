package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
)

// Device describes the client that logs in; every field may be empty.
type Device struct {
	Type     string
	AppID    string
	DeviceID string
	ClientID string // empty: one is made up (for a node: its id)
}

// Session is a login: the token and what it stands for.
type Session struct {
	Token   string
	Expires time.Time
	Ticket  string
	Owner   im.Address
	User    models.User // of a user's session
	Node    models.Node // of a node's session
	Client  models.Client
}

// Login checks a name and password (a node's: its id and secret) and signs the client in. A
// client that was signed in before loses its old login. The errors are ErrCredentials,
// *TooManyError, and *im.Error with CodeDisabled, CodeTooManyClients or im.CodeInvalid.
func (s *Service) Login(ctx context.Context, remote netip.Addr, name, password string, d Device) (Session, error) {
	switch {
	case name == "":
		return Session{}, im.Errorf(im.CodeInvalid, "username", "is required")
	case password == "":
		return Session{}, im.Errorf(im.CodeInvalid, "password", "is required")
	case im.CheckID(name) != nil || len(password) > MaxPasswordBytes:
		return Session{}, ErrCredentials // nobody has such a name or password
	}
	if err := checkDevice(d); err != nil {
		return Session{}, err
	}
	node, err := s.nodeLogin(ctx, name, password)
	if err != nil {
		return Session{}, err
	}
	if node != nil {
		return s.signIn(ctx, Session{Owner: im.Node(node.ID), Node: *node}, d, s.TTL)
	}
	u, err := s.checkLogin(ctx, remote, Name(name), password)
	if err != nil {
		return Session{}, err
	}
	if u.State != models.StateActive {
		return Session{}, im.Errorf(CodeDisabled, "", "this account is disabled")
	}
	return s.signIn(ctx, Session{Owner: im.User(u.UID), User: u}, d, s.TTL)
}

func checkDevice(d Device) error {
	for _, f := range []struct{ name, value string }{
		{"client.type", d.Type}, {"client.appid", d.AppID}, {"client.deviceid", d.DeviceID},
	} {
		if err := checkText(f.name, f.value, maxDevice); err != nil {
			return err
		}
	}
	if d.ClientID == "" {
		return nil
	}
	if err := im.CheckID(d.ClientID); err != nil {
		return im.Errorf(im.CodeInvalid, "client.clientid", "%s", im.AsError(err).Message)
	}
	return nil
}

// nodeLogin returns the node if name and secret are those of one, nil if not. A secret is
// random and long: guessing needs no limit, and a plain hash is enough; successes have one. Nodes go first, so
// that nobody can register a user of the same name and shut a node out.
func (s *Service) nodeLogin(ctx context.Context, name, secret string) (*models.Node, error) {
	n, err := s.Store.Node(ctx, name)
	if errors.Is(err, models.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, shown(err, nil)
	}
	given := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(given[:], n.Secret) != 1 {
		return nil, nil
	}
	return &n, s.guard.enter(im.Node(n.ID))
}

// checkLogin judges a password, within the limits on logins. It takes as long for a user
// that does not exist.
func (s *Service) checkLogin(ctx context.Context, remote netip.Addr, uid, password string) (models.User, error) {
	if err := s.guard.mayEnter(im.User(uid)); err != nil {
		return models.User{}, err
	}
	u, err := s.Store.User(ctx, uid)
	if err != nil && !errors.Is(err, models.ErrNotFound) {
		return models.User{}, shown(err, nil)
	}
	if err := s.hasher.acquire(ctx); err != nil {
		return models.User{}, err
	}
	// Counted when its turn has come: those that wait have tried nothing yet.
	tried, err := s.guard.begin(uid, remote)
	if err != nil {
		s.hasher.release()
		return models.User{}, err
	}
	match, stale, err := s.hasher.verify(u.Password, password)
	s.hasher.release()
	switch {
	case err != nil:
		tried.undo()
		return models.User{}, fmt.Errorf("account: password of %q: %w", uid, err)
	case !match:
		return models.User{}, ErrCredentials
	}
	tried.succeed()
	if err := s.guard.enter(im.User(uid)); err != nil {
		return models.User{}, err
	}
	if stale {
		s.rehash(ctx, u, password)
	}
	return u, nil
}

// rehash brings a stored hash to the present costs; without success the login is still good.
func (s *Service) rehash(ctx context.Context, u models.User, password string) {
	hash, err := s.hasher.hash(ctx, password)
	if err == nil {
		err = s.Store.RehashPassword(ctx, u.UID, u.Password, hash)
	}
	if err != nil {
		s.Log.Warn("a password could not be hashed again", "user", u.UID, "error", err)
	}
}

// signIn records the client and signs its token.
func (s *Service) signIn(ctx context.Context, session Session, d Device, ttl time.Duration) (Session, error) {
	if d.ClientID == "" {
		if session.Owner.Kind == im.KindNode {
			d.ClientID = session.Owner.ID
		} else {
			d.ClientID = strings.ToLower(rand.Text()[:16])
		}
	}
	expires := s.Now().Add(ttl).Truncate(time.Second) // what a token can hold
	client, err := s.admit(ctx, models.SignIn{
		Owner: session.Owner, Limit: s.ClientsPerUser,
		Client: models.Client{
			ClientID: d.ClientID, Type: d.Type, AppID: d.AppID, DeviceID: d.DeviceID,
			Ticket: token.NewTicket(), TokenExpires: expires.UnixMilli(),
		},
	})
	if err != nil {
		return Session{}, err
	}
	session.Client, session.Ticket, session.Expires = client, client.Ticket, expires
	session.Token, err = s.Tokens.Sign(token.Claims{
		Subject: session.Owner, Client: client.ClientID, Ticket: client.Ticket,
		Role: session.role(), Expires: expires,
	})
	return session, err
}

func (s Session) role() string {
	if s.Owner.Kind == im.KindNode {
		return models.RoleNode
	}
	return s.User.Role
}

// admit records a login, if need be in the place of the client that was not seen for longest
// and is not online.
func (s *Service) admit(ctx context.Context, in models.SignIn) (models.Client, error) {
	full := im.Errorf(CodeTooManyClients, "client", "%d clients are logged in and online", in.Limit)
	for range 3 { // again if another login of the user took the place
		c, err := s.Store.SignIn(ctx, in)
		var noRoom *models.FullError
		if !errors.As(err, &noRoom) {
			return c, shown(err, ErrCredentials) // the user is gone meanwhile
		}
		clients, err := s.Store.Clients(ctx, in.Owner)
		if err != nil {
			return models.Client{}, shown(err, nil)
		}
		in.Evict = ""
		for _, c := range clients { // the one seen last comes first
			if !s.Sessions.IsOnline(in.Owner, c.ClientID) {
				in.Evict = c.ClientID
			}
		}
		if in.Evict == "" {
			return models.Client{}, full
		}
	}
	return models.Client{}, full
}

// Refresh returns a new token for the login that the claims are of.
func (s *Service) Refresh(ctx context.Context, c token.Claims) (raw string, expires time.Time, err error) {
	expires = s.Now().Add(s.TTL).Truncate(time.Second)
	err = s.Store.ExtendTicket(ctx, c.Subject, c.Client, c.Ticket, expires.UnixMilli())
	if err != nil {
		return "", time.Time{}, shown(err, token.ErrTokenRevoked)
	}
	c.Expires = expires
	raw, err = s.Tokens.Sign(c)
	return raw, expires, err
}

// Logout ends the caller's own login.
func (s *Service) Logout(ctx context.Context, p im.Principal) error {
	err := s.Store.RemoveClient(ctx, p.Address, p.Client, p.Ticket)
	if errors.Is(err, models.ErrNotFound) {
		return nil // ended already
	}
	return shown(err, nil)
}

// Clients lists the clients of an owner, the one seen last first.
func (s *Service) Clients(ctx context.Context, owner im.Address) ([]models.Client, error) {
	clients, err := s.Store.Clients(ctx, owner)
	return clients, shown(err, nil)
}

// SignOut ends the login of one client, everywhere at once.
func (s *Service) SignOut(ctx context.Context, owner im.Address, client string) error {
	return shown(s.Store.RemoveClient(ctx, owner, client, ""),
		im.Errorf(im.CodeNotFound, "", "there is no such client"))
}

// ChangePassword replaces the caller's password and signs out its other clients. The old
// password is judged within the limits on failed logins.
func (s *Service) ChangePassword(ctx context.Context, remote netip.Addr, p im.Principal, old, password string) error {
	if p.Address.Kind != im.KindUser {
		return im.Errorf(im.CodeForbidden, "", "only users have a password")
	}
	if err := checkPassword("new", password); err != nil {
		return err
	}
	if _, err := s.checkLogin(ctx, remote, p.Address.ID, old); err != nil {
		if errors.Is(err, ErrCredentials) {
			return im.Errorf(im.CodeForbidden, "old", "the password is wrong")
		}
		return err
	}
	return s.SetPassword(ctx, p.Address.ID, password, p.Client)
}

// Mint signs a client in without a password, for the operator: owner is a user or a node. A
// ttl of 0 takes the default; token.MaxTTL is the most.
func (s *Service) Mint(ctx context.Context, owner im.Address, d Device, ttl time.Duration) (Session, error) {
	if ttl == 0 {
		ttl = s.TTL
	}
	if ttl < time.Second || ttl > token.MaxTTL {
		return Session{}, im.Errorf(im.CodeInvalid, "ttl", "must be between 1s and %v", token.MaxTTL)
	}
	if err := checkDevice(d); err != nil {
		return Session{}, err
	}
	session := Session{Owner: owner}
	var err error
	switch owner.Kind {
	case im.KindUser:
		session.User, err = s.User(ctx, owner.ID)
		if err == nil && session.User.State != models.StateActive {
			err = im.Errorf(CodeDisabled, "", "this account is disabled")
		}
	case im.KindNode:
		session.Node, err = s.Store.Node(ctx, owner.ID)
		err = shown(err, im.Errorf(im.CodeNotFound, "", "there is no such node"))
	default:
		err = im.Errorf(im.CodeInvalidAddress, "", "tokens are for users and nodes")
	}
	if err != nil {
		return Session{}, err
	}
	return s.signIn(ctx, session, d, ttl)
}

// AddNode registers a node and returns its secret, which cannot be shown again. The server's
// own node name (Options.Node) is not given out: its address is where the broker's events
// come from.
func (s *Service) AddNode(ctx context.Context, id, nick string) (models.Node, string, error) {
	if err := im.CheckID(id); err != nil {
		return models.Node{}, "", im.Errorf(im.CodeInvalid, "id", "%s", im.AsError(err).Message)
	}
	if id == s.Node {
		return models.Node{}, "", im.Errorf(im.CodeConflict, "id", "%q is the name of this server, which its own events are from", id)
	}
	if err := checkText("nick", nick, MaxNick); err != nil {
		return models.Node{}, "", err
	}
	secret := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(secret))
	n, err := s.Store.CreateNode(ctx, models.Node{ID: id, Nick: nick, Secret: sum[:]})
	var conflict *models.ConflictError
	if errors.As(err, &conflict) {
		return models.Node{}, "", im.Errorf(im.CodeConflict, "id", "%q exists already", id)
	}
	return n, secret, shown(err, nil)
}
