//go:build !linux

package e2e

import "syscall"

// dieWithParent asks for nothing: only Linux can end the server when the test is killed.
func dieWithParent() *syscall.SysProcAttr { return nil }

// rss skips the test: the memory of another process is read from /proc.
func (s *server) rss() int64 {
	s.t.Skip("the memory of a process can be measured on Linux only")
	return 0
}
