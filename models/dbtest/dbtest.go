// Package dbtest gives tests an empty database of each kind that SlimChat runs on.
package dbtest

import (
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// Each runs test once on SQLite and once on Postgres, each time with the dsn of an empty
// database. Postgres is the server that SLIMCHAT_TEST_POSTGRES names (any database in which
// schemas may be created), or one that is started for this test process if its programs are
// installed; without either, that half is skipped and says so.
func Each(t *testing.T, test func(t *testing.T, dsn string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}

// SQLite names a database file that does not exist yet.
func SQLite(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "accounts #1?.db")
}

// Postgres makes an empty schema, dropped when the test ends, or skips the test.
func Postgres(t testing.TB) string {
	t.Helper()
	dsn := os.Getenv("SLIMCHAT_TEST_POSTGRES")
	if dsn == "" {
		server, err := startOnce()
		if err != nil {
			t.Skipf("no Postgres to test on: %v (install it, or set SLIMCHAT_TEST_POSTGRES)", err)
		}
		dsn = server.dsn
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatalf("postgres: %v", err)
	}
	schema := "test_" + strings.ToLower(rand.Text())
	if _, err := db.Exec("CREATE SCHEMA " + schema); err != nil {
		t.Fatalf("postgres: %v", err)
	}
	t.Cleanup(func() {
		if _, err := db.Exec("DROP SCHEMA " + schema + " CASCADE"); err != nil {
			t.Errorf("postgres: %v", err)
		}
		_ = db.Close()
	})
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatalf("SLIMCHAT_TEST_POSTGRES: %v", err)
	}
	query := u.Query()
	query.Set("search_path", schema)
	u.RawQuery = query.Encode()
	return u.String()
}
