package models

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"gorm.io/gorm"

	"github.com/slimchat/slimchat/im"
)

const (
	seenInterval = 2 * time.Second
	seenMax      = 50_000 // clients waiting to be written; more are forgotten
	seenBatch    = 200    // rows of one statement
)

// LastSeen writes when clients were last connected, many in one transaction every two
// seconds. It is for people to look at: a crash loses the last seconds.
type LastSeen struct {
	store *Store
	log   *slog.Logger

	mu      sync.Mutex
	pending map[im.SessionKey]int64

	stop context.CancelFunc
	done chan struct{}
}

// NewLastSeen starts a writer; Close it before the store.
func NewLastSeen(store *Store, log *slog.Logger) *LastSeen {
	ctx, cancel := context.WithCancel(context.Background())
	l := &LastSeen{
		store: store, log: log, pending: make(map[im.SessionKey]int64),
		stop: cancel, done: make(chan struct{}),
	}
	go l.run(ctx)
	return l
}

// Seen notes that the owner's client was connected at the given time. It never blocks on
// the database.
func (l *LastSeen) Seen(owner im.Address, client string, at time.Time) {
	key := im.SessionKey{Owner: owner, Client: client}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.pending[key]; known || len(l.pending) < seenMax {
		l.pending[key] = max(l.pending[key], at.UnixMilli())
	}
}

// Close writes what is pending and stops.
func (l *LastSeen) Close() {
	l.stop()
	<-l.done
}

func (l *LastSeen) run(ctx context.Context) {
	defer close(l.done)
	ticker := time.NewTicker(seenInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush(context.WithoutCancel(ctx))
			return
		case <-ticker.C:
			l.flush(ctx)
		}
	}
}

func (l *LastSeen) flush(ctx context.Context) {
	l.mu.Lock()
	pending := l.pending
	l.pending = make(map[im.SessionKey]int64)
	l.mu.Unlock()
	if len(pending) == 0 {
		return
	}
	if err := l.store.saveLastSeen(ctx, pending); err != nil {
		l.log.Warn("when clients were last seen could not be written", "clients", len(pending), "error", err)
		for key, at := range pending { // try again with the next flush
			l.Seen(key.Owner, key.Client, time.UnixMilli(at))
		}
	}
}

func (s *Store) saveLastSeen(ctx context.Context, seen map[im.SessionKey]int64) error {
	users, nodes := make([]any, 0, 3*len(seen)), make([]any, 0)
	for key, at := range seen {
		if key.Owner.Kind == im.KindNode {
			nodes = append(nodes, key.Owner.ID, key.Client, at)
		} else {
			users = append(users, key.Owner.ID, key.Client, at)
		}
	}
	// One transaction for each batch: a storm must not hold the writer for long.
	for column, rows := range map[string][]any{"uid": users, "node": nodes} {
		for len(rows) > 0 {
			batch := rows[:min(len(rows), 3*seenBatch)]
			rows = rows[len(batch):]
			err := s.write(ctx, "last seen", func(tx *gorm.DB) ([]Change, error) {
				return nil, tx.Exec(lastSeenStatement(column, len(batch)/3), batch...).Error
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// lastSeenStatement updates n clients at once; column is uid or node.
func lastSeenStatement(column string, n int) string {
	row := "(CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT))"
	return "WITH seen (owner, clientid, at) AS (VALUES " + strings.Repeat(row+", ", n-1) + row + ") " +
		"UPDATE clients SET last_seen = seen.at FROM seen WHERE clients." + column + " = seen.owner " +
		"AND clients.clientid = seen.clientid AND clients.last_seen < seen.at"
}
