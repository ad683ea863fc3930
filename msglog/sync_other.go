//go:build !linux

package msglog

import "errors"

const canSyncFS = false

func newFSSyncer(string) (Syncer, error) {
	return nil, errors.New("this platform cannot sync a file system")
}

// renameMayLoseData is no question here, for the server syncs whatever it writes.
func renameMayLoseData(string) bool { return false }
