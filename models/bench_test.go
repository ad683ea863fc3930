package models

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models/dbtest"
)

func benchEach(b *testing.B, run func(b *testing.B, s *Store)) {
	b.Run("sqlite", func(b *testing.B) { run(b, open(b, dbtest.SQLite(b))) })
	b.Run("postgres", func(b *testing.B) { run(b, open(b, dbtest.Postgres(b))) })
}

// The query that decides whether an address exists, with nothing cached.
func BenchmarkClientExists(b *testing.B) {
	benchEach(b, func(b *testing.B, s *Store) {
		addUser(b, s, "alice")
		signIn(b, s, im.User("alice"), "phone", "t")
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				found, err := s.ClientExists(b.Context(), "alice", "phone")
				require.NoError(b, err)
				require.True(b, found)
			}
		})
	})
}

// What a login writes: the client and the revocation of its last ticket.
func BenchmarkSignIn(b *testing.B) {
	benchEach(b, func(b *testing.B, s *Store) {
		for i := range 16 {
			addUser(b, s, fmt.Sprintf("u%d", i))
		}
		var n atomic.Int64
		b.ResetTimer()
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				i := n.Add(1)
				signIn(b, s, im.User(fmt.Sprintf("u%d", i%16)), "phone", fmt.Sprintf("t%d", i))
			}
		})
	})
}

// Reads beside a writer that never rests: what one writing connection is for.
func BenchmarkReadsBesideWrites(b *testing.B) {
	benchEach(b, func(b *testing.B, s *Store) {
		addUser(b, s, "alice")
		signIn(b, s, im.User("alice"), "phone", "t")
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					nick := "x"
					if _, err := s.UpdateUser(b.Context(), "alice", UserPatch{Nick: &nick}, ""); err != nil {
						b.Error(err)
						return
					}
				}
			}
		}()
		b.ResetTimer()
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, err := s.User(b.Context(), "alice")
				require.NoError(b, err)
			}
		})
		b.StopTimer()
		close(stop)
		<-done
	})
}
