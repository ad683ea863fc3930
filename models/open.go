package models

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// Limits of the connection pools and of one operation.
const (
	sqliteReaders    = 4
	postgresConns    = 16
	operationTimeout = 5 * time.Second // a whole read or write transaction
)

// Store is the accounts database. Close it when nothing uses it any more.
type Store struct {
	writer, reader *gorm.DB // the same on Postgres
	pools          []*sql.DB
	onPostgres     bool
	now            func() time.Time
	feed           atomic.Pointer[Feed] // applies this process's own changes at once
	closed         atomic.Bool
}

// Open opens the database that dsn names, `sqlite:{path}` or `postgres://…`, and brings its
// schema up to date. A SQLite file and its folder are made when they do not exist, readable
// by this user alone, because the file holds the keys that tokens are signed with.
func Open(ctx context.Context, dsn string) (*Store, error) {
	s := &Store{now: time.Now}
	var err error
	switch {
	case strings.HasPrefix(dsn, "sqlite:"):
		err = s.openSQLite(ctx, strings.TrimPrefix(dsn, "sqlite:"))
	case strings.HasPrefix(dsn, "postgres://"), strings.HasPrefix(dsn, "postgresql://"):
		err = s.openPostgres(dsn)
	default:
		err = errors.New("models: the database must be sqlite:{path} or postgres://…")
	}
	if err == nil {
		err = s.Ping(ctx)
	}
	if err == nil {
		err = migrateSchema(ctx, s.pools[0], s.onPostgres)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openSQLite opens one connection that writes and a few that read: SQLite has one writer at
// a time, and writers that wait in Go's pool wait fairly and without polling the lock.
func (s *Store) openSQLite(ctx context.Context, path string) error {
	if path == "" || strings.HasPrefix(path, ":memory:") {
		return errors.New("models: sqlite: wants the path of a file")
	}
	if err := createPrivate(path); err != nil {
		return fmt.Errorf("models: %w", err)
	}
	// synchronous=FULL: what was answered to the user survives a power cut.
	base := "file:" + (&url.URL{Path: filepath.Clean(path)}).EscapedPath() +
		"?_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)" +
		"&_pragma=synchronous(FULL)&_pragma=journal_size_limit(16777216)"
	var err error
	if s.writer, err = s.pool(sqliteDialector(base+"&_txlock=immediate"), 1); err != nil {
		return err
	}
	if err := useWAL(ctx, s.pools[0]); err != nil {
		return err
	}
	s.reader, err = s.pool(sqliteDialector(base+"&_pragma=query_only(1)"), sqliteReaders)
	return err
}

// useWAL turns the write-ahead log on, which the file remembers. SQLite does not wait for
// its lock while it does so, so another process that is starting makes us try again.
func useWAL(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	for {
		var mode string
		err := db.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode)
		if err == nil && mode != "wal" {
			return fmt.Errorf("models: sqlite: journal mode is %s, want wal", mode)
		}
		if err = wrap("turn the write-ahead log on", err); !errors.Is(err, ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func sqliteDialector(dsn string) gorm.Dialector {
	return sqlite.New(sqlite.Config{DriverName: "sqlite", DSN: dsn})
}

func createPrivate(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("database folder: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("database file: %w", err)
	}
	return file.Close()
}

// openPostgres opens a pool whose statements and transactions the server itself ends when
// they take too long. The feed of changes relies on it: a transaction that was given an id
// commits or fails within a few seconds (see Feed).
func (s *Store) openPostgres(dsn string) error {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return errors.New("models: the postgres URL cannot be parsed") // err may quote the password
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = operationTimeout
	}
	for name, value := range map[string]string{
		"application_name":                    "slimchat",
		"statement_timeout":                   "5000",
		"idle_in_transaction_session_timeout": "4000",
	} {
		if _, set := config.RuntimeParams[name]; !set {
			config.RuntimeParams[name] = value
		}
	}
	s.onPostgres = true
	db := stdlib.OpenDB(*config)
	s.writer, err = s.pool(postgres.New(postgres.Config{Conn: db}), postgresConns)
	s.reader = s.writer
	if err != nil {
		err = errors.Join(err, db.Close())
	}
	return err
}

func (s *Store) pool(dialector gorm.Dialector, conns int) (*gorm.DB, error) {
	g, err := gorm.Open(dialector, &gorm.Config{
		SkipDefaultTransaction: true,
		DisableAutomaticPing:   true,
		Logger:                 logger.Discard, // statements carry password hashes
		PrepareStmt:            !s.onPostgres,  // pgx keeps prepared statements itself
	})
	if err != nil {
		return nil, wrap("open", err)
	}
	db, err := g.DB()
	if err != nil {
		return nil, wrap("open", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	if s.onPostgres {
		db.SetConnMaxIdleTime(5 * time.Minute)
		db.SetConnMaxLifetime(time.Hour)
	}
	s.pools = append(s.pools, db)
	return g, nil
}

// Close closes all connections. A running Feed or LastSeen must be closed before.
func (s *Store) Close() error {
	s.closed.Store(true)
	var errs []error
	for _, db := range s.pools {
		errs = append(errs, db.Close())
	}
	return errors.Join(errs...)
}

// Ping tells whether the database answers, ErrUnavailable if not.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	for _, db := range s.pools {
		var one int
		if err := db.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
			return fmt.Errorf("%w: ping: %w", ErrUnavailable, err)
		}
	}
	return nil
}

// read runs fn on a connection that reads.
func (s *Store) read(ctx context.Context, op string, fn func(db *gorm.DB) error) error {
	if s.closed.Load() {
		return fmt.Errorf("%w: %s: closed", ErrUnavailable, op)
	}
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	return wrap(op, fn(s.reader.WithContext(ctx)))
}

// write runs fn in a transaction, adds the changes that it returns to the feed in the same
// transaction, as its last statement, and applies them in this process once committed.
func (s *Store) write(ctx context.Context, op string, fn func(tx *gorm.DB) ([]Change, error)) error {
	if s.closed.Load() {
		return fmt.Errorf("%w: %s: closed", ErrUnavailable, op)
	}
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	var rows []changeRow
	err := s.writer.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		changes, err := fn(tx)
		if err != nil || len(changes) == 0 {
			return err
		}
		rows = s.changeRows(changes)
		return tx.Create(&rows).Error
	})
	if err != nil {
		return wrap(op, err)
	}
	if feed := s.feed.Load(); feed != nil && len(rows) > 0 {
		feed.committed(rows)
	}
	return nil
}
