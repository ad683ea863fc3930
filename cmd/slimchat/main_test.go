package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/cmd/slimchat/server"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// runAsProgram makes the test binary be slimchat itself, so that the verbs are tested in processes of their own.
const runAsProgram = "TEST_RUN_AS_SLIMCHAT"

func TestMain(m *testing.M) {
	if os.Getenv(runAsProgram) != "" {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// program is a run of slimchat.
func program(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Dir = dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SLIMCHAT_") }), runAsProgram+"=1")
	return cmd
}

// outcome is how a run ended.
type outcome struct {
	out, err string
	code     int
}

// slimchat runs a verb to its end. input is its standard input.
func slimchat(t *testing.T, dir, input string, env []string, args ...string) outcome {
	t.Helper()
	cmd := program(t.Context(), dir, args...)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil {
		require.ErrorAs(t, err, &exit)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// running is a server in a process of its own.
type running struct {
	cmd  *exec.Cmd
	dir  string
	log  *bytes.Buffer
	at   server.Addresses
	done chan error
}

// serve starts a server on free ports with its data in dir and waits until it is ready.
func serve(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	args = append([]string{"serve", "--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"}, args...)
	r := &running{cmd: program(context.WithoutCancel(t.Context()), dir, args...), dir: dir, log: &bytes.Buffer{}, done: make(chan error, 1)}
	r.cmd.Stderr = r.log
	require.NoError(t, r.cmd.Start())
	go func() { r.done <- r.cmd.Wait() }()
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill() // it may just have ended
			<-r.done
		}
	})
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "data", "run", "listen.json"))
		return err == nil && json.Unmarshal(text, &r.at) == nil
	}, time.Minute, 10*time.Millisecond, "the server does not become ready")
	return r
}

// stop asks the server to stop and returns how it ended.
func (r *running) stop(t *testing.T) error {
	t.Helper()
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-r.done:
		return err
	case <-time.After(time.Minute):
		t.Fatalf("the server does not stop:\n%s", r.log)
		return nil
	}
}

func TestServeAnnouncesItselfAndStopsInOrder(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir)
	require.Regexp(t, `^127\.0\.0\.1:[1-9]\d*$`, s.at.HTTP)
	require.Regexp(t, `^127\.0\.0\.1:[1-9]\d*$`, s.at.MQTT)
	require.Empty(t, s.at.MQTTS+s.at.Cluster+s.at.Federation)
	for _, path := range []string{"/healthz", "/readyz"} {
		response, err := http.Get("http://" + s.at.HTTP + path)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode, path)
	}

	second := slimchat(t, dir, "", nil, "serve", "--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0")
	require.Equal(t, 1, second.code)
	require.Contains(t, second.err, "in use")
	require.FileExists(t, filepath.Join(dir, "data", "run", "listen.json"), "of the first one")

	require.NoError(t, s.stop(t), "%s", s.log)
	require.NoFileExists(t, filepath.Join(dir, "data", "run", "listen.json"))
	require.NotContains(t, s.log.String(), `"level":"ERROR"`)
}

func TestServeFailsClearlyAndLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir)
	other := t.TempDir()
	taken := slimchat(t, other, "", nil, "serve", "--http-listen", s.at.HTTP, "--mqtt-listen", "127.0.0.1:0")
	require.Equal(t, 1, taken.code)
	require.Contains(t, taken.err, "http.listen: ")
	require.Contains(t, taken.err, "address already in use")
	require.NoFileExists(t, filepath.Join(other, "data", "run", "listen.json"))

	again := serve(t, other) // nothing of the failed start is in the way
	require.NoError(t, again.stop(t))
}

func TestServeByDefaultAndBadConfiguration(t *testing.T) {
	for _, args := range [][]string{{}, {"serve"}, {"config", "check"}} {
		got := slimchat(t, t.TempDir(), "", []string{"SLIMCHAT_MQTT_LISTN=:1"}, args...)
		require.Equal(t, 1, got.code, args)
		require.Contains(t, got.err, "did you mean SLIMCHAT_MQTT_LISTEN?", args)
	}
	got := slimchat(t, t.TempDir(), "", []string{"SLIMCHAT_CLUSTER_LISTEN=:6222"}, "serve")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.err, "clustering is not available in this version")
}

func TestConfigVerbs(t *testing.T) {
	dir := t.TempDir()
	text := slimchat(t, dir, "", nil, "config", "default")
	require.Zero(t, text.code)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "slimchat.yaml"), []byte(text.out), 0o600))
	good := slimchat(t, dir, "", nil, "config", "check")
	require.Equal(t, outcome{out: "The configuration is good.\n"}, good)

	bad := slimchat(t, dir, "", nil, "config", "check", "--limits-payload=lots")
	require.Equal(t, 1, bad.code)
	require.Contains(t, bad.err, "--limits-payload: limits.payload")
}

func TestUnknownVerbs(t *testing.T) {
	got := slimchat(t, t.TempDir(), "", nil, "serv")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.err, "did you mean serve?")
	require.Equal(t, 1, slimchat(t, t.TempDir(), "", nil, "user", "remove").code)
}

func TestVersionAndCompletion(t *testing.T) {
	got := slimchat(t, t.TempDir(), "", nil, "version")
	require.Zero(t, got.code)
	require.Regexp(t, `^slimchat \S.*, go1\.\d+`, got.out)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		got := slimchat(t, t.TempDir(), "", nil, "completion", shell)
		require.Zero(t, got.code)
		require.Contains(t, got.out, "slimchat", shell)
	}
}

func TestUserVerbs(t *testing.T) {
	dir := t.TempDir()
	require.Equal(t, outcome{out: "added alice\n"}, slimchat(t, dir, "correct horse\n", nil, "user", "add", "Alice"))
	require.Equal(t, outcome{out: "added root\n"}, slimchat(t, dir, "", []string{"SLIMCHAT_PASSWORD=battery staple"}, "user", "add", "root", "--admin", "--nick", "The boss"))

	taken := slimchat(t, dir, "correct horse\n", nil, "user", "add", "alice")
	require.Equal(t, 1, taken.code)
	require.Contains(t, taken.err, "alice")

	warned := slimchat(t, dir, "", nil, "user", "passwd", "alice", "--password", "another one")
	require.Zero(t, warned.code)
	require.Contains(t, warned.err, "warning")

	list := slimchat(t, dir, "", nil, "user", "list")
	require.Zero(t, list.code)
	require.Regexp(t, `(?m)^alice +.* user +active`, list.out)
	require.Regexp(t, `(?m)^root +.* admin +active`, list.out)

	require.Equal(t, 1, slimchat(t, dir, "", nil, "user", "del", "alice").code, "without --yes")
	require.Equal(t, outcome{out: "deleted alice\n"}, slimchat(t, dir, "", nil, "user", "del", "alice", "--yes"))
	require.Equal(t, 1, slimchat(t, dir, "", nil, "user", "del", "alice", "--yes").code)
	require.NotRegexp(t, `(?m)^alice`, slimchat(t, dir, "", nil, "user", "list").out)
}

func TestTokenVerbWhileTheServerRuns(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir)
	require.Zero(t, slimchat(t, dir, "correct horse\n", nil, "user", "add", "alice").code)
	got := slimchat(t, dir, "", nil, "token", "alice", "--client", "pad", "--ttl", "2h")
	require.Zero(t, got.code, got.err)
	require.Contains(t, got.err, "client pad")
	conn, err := client.Connect(t.Context(), client.Options{Address: s.at.MQTT, Version: 5, User: "alice", Password: strings.TrimSpace(got.out), CleanStart: true})
	require.NoError(t, err)
	require.Equal(t, "pad", conn.ClientID)
	require.NoError(t, conn.Disconnect())

	require.Equal(t, 1, slimchat(t, dir, "", nil, "token", "--node", "lamp").code, "not registered")
	node := slimchat(t, dir, "", nil, "token", "--node", "lamp", "--register")
	require.Zero(t, node.code, node.err)
	conn, err = client.Connect(t.Context(), client.Options{Address: s.at.MQTT, Version: 4, User: "lamp", ClientID: "lamp", Password: strings.TrimSpace(node.out), CleanStart: true})
	require.NoError(t, err)
	require.NoError(t, conn.Subscribe("$IM/node/lamp", 1, nil))
	require.NoError(t, conn.Disconnect())

	for _, args := range [][]string{{"token"}, {"token", "alice", "--node", "lamp"}, {"token", "alice", "--register"}, {"token", "alice", "--ttl", "soon"}, {"token", "nobody"}} {
		require.Equal(t, 1, slimchat(t, dir, "", nil, args...).code, args)
	}
}

func TestSendAndChat(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir)
	web := "http://" + s.at.HTTP
	for _, name := range []string{"alice", "bob"} {
		require.Zero(t, slimchat(t, dir, "password of "+name+"\n", nil, "user", "add", name).code)
	}
	alice, bob := []string{"SLIMCHAT_PASSWORD=password of alice"}, []string{"SLIMCHAT_PASSWORD=password of bob"}
	sent := slimchat(t, dir, "from a pipe\nof two lines\n", alice, "send", "bob", "--server", web, "--user", "alice")
	require.Zero(t, sent.code, sent.err)
	require.Regexp(t, `^sent to user/bob: id \S+, seq \d+\n$`, sent.out)
	nobody := slimchat(t, dir, "", alice, "send", "carol", "hello", "--server", web, "--user", "alice")
	require.Equal(t, 1, nobody.code)
	require.Contains(t, nobody.err, "carol")

	// Bob chats: he sees the past, gets what is sent while he is there, and sends.
	cmd := program(t.Context(), dir, "chat", "alice", "--server", web, "--user", "bob")
	cmd.Env = append(cmd.Env, bob...)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := newWaiter(out)
	lines.until(t, "of two lines")
	require.Zero(t, slimchat(t, dir, "", alice, "send", "bob", "bell\a and\x1b[2J\nbob: not me", "--server", web, "--user", "alice").code)
	lines.until(t, "| bob: not me")
	_, err = io.WriteString(in, "hello\\\nalice\n")
	require.NoError(t, err)
	require.NoError(t, in.Close()) // as Ctrl-D
	require.NoError(t, cmd.Wait())
	seen := lines.text()
	require.Contains(t, seen, "alice: from a pipe\n           | of two lines\n")
	require.Contains(t, seen, "alice: bell^G and^[[2J\n           | bob: not me\n")
	require.Equal(t, 1, strings.Count(seen, "of two lines"), "by history and by MQTT, but shown once")

	got := slimchat(t, dir, "", alice, "chat", "bob", "--server", web, "--user", "alice")
	require.Zero(t, got.code, got.err)
	require.Contains(t, got.out, "bob: hello\n           | alice\n")
	require.Contains(t, got.out, "me: from a pipe\n")

	wrong := slimchat(t, dir, "not the password\n", nil, "chat", "bob", "--server", web, "--user", "alice")
	require.Equal(t, 1, wrong.code)
	require.Contains(t, wrong.err, "password is wrong")
}

func TestBenchAgainstTheServer(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir, "--limits-publish-rate", "1000000", "--limits-publish-burst", "1000000", "--limits-clients-per-user", "100")
	for _, mode := range []string{"pairs", "fanout", "connect"} {
		for _, version := range []string{"3.1.1", "5"} {
			got := slimchat(t, dir, "", nil, "bench", mode, "--broker", s.at.MQTT, "--slimchat", "http://"+s.at.HTTP, "--mqtt", version,
				"--clients", "3", "--window", "4", "--duration", "300ms", "--warmup", "50ms", "--accounts", filepath.Join(dir, "accounts.json"), "--json")
			require.Zero(t, got.code, got.err)
			var report struct {
				Lost, Duplicates, Errors, Refused int
				OutOfOrder                        int     `json:"out_of_order"`
				Delivered                         float64 `json:"delivered_per_second"`
				Connects                          float64 `json:"connects_per_second"`
			}
			require.NoError(t, json.Unmarshal([]byte(got.out), &report), got.out)
			require.Zero(t, report.Lost+report.Duplicates+report.Errors+report.Refused+report.OutOfOrder, got.out)
			require.Positive(t, report.Delivered+report.Connects, got.out)
		}
	}
	got := slimchat(t, dir, "", nil, "bench", "storm", "--broker", s.at.MQTT)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.err, "storm")
}

func TestBenchTellsOfRefusals(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir, "--limits-publish-rate", "1", "--limits-publish-burst", "5")
	got := slimchat(t, dir, "", nil, "bench", "pairs", "--broker", s.at.MQTT, "--slimchat", "http://"+s.at.HTTP, "--clients", "1", "--duration", "200ms", "--warmup", "0s")
	require.Zero(t, got.code, got.err)
	require.Contains(t, got.out, "refused with reason 0x9") // quota exceeded, or message rate too high
	require.Contains(t, got.out, "lost 0")
}

func TestEveryVerbIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		if cmd.HasParent() && cmd.Name() != "help" {
			require.Contains(t, string(page), "`"+cmd.CommandPath()+"`")
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

func TestHarmless(t *testing.T) {
	for text, want := range map[string]string{
		"plain ü 漢字 👍":       "plain ü 漢字 👍",
		"a\tb\nc":            "a\tb\nc",
		"\x1b]0;title\a\r\b": "^[]0;title^G^M^H",
		"\x7f\u009b31m":      "^?<U+009B>31m",
		"a\u202eb\u2066":     "a<U+202E>b<U+2066>",
		"bad\xffutf8":        "bad<U+FFFD>utf8",
	} {
		require.Equal(t, want, harmless(text))
	}
}

// waiter collects output and waits for parts of it.
type waiter struct {
	lines chan string
	seen  strings.Builder
}

func newWaiter(r io.Reader) *waiter {
	w := &waiter{lines: make(chan string, 1000)}
	go func() {
		defer close(w.lines)
		var rest []byte
		for b := make([]byte, 4096); ; {
			n, err := r.Read(b)
			rest = append(rest, b[:n]...)
			for {
				i := bytes.IndexByte(rest, '\n')
				if i < 0 {
					break
				}
				w.lines <- string(rest[:i+1])
				rest = rest[i+1:]
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					w.lines <- err.Error()
				}
				return
			}
		}
	}()
	return w
}

// until waits for a line that contains text.
func (w *waiter) until(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case line, ok := <-w.lines:
			w.seen.WriteString(line)
			if strings.Contains(line, text) {
				return
			}
			require.True(t, ok, "the output ended without %q:\n%s", text, w.seen.String())
		case <-timeout:
			t.Fatalf("%q does not come; there was:\n%s", text, w.seen.String())
		}
	}
}

// text is everything that came, to the end.
func (w *waiter) text() string {
	for line := range w.lines {
		w.seen.WriteString(line)
	}
	return w.seen.String()
}

func TestFirstSignalDrainsAndSecondForces(t *testing.T) {
	s := serve(t, t.TempDir())
	device, err := client.Connect(t.Context(), client.Options{Address: s.at.MQTT, Version: packet.V5, User: "nobody", Password: "nothing"})
	require.ErrorAs(t, err, new(*client.Refused))
	require.Nil(t, device)

	// A request that never ends holds up the stop.
	request, err := net.Dial("tcp", s.at.HTTP)
	require.NoError(t, err)
	defer request.Close()
	_, err = io.WriteString(request, "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	require.NoError(t, err)
	idle := &http.Client{Transport: &http.Transport{}} // a connection that is kept, as a balancer's would be
	response, err := idle.Get("http://" + s.at.HTTP + "/readyz")
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool {
		response, err := idle.Get("http://" + s.at.HTTP + "/readyz")
		if err != nil {
			return true // nobody is let in any more
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusServiceUnavailable
	}, 10*time.Second, time.Millisecond)
	select {
	case err := <-s.done:
		t.Fatalf("the server ended with a request under way: %v", err)
	default:
	}
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	exit := (*exec.ExitError)(nil)
	require.ErrorAs(t, <-s.done, &exit)
	require.Equal(t, 130, exit.ExitCode())
}

// keyPair writes a certificate that nobody trusts, and its key.
func keyPair(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	donor := httptest.NewTLSServer(nil)
	defer donor.Close()
	pair := donor.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(t.TempDir(), "c.pem"), filepath.Join(t.TempDir(), "k.pem")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	return certFile, keyFile
}

func TestServeOverTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := keyPair(t)
	s := serve(t, dir, "--mqtt-tls-cert", cert, "--mqtt-tls-key", key, "--mqtt-tls-listen", "127.0.0.1:0", "--http-tls-cert", cert, "--http-tls-key", key)
	require.NotEmpty(t, s.at.MQTTS)
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // a certificate of this test
	defer trusting.CloseIdleConnections()
	require.Zero(t, slimchat(t, dir, "correct horse\n", nil, "user", "add", "alice").code)
	response, err := trusting.Post("https://"+s.at.HTTP+"/login", "application/json", strings.NewReader(`{"username":"alice","password":"correct horse"}`))
	require.NoError(t, err)
	defer response.Body.Close()
	var login client.Login
	require.NoError(t, json.NewDecoder(response.Body).Decode(&login))
	require.Equal(t, "mqtts://"+s.at.MQTTS, login.MQTT.TLS)
	require.Equal(t, "wss://"+s.at.HTTP+"/mqtt", login.MQTT.WS)
	conn, err := client.Connect(t.Context(), client.Options{Address: login.MQTT.TLS, Insecure: true, Version: packet.V5, User: "alice", Password: login.Token})
	require.NoError(t, err)
	require.NoError(t, conn.Disconnect())

	missing := slimchat(t, t.TempDir(), "", nil, "serve", "--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0", "--http-tls-cert", "nowhere.pem", "--http-tls-key", key)
	require.Equal(t, 1, missing.code)
	require.Contains(t, missing.err, "nowhere.pem")
}
