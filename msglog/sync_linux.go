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

// renameMayLoseData tells whether a file that is written anew and renamed over the old one
// can be empty after a power cut, as JetStream's compaction does it without a sync. ext4
// and btrfs write the data out at such a rename; XFS does not.
func renameMayLoseData(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.XFS_SUPER_MAGIC
}
