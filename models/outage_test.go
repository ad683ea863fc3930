package models

import (
	"crypto/rand"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models/dbtest"
)

// A restart of the database server costs the calls of that moment and nothing else: the
// feed goes on, and what happened meanwhile is heard.
func TestCutConnections(t *testing.T) {
	dsn, name := dbtest.Postgres(t), "cut-"+rand.Text()
	s, other := open(t, dsn+"&application_name="+name), open(t, dsn)
	addUser(t, s, "alice")
	h := listen(t, s)
	admin, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	defer admin.Close()
	var cut int
	require.NoError(t, admin.QueryRow(
		"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1", name).Scan(&cut))
	require.Positive(t, cut)
	signIn(t, other, im.User("alice"), "phone", "t1")
	require.NoError(t, other.DeleteUser(t.Context(), "alice"))
	require.Equal(t, "t1", h.await(t, ChangeRevoke).Ticket)
	require.Eventually(t, func() bool {
		err := s.Ping(t.Context())
		if err != nil {
			require.ErrorIs(t, err, ErrUnavailable)
		}
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
}
