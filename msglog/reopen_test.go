package msglog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
)

// Copies of the directory of a working log are what a crash at some moment leaves, and a
// little worse, for the files are copied one after the other.
func TestCopiesOfALiveDirectory(t *testing.T) {
	dir := t.TempDir()
	e := start(t, dir, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	acked := make(map[uint64]string)
	var writer sync.WaitGroup
	writer.Go(func() {
		slots := make(chan struct{}, 200)
		for i := 0; ctx.Err() == nil; i++ {
			slots <- struct{}{}
			id := fmt.Sprint(i)
			err := e.log.Append(context.Background(), message(im.User(fmt.Sprint("u", i%50)), bob, id, i%5 == 0), func(seq uint64, err error) {
				<-slots
				if err == nil {
					mu.Lock()
					acked[seq] = id
					mu.Unlock()
				}
			})
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	var copies []string
	var before []map[uint64]string
	for i := range 3 {
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acked) > 5000*(i+1)
		}, 20*time.Second, time.Millisecond)
		mu.Lock()
		have := make(map[uint64]string, len(acked))
		for seq, id := range acked {
			have[seq] = id
		}
		mu.Unlock()
		to := filepath.Join(t.TempDir(), "copy")
		require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
		copies, before = append(copies, to), append(before, have)
	}
	cancel()
	writer.Wait()
	e.stop()
	for i, dir := range copies {
		e := start(t, dir, nil)
		raw, err := e.log.scan(t.Context(), 0, e.log.Position())
		require.NoError(t, err)
		have := make(map[uint64]string, len(raw))
		for _, r := range raw {
			entry, err := r.entry()
			require.NoError(t, err)
			have[r.seq] = entry.ID
		}
		for seq, id := range before[i] {
			require.Equal(t, id, have[seq])
		}
		e.stop()
	}
}

func TestStreamsAreVerifiedNeverRecreated(t *testing.T) {
	dir := t.TempDir()
	e := start(t, dir, nil)
	e.append(message(alice, bob, "m", false))
	require.NoError(t, e.log.Close(t.Context()))

	// What can be updated is.
	o := e.opts
	o.MaxAge, o.PerAddress = time.Hour, 7
	l, err := Open(t.Context(), o)
	require.NoError(t, err)
	s, err := l.js.Stream(t.Context(), StreamName)
	require.NoError(t, err)
	require.Equal(t, time.Hour, s.CachedInfo().Config.MaxAge)
	require.EqualValues(t, 7, s.CachedInfo().Config.MaxMsgsPerSubject)
	require.EqualValues(t, 1, s.CachedInfo().State.Msgs)
	require.NoError(t, l.Close(t.Context()))

	// What cannot be is an error.
	nc, err := e.node.Connect("test")
	require.NoError(t, err)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	require.NoError(t, js.DeleteStream(t.Context(), sessionsStream))
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: sessionsStream, Subjects: []string{sessionsPrefix + ">"}, Storage: jetstream.MemoryStorage,
	})
	require.NoError(t, err)
	_, err = Open(t.Context(), o)
	require.ErrorContains(t, err, "cannot be changed")
	require.NoError(t, e.node.Stop(t.Context()))
	e.node = nil
}

// A stream whose description is damaged is unknown to the server; its messages must not be
// written over.
func TestUnrecoveredStreamIsAnError(t *testing.T) {
	dir := t.TempDir()
	e := start(t, dir, nil)
	e.append(message(alice, bob, "m", false))
	e.stop()
	meta := filepath.Join(dir, "jetstream", "IM", "streams", StreamName, "meta.inf")
	require.NoError(t, os.WriteFile(meta, []byte("{}"), 0o600))
	node := startNode(t, dir, Options{})
	o := e.opts
	o.Server = node
	_, err := Open(t.Context(), o)
	require.ErrorIs(t, err, ErrUnrecovered)
}
