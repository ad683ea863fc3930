package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrDataLocked is what errors.Is finds when another process uses the data directory.
var ErrDataLocked = errors.New("data directory is in use")

// DataLockedError says which process holds which data directory.
type DataLockedError struct {
	Dir string
	PID int // 0 when the owner could not be told
}

// Error implements error.
func (e *DataLockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("data directory %s is in use by another process", e.Dir)
	}
	return fmt.Sprintf("data directory %s is in use by process %d", e.Dir, e.PID)
}

// Is makes errors.Is(err, ErrDataLocked) true.
func (e *DataLockedError) Is(target error) bool { return target == ErrDataLocked }

// errLockHeld is what tryLock returns when somebody else holds the lock.
var errLockHeld = errors.New("lock is held")

// dirLock is an advisory lock on {dir}/lock. The operating system releases it when the
// process ends, however it ends, so that a file left behind never locks anybody out.
type dirLock struct{ f *os.File }

func lockDir(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cluster: lock of the data directory: %w", err)
	}
	if err := tryLock(f); err != nil {
		defer f.Close()
		if errors.Is(err, errLockHeld) {
			return nil, &DataLockedError{Dir: dir, PID: readPID(f)}
		}
		return nil, fmt.Errorf("cluster: lock of the data directory %s: %w", dir, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil && !isNoSpace(err) { // a full disk must not keep a server from starting
		f.Close()
		return nil, fmt.Errorf("cluster: lock of the data directory %s: %w", dir, err)
	}
	return &dirLock{f: f}, nil
}

// release gives the lock up. The file stays, for removing it would race with a process
// that has just opened it.
func (l *dirLock) release() error {
	_ = l.f.Truncate(0) // the next owner overwrites it anyway
	return l.f.Close()
}

func readPID(f *os.File) int {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}
