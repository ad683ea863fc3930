package models

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"github.com/slimchat/slimchat/im"
)

// Client is one terminal of a user, or of a node, and the login that it holds.
type Client struct {
	ID           int64   `gorm:"column:id;primaryKey;autoIncrement"`
	UID          *string `gorm:"column:uid"`  // the owner: either a user
	Node         *string `gorm:"column:node"` // or a node
	ClientID     string  `gorm:"column:clientid"`
	Type         string  `gorm:"column:type"`
	AppID        string  `gorm:"column:appid"`
	DeviceID     string  `gorm:"column:deviceid"`
	Ticket       string  `gorm:"column:ticket"`
	TokenExpires int64   `gorm:"column:token_expires"` // when the ticket's last token ends
	LastSeen     int64   `gorm:"column:last_seen"`
	Created      int64   `gorm:"column:created"`
}

// TableName implements GORM's Tabler.
func (Client) TableName() string { return "clients" }

// Owner is the address of the user or node that the client belongs to.
func (c Client) Owner() im.Address {
	if c.Node != nil {
		return im.Node(*c.Node)
	}
	if c.UID != nil {
		return im.User(*c.UID)
	}
	return im.Address{}
}

// errOwner is a mistake of the caller: only users and nodes have clients.
var errOwner = errors.New("models: the owner of a client is a user or a node")

// ownedBy restricts a query on clients to those of one owner, by a unique index.
func ownedBy(owner im.Address) func(*gorm.DB) *gorm.DB {
	return func(db *gorm.DB) *gorm.DB {
		switch owner.Kind {
		case im.KindUser:
			return db.Where("uid = ?", owner.ID)
		case im.KindNode:
			return db.Where("node = ?", owner.ID)
		default:
			_ = db.AddError(errOwner)
			return db
		}
	}
}

// SignIn is a login to be recorded.
type SignIn struct {
	Owner  im.Address
	Client Client // ClientID, Type, AppID, DeviceID, Ticket, TokenExpires
	Limit  int    // how many clients the owner may have; 0 for no limit
	Evict  string // a client that may be signed out if there is no room otherwise
}

// SignIn records that a client holds a new ticket. A ticket that the client held before is
// revoked. A client that is new needs room: with Limit clients the Evict one is signed out,
// or the error is a *FullError. ErrNotFound if the owner does not exist (or is not active).
func (s *Store) SignIn(ctx context.Context, in SignIn) (Client, error) {
	c := in.Client
	c.LastSeen = s.now().UnixMilli()
	c.Created = c.LastSeen
	err := s.write(ctx, "sign in", func(tx *gorm.DB) ([]Change, error) {
		if err := lockOwner(tx, in.Owner, &c); err != nil {
			return nil, err
		}
		var old Client
		err := tx.Scopes(ownedBy(in.Owner)).Where("clientid = ?", c.ClientID).Take(&old).Error
		if err == nil {
			c.ID, c.Created = old.ID, old.Created
			return s.revocation(in.Owner, old), tx.Model(&c).Select("*").Updates(&c).Error
		}
		if !errors.Is(err, gorm.ErrRecordNotFound) {
			return nil, err
		}
		changes, err := s.makeRoom(tx, in)
		if err != nil {
			return nil, err
		}
		changes = append(changes, Change{Kind: ChangeClient, Owner: in.Owner, Client: c.ClientID})
		return changes, tx.Create(&c).Error
	})
	if err != nil {
		return Client{}, err
	}
	return c, nil
}

// lockOwner makes the logins of one owner wait for each other and fills in the owner.
func lockOwner(tx *gorm.DB, owner im.Address, c *Client) error {
	switch owner.Kind {
	case im.KindUser:
		c.UID, c.Node = &owner.ID, nil
		var u User
		if err := lockUser(tx, owner.ID, &u); err != nil {
			return err
		}
		if u.State != StateActive {
			return fmt.Errorf("%w: the user is not active", ErrNotFound)
		}
		return nil
	case im.KindNode:
		c.UID, c.Node = nil, &owner.ID
		return lockNode(tx, owner.ID)
	default:
		return errOwner
	}
}

func (s *Store) makeRoom(tx *gorm.DB, in SignIn) ([]Change, error) {
	if in.Limit <= 0 {
		return nil, nil
	}
	var count int64
	if err := tx.Model(&Client{}).Scopes(ownedBy(in.Owner)).Count(&count).Error; err != nil {
		return nil, err
	}
	if count < int64(in.Limit) {
		return nil, nil
	}
	if in.Evict == "" {
		return nil, &FullError{Limit: in.Limit}
	}
	changes, err := s.removeClient(tx, in.Owner, in.Evict, "")
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, &FullError{Limit: in.Limit} // somebody else took the place
	}
	return changes, err
}

// maxClients is the most that limits.clients_per_user allows.
const maxClients = 10_000

// Clients lists the clients of an owner, the one seen most recently first.
func (s *Store) Clients(ctx context.Context, owner im.Address) ([]Client, error) {
	var clients []Client
	err := s.read(ctx, "list clients", func(db *gorm.DB) error {
		return db.Scopes(ownedBy(owner)).Order("last_seen DESC, clientid").Limit(maxClients).Find(&clients).Error
	})
	return clients, err
}

// Client returns one client, or ErrNotFound.
func (s *Store) Client(ctx context.Context, owner im.Address, clientID string) (Client, error) {
	var c Client
	err := s.read(ctx, "client", func(db *gorm.DB) error {
		return db.Scopes(ownedBy(owner)).Where("clientid = ?", clientID).Take(&c).Error
	})
	return c, err
}

// ExtendTicket records that a token until expires (Unix milliseconds) was given out for the
// ticket. ErrNotFound if the client is gone or holds another ticket.
func (s *Store) ExtendTicket(ctx context.Context, owner im.Address, clientID, ticket string, expires int64) error {
	return s.write(ctx, "extend ticket", func(tx *gorm.DB) ([]Change, error) {
		result := tx.Model(&Client{}).Scopes(ownedBy(owner)).
			Where("clientid = ? AND ticket = ?", clientID, ticket).
			Updates(map[string]any{
				"token_expires": gorm.Expr("CASE WHEN token_expires < ? THEN ? ELSE token_expires END", expires, expires),
				"last_seen":     s.now().UnixMilli(),
			})
		if result.Error == nil && result.RowsAffected == 0 {
			return nil, ErrNotFound
		}
		return nil, result.Error
	})
}

// RemoveClient signs a client out: its row is removed and its ticket revoked, on every
// process of the domain within a second. With a ticket it does so only if the client still
// holds it. ErrNotFound if there is no such client.
func (s *Store) RemoveClient(ctx context.Context, owner im.Address, clientID, ticket string) error {
	return s.write(ctx, "remove client", func(tx *gorm.DB) ([]Change, error) {
		return s.removeClient(tx, owner, clientID, ticket)
	})
}

func (s *Store) removeClient(tx *gorm.DB, owner im.Address, clientID, ticket string) ([]Change, error) {
	var c Client
	query := tx.Scopes(ownedBy(owner)).Where("clientid = ?", clientID)
	if ticket != "" {
		query = query.Where("ticket = ?", ticket)
	}
	if err := query.Take(&c).Error; err != nil {
		return nil, err
	}
	// By ticket as well: a login that came in between holds a new one and stays.
	result := tx.Where("id = ? AND ticket = ?", c.ID, c.Ticket).Delete(&Client{})
	if result.Error == nil && result.RowsAffected == 0 {
		return nil, ErrNotFound
	}
	return append(s.revocation(owner, c), Change{Kind: ChangeClient, Owner: owner, Client: clientID}), result.Error
}

// removeClients removes all clients of an owner that the transaction has locked, but keep.
func (s *Store) removeClients(tx *gorm.DB, owner im.Address, keep string) ([]Change, error) {
	var clients []Client
	if err := tx.Scopes(ownedBy(owner)).Where("clientid <> ?", keep).Find(&clients).Error; err != nil {
		return nil, err
	}
	if len(clients) == 0 {
		return nil, nil
	}
	var changes []Change
	for _, c := range clients {
		changes = append(changes, s.revocation(owner, c)...)
		changes = append(changes, Change{Kind: ChangeClient, Owner: owner, Client: c.ClientID})
	}
	return changes, tx.Scopes(ownedBy(owner)).Where("clientid <> ?", keep).Delete(&Client{}).Error
}

// revocation ends a client's ticket. It is written even when the ticket's last token has
// ended, because a session that was opened with it may still be live.
func (s *Store) revocation(owner im.Address, c Client) []Change {
	return []Change{{
		Kind: ChangeRevoke, Owner: owner, Client: c.ClientID, Ticket: c.Ticket, Expires: c.TokenExpires,
	}}
}

// ClientExists tells whether the user has such a client.
func (s *Store) ClientExists(ctx context.Context, uid, clientID string) (bool, error) {
	return s.exists(ctx, "client exists",
		"SELECT 1 FROM clients WHERE uid = ? AND clientid = ?", uid, clientID)
}

// ClientCount tells how many clients the user has; it counts no further than MaxPage.
func (s *Store) ClientCount(ctx context.Context, uid string) (int, error) {
	var count int
	err := s.read(ctx, "count clients", func(db *gorm.DB) error {
		return db.Raw("SELECT count(*) FROM (SELECT 1 FROM clients WHERE uid = ? LIMIT ?) AS c", uid, MaxPage).
			Scan(&count).Error
	})
	return count, err
}
