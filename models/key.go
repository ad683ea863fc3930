package models

import (
	"context"

	"gorm.io/gorm"
)

// SigningKey is a key that the domain's tokens are signed with. Every process of the domain
// reads it here.
type SigningKey struct {
	KID       string `gorm:"column:kid;primaryKey"`
	Seed      []byte `gorm:"column:seed"` // of an Ed25519 private key
	Created   int64  `gorm:"column:created"`
	Activated int64  `gorm:"column:activated"` // signs from then on
	Retired   int64  `gorm:"column:retired"`   // signs until then; 0 for not yet
}

// TableName implements GORM's Tabler.
func (SigningKey) TableName() string { return "signing_keys" }

// maxKeys is far above the few that rotation leaves.
const maxKeys = 100

// SigningKeys lists the keys, the newest first.
func (s *Store) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	var keys []SigningKey
	err := s.read(ctx, "signing keys", func(db *gorm.DB) error {
		return db.Order("activated DESC, kid DESC").Limit(maxKeys).Find(&keys).Error
	})
	return keys, err
}

// AddSigningKey adds a key and retires the others from the moment that it is active.
func (s *Store) AddSigningKey(ctx context.Context, key SigningKey) error {
	key.Created = s.now().UnixMilli()
	return s.write(ctx, "add signing key", func(tx *gorm.DB) ([]Change, error) {
		err := tx.Model(&SigningKey{}).Where("retired = 0").Update("retired", key.Activated).Error
		if err != nil {
			return nil, err
		}
		return []Change{{Kind: ChangeKeys}}, tx.Create(&key).Error
	})
}

// DeleteSigningKeys removes the keys that were retired before the given moment (Unix
// milliseconds); tokens signed with them are not accepted any more.
func (s *Store) DeleteSigningKeys(ctx context.Context, before int64) error {
	return s.write(ctx, "delete signing keys", func(tx *gorm.DB) ([]Change, error) {
		result := tx.Where("retired > 0 AND retired < ?", before).Delete(&SigningKey{})
		if result.Error != nil || result.RowsAffected == 0 {
			return nil, result.Error
		}
		return []Change{{Kind: ChangeKeys}}, nil
	})
}
