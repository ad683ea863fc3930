//go:build !unix

package mqttgw

import "errors"

// Where a socket is no file descriptor, connections are read with a small buffer of
// their own.
const canReadRaw = false

func readRaw(uintptr, []byte) (n int, again bool, err error) {
	return 0, false, errors.ErrUnsupported
}

func readableNow(uintptr) bool { return true }
