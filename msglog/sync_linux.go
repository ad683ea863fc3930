package msglog

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const canSyncFS = true

// fsSyncer syncs the file system that holds a directory, with syncfs(2). Since Linux 5.8
// it also reports write-back errors that happened since the descriptor was opened.
type fsSyncer struct{ dir *os.File }

func newFSSyncer(dir string) (Syncer, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return fsSyncer{f}, nil
}

func (s fsSyncer) Sync() error {
	for {
		err := unix.Syncfs(int(s.dir.Fd()))
		if !errors.Is(err, unix.EINTR) {
			if err != nil {
				return fmt.Errorf("syncfs %s: %w", s.dir.Name(), err)
			}
			return nil
		}
	}
}

func (s fsSyncer) Close() error { return s.dir.Close() }
