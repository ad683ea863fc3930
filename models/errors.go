package models

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

var (
	// ErrNotFound says that no such row exists, or that a row which the write needs is gone.
	ErrNotFound = errors.New("models: not found")
	// ErrUnavailable says that the database did not answer in time or cannot write now;
	// the same call may succeed later.
	ErrUnavailable = errors.New("models: the database is unavailable")
	// ErrSchema says that the database was written by a newer version of the program.
	ErrSchema = errors.New("models: the schema is newer than this program")
)

// ConflictError says that a row with the same unique value exists.
type ConflictError struct {
	Field string // the column: uid, id, clientid, kid; empty if the database does not tell
	Err   error
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("models: %s exists already", e.Field)
}

// Unwrap returns the driver's error.
func (e *ConflictError) Unwrap() error { return e.Err }

// FullError says that an owner has as many clients as it may have.
type FullError struct{ Limit int }

// Error implements error.
func (e *FullError) Error() string {
	return fmt.Sprintf("models: the owner has %d clients, which is the limit", e.Limit)
}

// wrap turns a driver's error into one of this package's and says which operation failed.
// modernc's SQLite errors are not translated by GORM, so both databases are mapped here.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	var (
		conflict *ConflictError
		full     *FullError
	)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrUnavailable),
		errors.As(err, &conflict), errors.As(err, &full):
		return err
	case errors.Is(err, gorm.ErrRecordNotFound):
		return fmt.Errorf("%w: %s", ErrNotFound, op)
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return wrapPostgres(op, pg)
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		return wrapSQLite(op, lite)
	}
	if isConnectionError(err) {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, op, err)
	}
	return fmt.Errorf("models: %s: %w", op, err)
}

func isConnectionError(err error) bool {
	var (
		connect *pgconn.ConnectError
		network net.Error
	)
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, net.ErrClosed) || errors.As(err, &connect) || errors.As(err, &network) ||
		pgconn.Timeout(err) || pgconn.SafeToRetry(err)
}

// Postgres error classes that pass: connection, resources, operator intervention,
// serialization failures and deadlocks.
var passingClasses = []string{"08", "53", "57", "58", "40"}

func wrapPostgres(op string, err *pgconn.PgError) error {
	switch err.Code {
	case "23505":
		return &ConflictError{Field: constraintFields[err.ConstraintName], Err: err}
	case "23503":
		return fmt.Errorf("%w: %s: %w", ErrNotFound, op, err)
	case "25P03", "55P03": // idle in transaction for too long, lock not available
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, op, err)
	}
	for _, class := range passingClasses {
		if strings.HasPrefix(err.Code, class) {
			return fmt.Errorf("%w: %s: %w", ErrUnavailable, op, err)
		}
	}
	return fmt.Errorf("models: %s: %w", op, err)
}

// constraintFields names the column of each unique constraint in the schema.
var constraintFields = map[string]string{
	"users_pkey":        "uid",
	"nodes_pkey":        "id",
	"clients_uid_key":   "clientid",
	"clients_node_key":  "clientid",
	"signing_keys_pkey": "kid",
}

func wrapSQLite(op string, err *sqlite.Error) error {
	switch err.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return &ConflictError{Field: sqliteField(err.Error()), Err: err}
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return fmt.Errorf("%w: %s: %w", ErrNotFound, op, err)
	}
	switch err.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT:
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, op, err)
	}
	return fmt.Errorf("models: %s: %w", op, err)
}

// sqliteField finds the last column in "… UNIQUE constraint failed: clients.uid,
// clients.clientid (2067)".
func sqliteField(message string) string {
	_, columns, ok := strings.Cut(message, "constraint failed: ")
	if !ok {
		return ""
	}
	columns, _, _ = strings.Cut(columns, " (")
	if at := strings.LastIndexByte(columns, '.'); at >= 0 {
		return columns[at+1:]
	}
	return ""
}
