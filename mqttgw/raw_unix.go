//go:build unix

package mqttgw

import (
	"errors"
	"syscall"
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
