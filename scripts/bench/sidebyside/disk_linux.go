package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// fileSystem names the file system that dir is on.
func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "unknown file system"
	}
	switch int64(s.Type) { //nolint:unconvert // not int64 on every platform
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	default:
		return fmt.Sprintf("file system %#x", s.Type)
	}
}

// onDisk refuses a directory in memory, where a sync costs nothing and the comparison would mean nothing.
func onDisk(dir string) error {
	if fileSystem(dir) == "tmpfs" {
		return fmt.Errorf("%s is in memory (tmpfs): name a directory on a disk with --dir", dir)
	}
	return nil
}
