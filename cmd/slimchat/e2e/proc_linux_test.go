package e2e

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/stretchr/testify/require"
)

// dieWithParent lets the kernel end the server when the test is killed before it can.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// rss is the physical memory of the running process in bytes.
func (s *server) rss() int64 {
	s.t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(s.pid()) + "/status")
	require.NoError(s.t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			require.NoError(s.t, err)
			return kb << 10
		}
	}
	s.t.Fatal("the kernel does not tell the process's memory")
	return 0
}
