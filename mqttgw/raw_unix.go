//go:build unix

package mqttgw

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

const canReadRaw = true

// readRaw reads without waiting; again says that there is nothing yet.
func readRaw(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err = syscall.Read(int(fd), p)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return 0, true, nil
		case err != nil:
			return 0, false, err
		}
		return n, false, nil
	}
}

// readableNow tells whether a read would not wait, be it for data or for an error.
func readableNow(fd uintptr) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds[:], 0)
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}
