package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ballast takes space on the image's file system until remove: all but so many bytes that are free now.
func (m image) ballast(t *testing.T, leave int64) (remove func()) {
	t.Helper()
	f, err := os.CreateTemp(m.dir, "ballast")
	require.NoError(t, err)
	defer f.Close()
	for {
		var st syscall.Statfs_t
		require.NoError(t, syscall.Statfs(m.dir, &st))
		free := int64(st.Bavail) * st.Bsize
		size := (free - leave) &^ 0xFFFF
		if size <= 0 {
			break
		}
		info, err := f.Stat()
		require.NoError(t, err)
		err = syscall.Fallocate(int(f.Fd()), 0, info.Size(), size)
		if errors.Is(err, syscall.ENOSPC) { // somebody else was faster, or the file system needs blocks for itself
			break
		}
		require.NoError(t, err)
	}
	return func() { require.NoError(t, os.Remove(filepath.Clean(f.Name()))) }
}

// accepted is how many messages the publisher of MQTT 5.0 has got acknowledged: its PUBACKs tell.
func (w *workload) accepted() (n int) {
	for _, c := range w.publishers[0].convs {
		n += c.count(acked)
	}
	return n
}

// requireRefusals checks that both publishers are told why, each in its way, and that the server says that it is not ready.
func (w *workload) requireRefusals(s *server) {
	w.t.Helper()
	seen := w.refusals.Load()
	eventually(w.t, func() bool { return w.refusals.Load() > seen+500 }, "publishes are refused")
	w.mu.Lock()
	defer w.mu.Unlock()
	event, ack := false, false
	for _, c := range w.complaints {
		require.NotEmpty(w.t, c.Message, "%+v", c)
		if c.Code != "" {
			require.Equal(w.t, "unavailable", c.Code, c.Message)
			event = true
		} else {
			require.GreaterOrEqual(w.t, uint8(c.Reason), uint8(0x80))
			ack = true
		}
	}
	require.True(w.t, ack, "no PUBACK with a reason")
	require.True(w.t, event, "no error event")
	var ready struct {
		Error  struct{ Message string }
		Checks map[string]string
	}
	eventually(w.t, func() bool {
		return s.call("", http.MethodGet, "/readyz", nil, &ready) == http.StatusServiceUnavailable
	}, "/readyz")
	require.Equal(w.t, "unavailable", ready.Checks["log"], "%+v", ready)
	require.Contains(w.t, ready.Error.Message, "log")
	require.Equal(w.t, http.StatusOK, s.call("", http.MethodGet, "/healthz", nil, nil))
	c := w.publishers[0].convs[0]
	var answer refusal
	require.Equal(w.t, http.StatusServiceUnavailable, s.call(c.sender.Token, http.MethodPost, "/messages",
		map[string]any{"to": c.to.String(), "id": "never", "type": "chat", "content": map[string]any{"type": "text", "data": filler[:20_000]}}, &answer))
	require.Equal(w.t, "unavailable", answer.Error.Code)
}

// requireService checks that publishes are taken again without anybody's help.
func (w *workload) requireService(s *server) {
	w.t.Helper()
	before := w.accepted()
	begin := time.Now()
	eventually(w.t, func() bool { return w.accepted() > before+20 }, "publishes are taken again")
	w.t.Logf("publishes are taken again after %s", time.Since(begin).Round(time.Millisecond))
	eventually(w.t, func() bool { return s.call("", http.MethodGet, "/readyz", nil, nil) == http.StatusOK }, "/readyz")
}

// TestDiskFull fills the disk in three ways under load: by the load itself, up to the reserve that the server keeps; by others,
// to the last byte, while publishes are refused already; and by others all of a sudden. Each time publishes are refused with a
// reason, connections stay, nothing that was acknowledged is lost, and service comes back by itself when there is room again.
func TestDiskFull(t *testing.T) {
	disk := newImage(t, 384)
	s := startServer(t, roomy, withData(disk.data(t)))
	w := newWorkload(s, workloadOptions{
		seed: newSeed(t), publishers: 2, receivers: 2, window: 32,
		size: func(conv, n int) int { return 200 + (conv*7919+n*104_729)%8_000 },
	})
	full := func(stage string) {
		t.Helper()
		begin := time.Now()
		w.requireRefusals(s)
		t.Logf("%s: refused for %s, %d refusals so far: %s", stage, time.Since(begin).Round(time.Millisecond), w.refusals.Load(), w.told())
		w.requireNoProblems()
	}

	w.requireService(s)
	remove := disk.ballast(t, 80<<20) // the load fills what is left above the reserve
	full("by the load")
	removeRest := disk.ballast(t, 0)
	full("to the last byte")
	late := s.registerSome(8)
	removeRest()
	remove()
	w.requireService(s)

	remove = disk.ballast(t, 0)
	full("all of a sudden")
	remove()
	w.requireService(s)

	w.stopPublishing()
	w.gone()
	s.restart()
	w.serve(s)
	w.verify(s)
	for _, user := range late {
		s.login(user, "phone")
	}
	text, err := os.ReadFile(s.logs)
	require.NoError(t, err)
	require.Contains(t, string(text), "disk is full", "what the operator reads")
}

// registerSome tries to register users while the disk is full and returns those that were made: the database may have room in
// files that it has already.
func (s *server) registerSome(n int) (made []string) {
	s.t.Helper()
	for i := range n {
		user := fmt.Sprint("late", i)
		var answer refusal
		status := s.call("", http.MethodPost, "/register", map[string]any{"username": user, "password": password}, &answer)
		if status == http.StatusCreated {
			made = append(made, user)
			continue
		}
		require.Equal(s.t, http.StatusServiceUnavailable, status, "%+v", answer)
		require.Equal(s.t, "unavailable", answer.Error.Code)
	}
	s.t.Logf("%d of %d accounts were made on a full disk", len(made), n)
	return made
}

// told is what publishers were told.
func (w *workload) told() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for kind, c := range w.complaints {
		all = append(all, kind+": "+c.Message)
	}
	return strings.Join(all, "; ")
}
