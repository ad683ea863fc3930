package models

import (
	"context"
	"time"

	"gorm.io/gorm"

	"github.com/slimchat/slimchat/im"
)

// ChangeKind says what a change is about.
type ChangeKind string

// The kinds of change. Readers ignore kinds that they do not know.
const (
	ChangeRevoke ChangeKind = "revoke" // Ticket of Owner's Client is no longer valid: end its live session
	ChangeUser   ChangeKind = "user"   // Owner was created, changed or deleted: evict it
	ChangeClient ChangeKind = "client" // Owner's Client was added or removed: evict it
	ChangeKeys   ChangeKind = "keys"   // the signing keys changed: read them again
	// ChangeReset is never stored: the feed gives it when it may have missed changes of the
	// other kinds (never a revocation), and everything cached must go.
	ChangeReset ChangeKind = "reset"
)

// Change is something that every process of the domain must hear of.
type Change struct {
	ID      int64
	Kind    ChangeKind
	Owner   im.Address // a user or a node; zero for ChangeKeys and ChangeReset
	Client  string
	Ticket  string
	Expires int64 // revoke: when the ticket's last token ends, Unix milliseconds
}

type changeRow struct {
	ID      int64  `gorm:"column:id;primaryKey;autoIncrement"`
	At      int64  `gorm:"column:at"`
	Kind    string `gorm:"column:kind"`
	Owner   string `gorm:"column:owner"` // as on the wire: user/alice
	Client  string `gorm:"column:client"`
	Ticket  string `gorm:"column:ticket"`
	Expires int64  `gorm:"column:expires"` // the row is not needed after that
}

// TableName implements GORM's Tabler.
func (changeRow) TableName() string { return "changes" }

// changeRetention is how long a change other than a revocation is kept, and the least that
// a revocation is kept: a process that reads the feed again within this time misses nothing.
const changeRetention = 10 * time.Minute

func (s *Store) changeRows(changes []Change) []changeRow {
	now := s.now().UnixMilli()
	rows := make([]changeRow, len(changes))
	for i, c := range changes {
		rows[i] = changeRow{
			At: now, Kind: string(c.Kind), Owner: c.Owner.String(), Client: c.Client, Ticket: c.Ticket,
			Expires: max(c.Expires, now+changeRetention.Milliseconds()),
		}
	}
	return rows
}

func (r changeRow) change() Change {
	owner, err := im.ParseAddress(r.Owner)
	if err != nil { // keys have none
		owner = im.Address{}
	}
	return Change{
		ID: r.ID, Kind: ChangeKind(r.Kind), Owner: owner, Client: r.Client, Ticket: r.Ticket, Expires: r.Expires,
	}
}

// changesAfter reads up to limit rows with a higher id, in order.
func (s *Store) changesAfter(ctx context.Context, id int64, limit int) ([]changeRow, error) {
	var rows []changeRow
	err := s.read(ctx, "read changes", func(db *gorm.DB) error {
		return db.Where("id > ?", id).Order("id").Limit(limit).Find(&rows).Error
	})
	return rows, err
}

// lastChange is the highest id in the feed.
func (s *Store) lastChange(ctx context.Context) (int64, error) {
	var id int64
	err := s.read(ctx, "last change", func(db *gorm.DB) error {
		return db.Raw("SELECT COALESCE(MAX(id), 0) FROM changes").Scan(&id).Error
	})
	return id, err
}

// eachRevocation calls fn with every revocation that has not expired.
func (s *Store) eachRevocation(ctx context.Context, fn func(Change)) error {
	expires, id := s.now().UnixMilli(), int64(0)
	for {
		var rows []changeRow
		err := s.read(ctx, "read revocations", func(db *gorm.DB) error {
			return db.Where("(expires, id) > (?, ?)", expires, id).
				Order("expires, id").Limit(MaxPage).Find(&rows).Error
		})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.Kind == string(ChangeRevoke) {
				fn(row.change())
			}
		}
		if len(rows) < MaxPage {
			return nil
		}
		expires, id = rows[len(rows)-1].Expires, rows[len(rows)-1].ID
	}
}

// dropChanges removes up to MaxPage rows that have expired.
func (s *Store) dropChanges(ctx context.Context) error {
	now := s.now().UnixMilli()
	return s.write(ctx, "drop changes", func(tx *gorm.DB) ([]Change, error) {
		return nil, tx.Exec("DELETE FROM changes WHERE id IN "+
			"(SELECT id FROM changes WHERE expires < ? ORDER BY expires, id LIMIT ?)", now, MaxPage).Error
	})
}
