// Package e2e drives the real slimchat binary from outside, as people, devices and operators meet it: over HTTP, MQTT and
// the command line. docs/testing.md tells how to run it.
package e2e

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// How long a test waits for what must happen, on a machine that has other things to do.
const (
	patience      = 20 * time.Second
	startPatience = 2 * time.Minute
	stopPatience  = time.Minute
)

// binary is the slimchat under test; TestMain builds it once.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "slimchat-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "slimchat")
	args := []string{"build", "-o", binary}
	if underRace {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "github.com/slimchat/slimchat/cmd/slimchat")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: the binary cannot be built: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// server is one slimchat process and its data directory, which outlives the process: after kill or stop, start runs the next
// one on the same data. The test's end ends it.
type server struct {
	t    testing.TB
	data string   // the data directory
	env  []string // settings
	logs string   // what every process of this server has said

	// addr is what the running process listens on, host:port each; empty for what is off.
	addr struct {
		HTTP  string `json:"http"`
		MQTT  string `json:"mqtt"`
		MQTTS string `json:"mqtts"`
	}
	roots *x509.CertPool // what its TLS certificates are signed with; nil without any

	rootFile string       // the same as a PEM file
	rest     *http.Client // for https; see secure
	web      string       // the scheme of REST

	process *exec.Cmd     // nil when none runs
	exited  chan struct{} // closed when process has ended, after its state is known
}

type option func(*server)

// withData puts the data into a directory of the test's choice, which must exist.
func withData(dir string) option { return func(s *server) { s.data = dir } }

// withSetting sets a key of the configuration: withSetting("limits.publish_rate", 1000).
func withSetting(key string, value any) option {
	return func(s *server) { s.env = append(s.env, setting(key, value)) }
}

func setting(key string, value any) string {
	return "SLIMCHAT_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_")) + "=" + fmt.Sprint(value)
}

// fast lifts the limits that keep one client or address from hurrying.
func fast(s *server) {
	for _, key := range []string{"limits.publish_rate", "limits.publish_burst", "limits.registrations", "limits.logins"} {
		withSetting(key, 1_000_000_000)(s)
	}
}

// startServer runs a server and waits until it is ready.
func startServer(t testing.TB, options ...option) *server {
	t.Helper()
	s := newServer(t, options...)
	s.start()
	return s
}

// newServer prepares a server without starting it.
func newServer(t testing.TB, options ...option) *server {
	t.Helper()
	s := &server{t: t, web: "http", rest: rest, data: filepath.Join(t.TempDir(), "data"), logs: filepath.Join(t.TempDir(), "log")}
	for _, o := range options {
		o(s)
	}
	t.Cleanup(s.cleanup)
	return s
}

// cleanup leaves no process behind and looks at what they said.
func (s *server) cleanup() {
	s.kill()
	text, err := os.ReadFile(s.logs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("the log: %v", err)
	}
	for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if bytes.Contains(text, []byte(sign)) {
			s.t.Errorf("the server's log has %q", sign)
		}
	}
	if !s.t.Failed() {
		return
	}
	const most = 64 << 10
	if len(text) > most {
		text = append([]byte("…"), text[len(text)-most:]...)
	}
	s.t.Logf("log of the server on %s:\n%s", s.data, text)
}

// start runs a process on the data and waits until it is ready.
func (s *server) start() {
	s.t.Helper()
	require.NoError(s.t, s.tryStart(), "start of the server")
}

// tryStart is start for a test that expects it to fail.
func (s *server) tryStart() error {
	if s.process != nil {
		return errors.New("it runs already")
	}
	ready := filepath.Join(s.data, "run", "listen.json")
	if err := os.Remove(ready); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a process that was killed
		return err
	}
	if err := s.launch(); err != nil {
		return err
	}
	deadline := time.Now().Add(startPatience)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		text, err := os.ReadFile(ready) // written whole once the server takes connections
		if err == nil {
			tick.Stop()
			return json.Unmarshal(text, &s.addr)
		}
		select {
		case <-s.exited:
			tick.Stop()
			err := fmt.Errorf("it ended: %s", s.process.ProcessState)
			s.process = nil
			return err
		case <-tick.C:
			if time.Now().After(deadline) {
				tick.Stop()
				s.kill()
				return fmt.Errorf("not ready within %s", startPatience)
			}
		}
	}
}

// launch starts the process; its working directory holds no configuration file.
func (s *server) launch() error {
	log, err := os.OpenFile(s.logs, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	process := exec.Command(binary, "serve")
	process.Dir, process.Env = filepath.Dir(s.logs), s.environment()
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = dieWithParent()
	if err := process.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.process, s.exited = process, exited
	go func() {
		_ = process.Wait() // its state tells
		close(exited)
	}()
	return nil
}

// environment is ours without other settings of SlimChat, and with the server's.
func (s *server) environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SLIMCHAT_") {
			env = append(env, v)
		}
	}
	env = append(env, setting("data", s.data), setting("node.name", "e2e"), setting("log.format", "text"),
		setting("http.listen", "127.0.0.1:0"), setting("mqtt.listen", "127.0.0.1:0"))
	return append(env, s.env...)
}

// signal sends the process a signal, such as SIGSTOP.
func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.process.Process.Signal(sig))
}

// pid is the running process's.
func (s *server) pid() int { return s.process.Process.Pid }

// kill ends the process as a crash would, with SIGKILL; nothing happens when none runs.
func (s *server) kill() {
	if s.process == nil {
		return
	}
	if err := s.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("kill: %v", err)
	}
	<-s.exited
	s.process = nil
}

// stop ends the process in order, with SIGTERM, which it must obey and find nothing wrong.
func (s *server) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(stopPatience):
		s.kill()
		s.t.Fatalf("the server does not stop within %s", stopPatience)
	}
	state := s.process.ProcessState
	s.process = nil
	require.True(s.t, state.Success(), "the server ended with %s", state)
}

// restart stops the process in order and starts the next one.
func (s *server) restart() {
	s.t.Helper()
	s.stop()
	s.start()
}

// run runs another verb of the binary with the server's settings and returns its standard output without the last newline.
func (s *server) run(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = filepath.Dir(s.logs), s.environment()
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	require.NoError(s.t, cmd.Run(), "slimchat %v: %s", args, complaint.String())
	return strings.TrimSuffix(out.String(), "\n")
}

// eventually waits until a condition holds.
func eventually(t testing.TB, holds func() bool, what string, args ...any) {
	t.Helper()
	require.Eventually(t, holds, patience, 5*time.Millisecond, append([]any{what}, args...)...)
}
