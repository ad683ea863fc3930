package models

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models/dbtest"
)

func open(t testing.TB, dsn string) *Store {
	t.Helper()
	s, err := Open(context.Background(), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// onEach runs the conformance tests on every database.
func onEach(t *testing.T, test func(t *testing.T, s *Store)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, dsn string) { test(t, open(t, dsn)) })
}

func addUser(t testing.TB, s *Store, uid string) {
	t.Helper()
	_, err := s.CreateUser(t.Context(), User{UID: uid, Nick: uid, Password: "hash"})
	require.NoError(t, err)
}

func signIn(t testing.TB, s *Store, owner im.Address, client, ticket string) {
	t.Helper()
	_, err := s.SignIn(t.Context(), SignIn{Owner: owner, Client: Client{
		ClientID: client, Ticket: ticket, TokenExpires: time.Now().Add(time.Hour).UnixMilli(),
	}})
	require.NoError(t, err)
}

func clientIDs(t testing.TB, s *Store, owner im.Address) []string {
	t.Helper()
	clients, err := s.Clients(t.Context(), owner)
	require.NoError(t, err)
	ids := make([]string, len(clients))
	for i, c := range clients {
		ids[i] = c.ClientID
	}
	return ids
}

func TestUserLife(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		made, err := s.CreateUser(ctx, User{UID: "älice.*>'", Nick: "Alice", Password: "h1"})
		require.NoError(t, err)
		require.Equal(t, StateActive, made.State)
		require.Equal(t, RoleUser, made.Role)
		require.WithinDuration(t, time.Now(), time.UnixMilli(made.Created), time.Minute)

		got, err := s.User(ctx, "älice.*>'")
		require.NoError(t, err)
		require.Equal(t, made, got)

		_, err = s.CreateUser(ctx, User{UID: "älice.*>'"})
		var conflict *ConflictError
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, "uid", conflict.Field)

		nick := "A."
		got, err = s.UpdateUser(ctx, "älice.*>'", UserPatch{Nick: &nick}, "")
		require.NoError(t, err)
		require.Equal(t, "A.", got.Nick)
		require.Equal(t, "h1", got.Password)

		require.NoError(t, s.RehashPassword(ctx, got.UID, "other", "h3"))
		got, err = s.User(ctx, got.UID)
		require.NoError(t, err)
		require.Equal(t, "h1", got.Password, "the password was changed meanwhile")
		require.NoError(t, s.RehashPassword(ctx, got.UID, "h1", "h2"))
		got, err = s.User(ctx, got.UID)
		require.NoError(t, err)
		require.Equal(t, "h2", got.Password)
	})
}

func TestMissingUser(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		_, err := s.User(ctx, "nobody")
		require.ErrorIs(t, err, ErrNotFound)
		_, err = s.UpdateUser(ctx, "nobody", UserPatch{}, "")
		require.ErrorIs(t, err, ErrNotFound)
		require.ErrorIs(t, s.DeleteUser(ctx, "nobody"), ErrNotFound)
		found, err := s.UserExists(ctx, "nobody")
		require.NoError(t, err)
		require.False(t, found)
		_, err = s.SignIn(ctx, SignIn{Owner: im.User("nobody"), Client: Client{ClientID: "c", Ticket: "t"}})
		require.ErrorIs(t, err, ErrNotFound)
		_, err = s.SignIn(ctx, SignIn{Owner: im.Node("nothing"), Client: Client{ClientID: "c", Ticket: "t"}})
		require.ErrorIs(t, err, ErrNotFound)
		_, err = s.SignIn(ctx, SignIn{Owner: im.Room("r"), Client: Client{ClientID: "c", Ticket: "t"}})
		require.ErrorIs(t, err, errOwner)
	})
}

func TestDeletedUserLeavesItsName(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		addUser(t, s, "alice")
		signIn(t, s, im.User("alice"), "phone", "t1")
		require.NoError(t, s.DeleteUser(ctx, "alice"))

		_, err := s.User(ctx, "alice")
		require.ErrorIs(t, err, ErrNotFound)
		found, err := s.UserExists(ctx, "alice")
		require.NoError(t, err)
		require.False(t, found)
		users, err := s.Users(ctx, "", 10)
		require.NoError(t, err)
		require.Empty(t, users)
		require.Empty(t, clientIDs(t, s, im.User("alice")))
		var conflict *ConflictError
		_, err = s.CreateUser(ctx, User{UID: "alice"})
		require.ErrorAs(t, err, &conflict, "the name of a deleted user stays taken")

		var row User
		require.NoError(t, s.reader.Where("uid = ?", "alice").Take(&row).Error)
		require.Empty(t, row.Nick+row.Password+row.Avatar, "nothing personal is kept")
	})
}

func TestUsersAreListedInByteOrder(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		for _, uid := range []string{"b", "a", "é", "a-b", "ab", "Z", "a_b"} {
			addUser(t, s, uid)
		}
		var got []string
		for after := ""; ; {
			page, err := s.Users(t.Context(), after, 2)
			require.NoError(t, err)
			if len(page) == 0 {
				break
			}
			for _, u := range page {
				got = append(got, u.UID)
			}
			after = got[len(got)-1]
		}
		require.Equal(t, []string{"Z", "a", "a-b", "a_b", "ab", "b", "é"}, got)
	})
}

func TestClients(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		ctx, alice := t.Context(), im.User("alice")
		addUser(t, s, "alice")
		addUser(t, s, "bob")
		signIn(t, s, alice, "phone", "t1")
		signIn(t, s, im.User("bob"), "phone", "t2")
		_, err := s.CreateNode(ctx, Node{ID: "alice", Secret: []byte{1}})
		require.NoError(t, err)
		signIn(t, s, im.Node("alice"), "phone", "t3")

		found, err := s.ClientExists(ctx, "alice", "phone")
		require.NoError(t, err)
		require.True(t, found)
		found, err = s.ClientExists(ctx, "alice", "Phone")
		require.NoError(t, err)
		require.False(t, found)
		count, err := s.ClientCount(ctx, "alice")
		require.NoError(t, err)
		require.Equal(t, 1, count)

		c, err := s.Client(ctx, alice, "phone")
		require.NoError(t, err)
		require.Equal(t, alice, c.Owner())
		later := time.Now().Add(3 * time.Hour).UnixMilli()
		require.ErrorIs(t, s.ExtendTicket(ctx, alice, "phone", "t2", later), ErrNotFound, "another ticket")
		require.NoError(t, s.ExtendTicket(ctx, alice, "phone", "t1", later))
		require.NoError(t, s.ExtendTicket(ctx, alice, "phone", "t1", 5), "never shortens")
		c, err = s.Client(ctx, alice, "phone")
		require.NoError(t, err)
		require.Equal(t, later, c.TokenExpires)

		require.ErrorIs(t, s.RemoveClient(ctx, alice, "phone", "t2"), ErrNotFound)
		require.NoError(t, s.RemoveClient(ctx, alice, "phone", "t1"))
		require.ErrorIs(t, s.RemoveClient(ctx, alice, "phone", ""), ErrNotFound)
		require.Equal(t, []string{"phone"}, clientIDs(t, s, im.User("bob")))
		require.Equal(t, []string{"phone"}, clientIDs(t, s, im.Node("alice")))
	})
}

func TestClientLimit(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		ctx, alice := t.Context(), im.User("alice")
		addUser(t, s, "alice")
		in := func(client, evict string) error {
			_, err := s.SignIn(ctx, SignIn{
				Owner: alice, Limit: 2, Evict: evict,
				Client: Client{ClientID: client, Ticket: "ticket of " + client},
			})
			return err
		}
		var full *FullError
		require.NoError(t, in("a", ""))
		require.NoError(t, in("b", ""))
		require.ErrorAs(t, in("c", ""), &full)
		require.ErrorAs(t, in("c", "x"), &full, "the client to sign out is gone")
		require.NoError(t, in("a", ""), "a client that exists needs no room")
		require.NoError(t, in("c", "a"))
		require.ElementsMatch(t, []string{"b", "c"}, clientIDs(t, s, alice))
	})
}

// Many logins at once never exceed the limit, and each one that is refused is told why.
func TestClientLimitUnderConcurrency(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		addUser(t, s, "alice")
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				_, err := s.SignIn(t.Context(), SignIn{
					Owner: im.User("alice"), Limit: 3,
					Client: Client{ClientID: fmt.Sprintf("c%d", i), Ticket: fmt.Sprintf("t%d", i)},
				})
				var full *FullError
				if err != nil && !errors.As(err, &full) {
					t.Errorf("sign in %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		require.Len(t, clientIDs(t, s, im.User("alice")), 3)
	})
}

func TestDisabledUserCannotSignIn(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		addUser(t, s, "alice")
		signIn(t, s, im.User("alice"), "phone", "t1")
		disabled := StateDisabled
		_, err := s.UpdateUser(t.Context(), "alice", UserPatch{State: &disabled}, "phone")
		require.NoError(t, err)
		require.Empty(t, clientIDs(t, s, im.User("alice")), "a disabled user has no live login")
		_, err = s.SignIn(t.Context(), SignIn{Owner: im.User("alice"), Client: Client{ClientID: "c", Ticket: "t"}})
		require.ErrorIs(t, err, ErrNotFound)
	})
}

func TestPasswordChangeKeepsOneClient(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		addUser(t, s, "alice")
		for _, c := range []string{"a", "b", "c"} {
			signIn(t, s, im.User("alice"), c, "ticket of "+c)
		}
		password := "new"
		_, err := s.UpdateUser(t.Context(), "alice", UserPatch{Password: &password}, "b")
		require.NoError(t, err)
		require.Equal(t, []string{"b"}, clientIDs(t, s, im.User("alice")))
	})
}

func TestNodes(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		made, err := s.CreateNode(ctx, Node{ID: "Sensor 1", Nick: "n", Secret: []byte{0, 255}})
		require.NoError(t, err)
		got, err := s.Node(ctx, "Sensor 1")
		require.NoError(t, err)
		require.Equal(t, made, got)
		var conflict *ConflictError
		_, err = s.CreateNode(ctx, Node{ID: "Sensor 1", Secret: []byte{1}})
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, "id", conflict.Field)
		signIn(t, s, im.Node("Sensor 1"), "Sensor 1", "t")
		require.NoError(t, s.DeleteNode(ctx, "Sensor 1"))
		require.ErrorIs(t, s.DeleteNode(ctx, "Sensor 1"), ErrNotFound)
		found, err := s.NodeExists(ctx, "Sensor 1")
		require.NoError(t, err)
		require.False(t, found)
		require.Empty(t, clientIDs(t, s, im.Node("Sensor 1")))
	})
}

func TestSigningKeys(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		require.NoError(t, s.AddSigningKey(ctx, SigningKey{KID: "one", Seed: []byte{1}, Activated: 100}))
		require.NoError(t, s.AddSigningKey(ctx, SigningKey{KID: "two", Seed: []byte{2}, Activated: 200}))
		keys, err := s.SigningKeys(ctx)
		require.NoError(t, err)
		require.Len(t, keys, 2)
		require.Equal(t, "two", keys[0].KID)
		require.Zero(t, keys[0].Retired)
		require.EqualValues(t, 200, keys[1].Retired)
		require.NoError(t, s.DeleteSigningKeys(ctx, 200))
		keys, err = s.SigningKeys(ctx)
		require.NoError(t, err)
		require.Len(t, keys, 2)
		require.NoError(t, s.DeleteSigningKeys(ctx, 201))
		keys, err = s.SigningKeys(ctx)
		require.NoError(t, err)
		require.Len(t, keys, 1)
	})
}

func TestManyProcessesMigrateAtOnce(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				s, err := Open(t.Context(), dsn)
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestNewerSchemaIsRefused(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		s := open(t, dsn)
		require.NoError(t, s.writer.Exec(
			"INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)").Error)
		_, err := Open(t.Context(), dsn)
		require.ErrorIs(t, err, ErrSchema)
	})
}

func TestLastSeen(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		addUser(t, s, "alice")
		_, err := s.CreateNode(ctx, Node{ID: "n", Secret: []byte{1}})
		require.NoError(t, err)
		signIn(t, s, im.Node("n"), "n", "t")
		l := NewLastSeen(s, testLogger(t))
		later := time.Now().Add(time.Hour).Truncate(time.Millisecond)
		for i := range seenBatch + 10 { // more than one statement
			client := fmt.Sprintf("c%d", i)
			signIn(t, s, im.User("alice"), client, "t"+client)
			l.Seen(im.User("alice"), client, later)
			l.Seen(im.User("alice"), client, later.Add(-time.Minute)) // out of order
		}
		l.Seen(im.Node("n"), "n", later)
		l.Seen(im.User("alice"), "gone", later)
		l.Close()
		for _, owner := range []im.Address{im.User("alice"), im.Node("n")} {
			clients, err := s.Clients(ctx, owner)
			require.NoError(t, err)
			require.NotEmpty(t, clients)
			for _, c := range clients {
				require.Equal(t, later.UnixMilli(), c.LastSeen, c.ClientID)
			}
		}
	})
}

func TestUnavailable(t *testing.T) {
	onEach(t, func(t *testing.T, s *Store) {
		require.NoError(t, s.Ping(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.User(ctx, "alice")
		require.ErrorIs(t, err, ErrUnavailable)
		_, err = s.CreateUser(ctx, User{UID: "alice"})
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, s.Ping(ctx), ErrUnavailable)
	})
}

func TestOpenRefusesNonsense(t *testing.T) {
	for _, dsn := range []string{"", "mysql://x", "sqlite:", "sqlite::memory:", "postgres://u:secret@h:port/x"} {
		_, err := Open(t.Context(), dsn)
		require.Error(t, err, dsn)
		require.NotContains(t, err.Error(), "secret")
	}
	_, err := Open(t.Context(), "postgres://u@127.0.0.1:1/x?connect_timeout=1")
	require.ErrorIs(t, err, ErrUnavailable)
	folder := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Mkdir(folder, 0o700))
	_, err = Open(t.Context(), "sqlite:"+folder)
	require.Error(t, err)
}

func TestSQLiteFileIsPrivate(t *testing.T) {
	dsn := dbtest.SQLite(t)
	s := open(t, dsn)
	addUser(t, s, "alice")
	path := strings.TrimPrefix(dsn, "sqlite:")
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(path + suffix)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), suffix)
	}
}
