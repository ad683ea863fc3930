package msglog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
)

// bulky is a message of about 20 kB.
func bulky(id string) im.Record {
	rec := message(alice, bob, id, false)
	rec.Data = append(rec.Data, make([]byte, 20_000)...)
	return rec
}

// appendUntil appends until an append fails and returns how many were acknowledged.
func (e *env) appendUntil(limit int) (acked int, err error) {
	for acked < limit {
		if _, err = e.try(bulky(fmt.Sprint("m", acked))); err != nil {
			return acked, err
		}
		acked++
	}
	return acked, nil
}

// requireAll checks that the log holds the first n messages of appendUntil, in order.
func (e *env) requireAll(n int) {
	e.t.Helper()
	var after uint64
	var got []string
	for after < e.log.Position() {
		entries, next, err := e.log.Read(context.Background(), []im.Address{bob}, after, e.log.Position(), 500, 8<<20)
		require.NoError(e.t, err)
		require.Greater(e.t, next, after)
		got, after = append(got, ids(entries)...), next
	}
	require.GreaterOrEqual(e.t, len(got), n)
	for i := range n {
		require.Equal(e.t, fmt.Sprint("m", i), got[i])
	}
}

func fillFile(t *testing.T, dir string, megabytes int) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o700))
	name := filepath.Join(dir, "filler")
	require.NoError(t, os.WriteFile(name, make([]byte, megabytes<<20), 0o600))
	return name
}

func TestDiskFullIsRefusedAndResumes(t *testing.T) {
	dir, _ := mountImage(t, 64)
	filler := fillFile(t, dir, 20)
	e := start(t, dir, func(o *Options) { o.MinFree = 8 << 20 })
	tail := e.tail(0)
	acked, err := e.appendUntil(5000)
	require.ErrorIs(t, err, ErrDiskFull)
	require.Equal(t, im.CodeUnavailable, im.CodeOf(err))
	require.ErrorIs(t, e.log.Healthy(), ErrDiskFull)
	require.ErrorIs(t, e.log.StoreSessions(t.Context(), map[im.SessionKey][]byte{
		{Owner: alice, Client: "c"}: make([]byte, 8<<20),
	}), ErrDiskFull)
	require.Greater(t, acked, 100)
	free, err := freeBytes(dir)
	require.NoError(t, err)
	require.Greater(t, free, int64(7<<20), "JetStream has room for its own files")

	require.NoError(t, os.Remove(filler))
	require.Eventually(t, func() bool {
		_, err := e.try(bulky(fmt.Sprint("m", acked)))
		return err == nil
	}, 10*time.Second, spaceInterval)
	require.NoError(t, e.log.Healthy())
	e.requireAll(acked + 1)
	require.Len(t, tail.wait(t, acked+1), acked+1)
	e.stop()
	e = start(t, dir, nil)
	e.requireAll(acked + 1)
}

// Somebody else may fill the disk between two looks at it, so that JetStream meets the
// error in the middle of a write.
func TestJetStreamMeetsFullDisk(t *testing.T) {
	dir, _ := mountImage(t, 64)
	filler := fillFile(t, dir, 20)
	var blind atomic.Bool
	blind.Store(true)
	e := start(t, dir, func(o *Options) {
		o.MinFree = 8 << 20
		o.AckTimeout = 300 * time.Millisecond
		o.Free = func() (int64, error) {
			if blind.Load() {
				return 1 << 40, nil
			}
			return freeBytes(dir)
		}
	})
	tail := e.tail(0)
	acked, err := e.appendUntil(5000)
	require.ErrorIs(t, err, ErrRefused)
	require.Equal(t, im.CodeUnavailable, im.CodeOf(err))
	require.Error(t, e.log.Healthy())
	blind.Store(false)
	_, err = e.try(bulky("refused"))
	require.ErrorIs(t, err, ErrDiskFull)
	e.requireAll(acked)

	require.NoError(t, os.Remove(filler))
	require.Eventually(t, func() bool { return e.log.Healthy() == nil }, 10*time.Second, 50*time.Millisecond,
		"the log comes back without anybody asking it to")
	e.append(bulky(fmt.Sprint("m", acked)))
	e.requireAll(acked + 1)
	require.Len(t, tail.wait(t, acked+1), acked+1)
	e.stop()
	e = start(t, dir, nil)
	e.requireAll(acked + 1)
}

func TestWriteErrorWithoutRevivalFailsTheLog(t *testing.T) {
	dir, _ := mountImage(t, 32)
	e := start(t, dir, func(o *Options) {
		o.AckTimeout = 300 * time.Millisecond
		o.Free = func() (int64, error) { return 1 << 40, nil }
	})
	e.log.opts.Revive = nil
	acked, err := e.appendUntil(5000)
	require.Error(t, err)
	require.Eventually(t, func() bool {
		_, err = e.try(bulky("x"))
		return err != nil && e.log.failed.Load() != nil
	}, 10*time.Second, 50*time.Millisecond)
	require.ErrorIs(t, e.log.Healthy(), ErrUnwritable)
	e.requireAll(acked)
}

// The disk may become full between a message and its copy. Its sender hears neither yes nor
// no until there is room again; then it is acknowledged, once the copy is there.
func TestDiskFullBetweenMessageAndCopy(t *testing.T) {
	dir, _ := mountImage(t, 64)
	filler := fillFile(t, dir, 20)
	var blind atomic.Bool
	blind.Store(true)
	e := start(t, dir, func(o *Options) {
		o.MinFree = 8 << 20
		o.AckTimeout = 300 * time.Millisecond
		o.Free = func() (int64, error) {
			if blind.Load() {
				return 1 << 40, nil
			}
			return freeBytes(dir)
		}
	})
	outcomes := make(chan error, 1)
	var err error
	n := 0
	for waiting := false; !waiting; n++ {
		rec := message(alice, bob, fmt.Sprint("m", n), true)
		rec.CopyData = append(rec.CopyData, make([]byte, 60_000)...)
		require.NoError(t, e.log.Append(t.Context(), rec, func(_ uint64, err error) { outcomes <- err }))
		select {
		case err = <-outcomes:
			require.NoError(t, err, "message %d", n)
		case <-time.After(3 * time.Second):
			waiting = true
		}
	}
	require.Error(t, e.log.Healthy())
	require.NotErrorIs(t, e.log.Healthy(), ErrUnwritable)
	blind.Store(false)
	require.NoError(t, os.Remove(filler))
	require.NoError(t, <-outcomes)
	require.NoError(t, e.log.Healthy())
	require.NotZero(t, e.append(message(alice, bob, "goes on", true)))
	raw, err := e.log.scan(t.Context(), 0, e.log.Position())
	require.NoError(t, err)
	require.Len(t, raw, 2*(n+1), "each message and its copy once")
}
