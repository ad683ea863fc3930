// Package account is what people and operators do with accounts: register, log in, change a
// password, sign clients out, mint tokens. The REST handlers and the command line are thin
// layers over it.
//
// Errors that may be shown are *im.Error (possibly inside a *TooManyError); anything else
// is a fault of ours.
package account

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
)

// The codes of refusals that only accounts have.
const (
	CodeNameTaken          im.Code = "name_taken"
	CodeInvalidCredentials im.Code = "invalid_credentials"
	CodeDisabled           im.Code = "account_disabled"
	CodeTooManyClients     im.Code = "too_many_clients"
	CodeClosed             im.Code = "registration_closed"
)

// ErrCredentials is the one answer to a wrong name and to a wrong password.
var ErrCredentials error = im.Errorf(CodeInvalidCredentials, "", "the user name or the password is wrong")

var errNoUser error = im.Errorf(im.CodeNotFound, "", "there is no such user")

// Sessions tells who is connected at this moment.
type Sessions interface {
	// IsOnline tells whether the owner's client has a live session on any node.
	IsOnline(owner im.Address, client string) bool
}

// Options configure a Service; zero values of the optional fields take the defaults.
type Options struct {
	Store          *models.Store
	Tokens         *token.Authority
	Log            *slog.Logger
	Sessions       Sessions      // optional: it is not known who is online
	Node           string        // the server's own node name, which no registered node may have
	TTL            time.Duration // of tokens; token.DefaultTTL
	ClientsPerUser int           // 20
	Logins         int           // failed logins at once of one account from one address; 10
	Successes      int           // good logins at once of one account, then one a second; twice ClientsPerUser, 20 or more
	Registrations  int           // accounts an hour from one address; 1,000
	Closed         bool          // nobody registers an account; CreateUser still works
	Hash           HashParams    // DefaultHash
	Hashes         int           // passwords hashed at a time; half of the processors
	Now            func() time.Time
}

// Service is safe for concurrent use.
type Service struct {
	Options
	hasher        *hasher
	guard         *guard
	registrations *buckets[netip.Addr]
}

// anybodyOnline stands for Sessions in a process that serves nobody: a client that may well
// be online is not signed out to make room for another.
type anybodyOnline struct{}

func (anybodyOnline) IsOnline(im.Address, string) bool { return true }

// New makes a service.
func New(o Options) *Service {
	if o.Sessions == nil {
		o.Sessions = anybodyOnline{}
	}
	if o.TTL == 0 {
		o.TTL = token.DefaultTTL
	}
	if o.ClientsPerUser == 0 {
		o.ClientsPerUser = 20
	}
	if o.Logins == 0 {
		o.Logins = 10
	}
	if o.Successes == 0 {
		o.Successes = max(20, 2*o.ClientsPerUser) // all its clients at once, and once more
	}
	if o.Registrations == 0 {
		o.Registrations = 1000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Service{
		Options: o, hasher: newHasher(o.Hash, o.Hashes), guard: newGuard(o.Logins, o.Successes, o.Now),
		registrations: newBuckets[netip.Addr](o.Registrations, time.Hour/time.Duration(o.Registrations)),
	}
}

// NewUser describes an account to be made.
type NewUser struct {
	Name     string // the uid is the name in lower case
	Password string
	Nick     string // empty: the name as written
	Role     string // empty: models.RoleUser
}

// Name returns the uid of a user name: composed (Unicode NFC) and in lower case.
func Name(name string) string {
	return norm.NFC.String(strings.ToLower(norm.NFC.String(name)))
}

// Register makes an account for somebody who asks for one over the network.
func (s *Service) Register(ctx context.Context, remote netip.Addr, n NewUser) (models.User, error) {
	if s.Closed {
		return models.User{}, im.Errorf(CodeClosed, "", "this domain does not take registrations")
	}
	if err := checkNewUser(n); err != nil {
		return models.User{}, err
	}
	if wait := s.registrations.take(network(remote), s.Now()); wait > 0 {
		return models.User{}, tooMany(wait)
	}
	n.Role = models.RoleUser
	return s.CreateUser(ctx, n)
}

// CreateUser makes an account.
func (s *Service) CreateUser(ctx context.Context, n NewUser) (models.User, error) {
	if err := checkNewUser(n); err != nil {
		return models.User{}, err
	}
	if n.Role != "" && n.Role != models.RoleUser && n.Role != models.RoleAdmin {
		return models.User{}, im.Errorf(im.CodeInvalid, "role", "is neither user nor admin")
	}
	uid := Name(n.Name)
	// Looked up before the password is hashed, which is dear; the insert decides.
	taken, err := s.Store.UserExists(ctx, uid)
	switch {
	case err != nil:
		return models.User{}, shown(err, nil)
	case taken:
		return models.User{}, errNameTaken(uid)
	}
	hash, err := s.hasher.hash(ctx, n.Password)
	if err != nil {
		return models.User{}, err
	}
	if n.Nick == "" {
		n.Nick = norm.NFC.String(n.Name)
	}
	u, err := s.Store.CreateUser(ctx, models.User{UID: uid, Nick: n.Nick, Password: hash, Role: n.Role})
	var conflict *models.ConflictError
	if errors.As(err, &conflict) {
		return models.User{}, errNameTaken(uid)
	}
	return u, shown(err, nil)
}

func checkNewUser(n NewUser) error {
	if n.Name == "" {
		return im.Errorf(im.CodeInvalid, "username", "is required")
	}
	if err := im.CheckID(Name(n.Name)); err != nil {
		return im.Errorf(im.CodeInvalid, "username", "%s", im.AsError(err).Message)
	}
	if err := checkText("nick", n.Nick, MaxNick); err != nil {
		return err
	}
	return checkPassword("password", n.Password)
}

func errNameTaken(uid string) error {
	return im.Errorf(CodeNameTaken, "username", "%q is taken", uid)
}

// User returns an account.
func (s *Service) User(ctx context.Context, uid string) (models.User, error) {
	u, err := s.Store.User(ctx, uid)
	return u, shown(err, errNoUser)
}

// Limits of the profile, in bytes.
const (
	MaxNick   = 256
	MaxAvatar = 2048
	maxDevice = 256
)

// Profile is a change of what a user says of itself; nil leaves a field as it is.
type Profile struct{ Nick, Avatar *string }

// UpdateProfile changes a user's profile and returns the account.
func (s *Service) UpdateProfile(ctx context.Context, uid string, p Profile) (models.User, error) {
	for _, field := range []struct {
		name  string
		value *string
		limit int
	}{{"nick", p.Nick, MaxNick}, {"avatar", p.Avatar, MaxAvatar}} {
		if field.value != nil {
			if err := checkText(field.name, *field.value, field.limit); err != nil {
				return models.User{}, err
			}
		}
	}
	u, err := s.Store.UpdateUser(ctx, uid, models.UserPatch{Nick: p.Nick, Avatar: p.Avatar}, "")
	return u, shown(err, errNoUser)
}

// SetPassword gives a user a new password and signs all its clients out but keep.
func (s *Service) SetPassword(ctx context.Context, uid, password, keep string) error {
	if err := checkPassword("password", password); err != nil {
		return err
	}
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	_, err = s.Store.UpdateUser(ctx, uid, models.UserPatch{Password: &hash}, keep)
	return shown(err, errNoUser)
}

// DeleteUser ends an account and everything that it owns here. Its name is not given out again.
func (s *Service) DeleteUser(ctx context.Context, uid string) error {
	return shown(s.Store.DeleteUser(ctx, uid), errNoUser)
}

// Users lists accounts in the order of their uids, from the one after the given uid; at most
// limit and models.MaxPage.
func (s *Service) Users(ctx context.Context, after string, limit int) ([]models.User, error) {
	users, err := s.Store.Users(ctx, after, limit)
	return users, shown(err, nil)
}

// checkText accepts UTF-8 without control characters.
func checkText(field, value string, limit int) error {
	switch {
	case len(value) > limit:
		return im.Errorf(im.CodeInvalid, field, "is longer than %d bytes", limit)
	case !utf8.ValidString(value):
		return im.Errorf(im.CodeInvalid, field, "is not UTF-8")
	case strings.ContainsFunc(value, unicode.IsControl):
		return im.Errorf(im.CodeInvalid, field, "contains a control character")
	}
	return nil
}

// shown turns an error of models into one that may be shown; notFound, unless nil, takes the
// place of models.ErrNotFound.
func shown(err, notFound error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, models.ErrNotFound) && notFound != nil:
		return notFound
	case errors.Is(err, models.ErrUnavailable):
		return &im.Error{Code: im.CodeUnavailable, Message: "the account database does not answer", Err: err}
	}
	return err
}
