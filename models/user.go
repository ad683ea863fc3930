package models

import (
	"context"
	"fmt"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/slimchat/slimchat/im"
)

// The states of a user. A deleted user's row stays without its contents, so that nobody
// else is given the name and, with it, the messages that are still addressed to it.
const (
	StateActive   = "active"
	StateDisabled = "disabled" // may not log in
	StateDeleted  = "deleted"  // every query answers as if there were no such user
)

// The roles of a principal.
const (
	RoleUser  = "user"
	RoleAdmin = "admin"
	RoleNode  = "node"
)

// MaxPage bounds the rows of one list query.
const MaxPage = 1000

// User is a person's account.
type User struct {
	UID      string `gorm:"column:uid;primaryKey"`
	Nick     string `gorm:"column:nick"`
	Avatar   string `gorm:"column:avatar"`
	Password string `gorm:"column:password"` // PHC string; empty: no password is right
	Role     string `gorm:"column:role"`
	State    string `gorm:"column:state"`
	Created  int64  `gorm:"column:created"`
	Updated  int64  `gorm:"column:updated"`
}

// TableName implements GORM's Tabler.
func (User) TableName() string { return "users" }

// UserPatch says what to change; nil leaves a field as it is.
type UserPatch struct {
	Nick, Avatar, Password, Role, State *string
}

func (p UserPatch) columns() map[string]any {
	set := make(map[string]any, 6)
	for name, value := range map[string]*string{
		"nick": p.Nick, "avatar": p.Avatar, "password": p.Password, "role": p.Role, "state": p.State,
	} {
		if value != nil {
			set[name] = *value
		}
	}
	return set
}

// CreateUser adds a user; Created, Updated and empty Role and State are filled in. The error
// is a *ConflictError when the uid is taken, also by a deleted user.
func (s *Store) CreateUser(ctx context.Context, u User) (User, error) {
	u.Created = s.now().UnixMilli()
	u.Updated = u.Created
	if u.Role == "" {
		u.Role = RoleUser
	}
	if u.State == "" {
		u.State = StateActive
	}
	err := s.write(ctx, "create user", func(tx *gorm.DB) ([]Change, error) {
		return []Change{{Kind: ChangeUser, Owner: im.User(u.UID)}}, tx.Create(&u).Error
	})
	if err != nil {
		return User{}, err
	}
	return u, nil
}

// User returns an account that is not deleted, or ErrNotFound.
func (s *Store) User(ctx context.Context, uid string) (User, error) {
	var u User
	err := s.read(ctx, "user", func(db *gorm.DB) error {
		return db.Where("uid = ? AND state <> ?", uid, StateDeleted).Take(&u).Error
	})
	return u, err
}

// Users lists up to limit accounts (at most MaxPage) whose uid comes after the given one,
// in the order of their bytes.
func (s *Store) Users(ctx context.Context, after string, limit int) ([]User, error) {
	var users []User
	err := s.read(ctx, "list users", func(db *gorm.DB) error {
		return db.Where("uid > ? AND state <> ?", after, StateDeleted).
			Order("uid").Limit(min(max(limit, 1), MaxPage)).Find(&users).Error
	})
	return users, err
}

// UpdateUser changes an account and returns it, or ErrNotFound. A change of the role or to
// another state than active signs every client of the user out, so that no token is left
// that says otherwise; a change of the password signs out all but the client keep.
func (s *Store) UpdateUser(ctx context.Context, uid string, patch UserPatch, keep string) (User, error) {
	var u User
	err := s.write(ctx, "update user", func(tx *gorm.DB) ([]Change, error) {
		if err := lockUser(tx, uid, &u); err != nil {
			return nil, err
		}
		changes := []Change{{Kind: ChangeUser, Owner: im.User(uid)}}
		ended, all := endsSessions(u, patch)
		if ended {
			if all {
				keep = ""
			}
			gone, err := s.removeClients(tx, im.User(uid), keep)
			if err != nil {
				return nil, err
			}
			changes = append(changes, gone...)
		}
		set := patch.columns()
		set["updated"] = s.now().UnixMilli()
		if err := tx.Model(&User{}).Where("uid = ?", uid).Updates(set).Error; err != nil {
			return nil, err
		}
		return changes, tx.Where("uid = ?", uid).Take(&u).Error
	})
	if err != nil {
		return User{}, err
	}
	return u, nil
}

func endsSessions(u User, patch UserPatch) (ended, all bool) {
	all = patch.Role != nil && *patch.Role != u.Role ||
		patch.State != nil && *patch.State != u.State && *patch.State != StateActive
	return all || patch.Password != nil, all
}

// RehashPassword replaces the stored hash of an unchanged password, unless the password was
// changed meanwhile. Nobody is signed out.
func (s *Store) RehashPassword(ctx context.Context, uid, from, to string) error {
	return s.write(ctx, "rehash password", func(tx *gorm.DB) ([]Change, error) {
		return nil, tx.Model(&User{}).Where("uid = ? AND password = ?", uid, from).
			Update("password", to).Error
	})
}

// DeleteUser ends an account: its clients are signed out and removed, its profile and
// password are erased, its name stays taken. ErrNotFound if there is no such account.
func (s *Store) DeleteUser(ctx context.Context, uid string) error {
	return s.write(ctx, "delete user", func(tx *gorm.DB) ([]Change, error) {
		var u User
		if err := lockUser(tx, uid, &u); err != nil {
			return nil, err
		}
		changes, err := s.removeClients(tx, im.User(uid), "")
		if err != nil {
			return nil, err
		}
		err = tx.Model(&User{}).Where("uid = ?", uid).Updates(map[string]any{
			"nick": "", "avatar": "", "password": "", "role": RoleUser,
			"state": StateDeleted, "updated": s.now().UnixMilli(),
		}).Error
		return append(changes, Change{Kind: ChangeUser, Owner: im.User(uid)}), err
	})
}

// lockUser reads a user that is not deleted and keeps others from changing it until the
// transaction ends.
func lockUser(tx *gorm.DB, uid string, u *User) error {
	return tx.Clauses(clause.Locking{Strength: "UPDATE"}).
		Where("uid = ? AND state <> ?", uid, StateDeleted).Take(u).Error
}

// UserExists tells whether the user exists and is not deleted.
func (s *Store) UserExists(ctx context.Context, uid string) (bool, error) {
	return s.exists(ctx, "user exists",
		"SELECT 1 FROM users WHERE uid = ? AND state <> ?", uid, StateDeleted)
}

func (s *Store) exists(ctx context.Context, op, query string, args ...any) (bool, error) {
	var found []int
	err := s.read(ctx, op, func(db *gorm.DB) error {
		return db.Raw(query+" LIMIT 1", args...).Scan(&found).Error
	})
	if err != nil {
		return false, fmt.Errorf("%s: %w", op, err)
	}
	return len(found) > 0, nil
}
