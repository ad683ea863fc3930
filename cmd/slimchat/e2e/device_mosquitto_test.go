package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// mosquitto runs Debian's mosquitto_pub and mosquitto_sub with one version of the protocol.
type mosquitto struct {
	*server
	version string // as in -V
}

// eachMosquitto runs a test with both versions, or skips it where the programs are not installed.
func eachMosquitto(t *testing.T, s *server, test func(t *testing.T, m mosquitto)) {
	for _, program := range []string{"mosquitto_pub", "mosquitto_sub", "stdbuf"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no %s: install mosquitto-clients and coreutils", program)
		}
	}
	for _, version := range []string{"mqttv311", "mqttv5"} {
		t.Run(version, func(t *testing.T) { test(t, mosquitto{s.in(t), version}) })
	}
}

// person is the name of a user that only this test with this version has.
func (m mosquitto) person(name string) string {
	test := strings.ToLower(m.t.Name())
	return strings.NewReplacer("/", "-", " ", "").Replace(test) + "-" + name
}

func (m mosquitto) account(name, client string) login {
	m.t.Helper()
	return m.server.account(m.person(name), client)
}

// command is a program with the arguments that every one of them needs.
func (m mosquitto) command(program string, who login, args ...string) *exec.Cmd {
	m.t.Helper()
	address := m.addr.MQTT
	if slices.Contains(args, "--cafile") {
		address = m.addr.MQTTS
	}
	host, port, err := net.SplitHostPort(address)
	require.NoError(m.t, err)
	// stdbuf: what they say must not wait in a buffer because it goes to a pipe.
	cmd := exec.Command("stdbuf", append([]string{
		"-oL", program, "-h", host, "-p", port, "-V", m.version, "-u", who.User, "-P", who.Token, "-i", who.Client, "-q", "1",
	}, args...)...)
	cmd.SysProcAttr = dieWithParent()
	return cmd
}

// pub runs mosquitto_pub to its end and returns what it said and its exit code, which is CONNACK's code when that was it.
func (m mosquitto) pub(who login, topic, payload string, args ...string) (said string, code int) {
	m.t.Helper()
	return m.finish(m.command("mosquitto_pub", who, append([]string{"-t", topic, "-s"}, args...)...), payload)
}

// subOnce runs a mosquitto_sub that is expected to end by itself.
func (m mosquitto) subOnce(who login, args ...string) (said string, code int) {
	m.t.Helper()
	return m.finish(m.command("mosquitto_sub", who, append([]string{"-W", "20", "-F", "%t %p"}, args...)...), "")
}

func (m mosquitto) finish(cmd *exec.Cmd, input string) (said string, code int) {
	m.t.Helper()
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) {
		require.NoError(m.t, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// subscription is a mosquitto_sub that runs; it is no device, because it cannot send.
type subscription struct {
	*arrivals
	cmd     *exec.Cmd
	granted chan struct{}
	reading sync.WaitGroup
}

// sub starts mosquitto_sub and waits until the server has taken its subscription. It is killed with the test.
func (m mosquitto) sub(who login, args ...string) *subscription {
	m.t.Helper()
	// -d says when the subscription stands; the payloads have no newline, so a line is a message.
	cmd := m.command("mosquitto_sub", who, append([]string{"-d", "-t", "$IM/#", "-F", "got %q %t %p"}, args...)...)
	out, err := cmd.StdoutPipe()
	require.NoError(m.t, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(m.t, cmd.Start())
	p := &subscription{arrivals: newArrivals(m.t, who), cmd: cmd, granted: make(chan struct{})}
	p.reading.Go(func() { p.read(out) })
	m.t.Cleanup(p.kill)
	select {
	case <-p.granted:
	case <-p.closed:
		m.t.Fatal("mosquitto_sub ended before it was subscribed")
	case <-time.After(patience):
		m.t.Fatal("mosquitto_sub does not get its SUBACK")
	}
	return p
}

func (p *subscription) read(out io.Reader) {
	var once sync.Once
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "got "):
			part := strings.SplitN(line, " ", 4)
			p.add(delivered{QoS: part[1][0] - '0', Topic: part[2], Body: part[3]})
		case strings.HasPrefix(line, "Subscribed (mid"):
			once.Do(func() { close(p.granted) }) // again after it has reconnected
		}
	}
	p.end()
}

// kill ends it without a goodbye.
func (p *subscription) kill() { p.signal(syscall.SIGKILL) }

// leave ends it as Ctrl-C does, with DISCONNECT.
func (p *subscription) leave() { p.signal(syscall.SIGINT) }

func (p *subscription) signal(s syscall.Signal) {
	if p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Logf("mosquitto_sub: %v", err) // it has ended by itself
	}
	p.reading.Wait()
	_ = p.cmd.Wait() // how it ends is its own affair
}
