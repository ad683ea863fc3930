//go:build !linux

package msglog

import "errors"

const canSyncFS = false

func newFSSyncer(string) (Syncer, error) {
	return nil, errors.New("this platform cannot sync a file system")
}
