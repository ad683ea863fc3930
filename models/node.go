package models

import (
	"context"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/slimchat/slimchat/im"
)

// Node is a general endpoint: a device or a service that is not a person.
type Node struct {
	ID      string `gorm:"column:id;primaryKey"`
	Nick    string `gorm:"column:nick"`
	Secret  []byte `gorm:"column:secret"` // SHA-256 of the secret, which is random and long
	Created int64  `gorm:"column:created"`
}

// TableName implements GORM's Tabler.
func (Node) TableName() string { return "nodes" }

// CreateNode adds a node, a *ConflictError if the id is taken.
func (s *Store) CreateNode(ctx context.Context, n Node) (Node, error) {
	n.Created = s.now().UnixMilli()
	err := s.write(ctx, "create node", func(tx *gorm.DB) ([]Change, error) {
		return []Change{{Kind: ChangeUser, Owner: im.Node(n.ID)}}, tx.Create(&n).Error
	})
	return n, err
}

// Node returns the node, or ErrNotFound.
func (s *Store) Node(ctx context.Context, id string) (Node, error) {
	var n Node
	err := s.read(ctx, "node", func(db *gorm.DB) error {
		return db.Where("id = ?", id).Take(&n).Error
	})
	return n, err
}

// DeleteNode removes a node and signs its clients out, ErrNotFound if there is none.
func (s *Store) DeleteNode(ctx context.Context, id string) error {
	return s.write(ctx, "delete node", func(tx *gorm.DB) ([]Change, error) {
		if err := lockNode(tx, id); err != nil {
			return nil, err
		}
		changes, err := s.removeClients(tx, im.Node(id), "")
		if err != nil {
			return nil, err
		}
		return append(changes, Change{Kind: ChangeUser, Owner: im.Node(id)}),
			tx.Where("id = ?", id).Delete(&Node{}).Error
	})
}

func lockNode(tx *gorm.DB, id string) error {
	return tx.Clauses(clause.Locking{Strength: "UPDATE"}).
		Select("id").Where("id = ?", id).Take(&Node{}).Error
}

// NodeExists tells whether the node is registered.
func (s *Store) NodeExists(ctx context.Context, id string) (bool, error) {
	return s.exists(ctx, "node exists", "SELECT 1 FROM nodes WHERE id = ?", id)
}
