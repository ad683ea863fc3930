package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// image is an ext4 file system in a file, mounted over a loop device.
type image struct {
	file string
	dir  string // where it is mounted
}

// newImage makes and mounts a file system. It skips the test where that is not possible.
func newImage(t *testing.T, megabytes int64) image {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root on Linux, to mount a file system image over a loop device")
	}
	file := filepath.Join(t.TempDir(), "disk.img")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, megabytes<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", file).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: needs mkfs.ext4: %v: %s", err, out)
	}
	return mountImage(t, file)
}

// mountImage mounts a file system until the test ends. Its journal is committed when somebody syncs, and not every five seconds
// by itself, so that a power cut loses what nobody has synced.
func mountImage(t *testing.T, file string) image {
	t.Helper()
	m := image{file, filepath.Join(t.TempDir(), "mnt")}
	require.NoError(t, os.MkdirAll(m.dir, 0o700))
	if out, err := exec.Command("mount", "-o", "loop,commit=600", file, m.dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: needs a loop device: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", m.dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return m
}

// data is a directory for a server's data.
func (m image) data(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(m.dir, "data")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	return dir
}
