package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const helperEnv = "SLIMCHAT_CLUSTER_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		hold(dir)
		return
	}
	os.Exit(m.Run())
}

// hold is the other process of TestSecondProcessIsRefused: it keeps the directory until
// its standard input closes.
func hold(dir string) {
	n, err := Start(context.Background(), Options{DataDir: dir, Domain: "test"})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	if err := n.Stop(context.Background()); err != nil {
		os.Exit(1)
	}
}

func start(t *testing.T, opts Options) *Node {
	t.Helper()
	if opts.Domain == "" {
		opts.Domain = "example.test"
	}
	n, err := Start(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Stop(context.Background())) })
	return n
}

func TestStartStopLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	n, err := Start(t.Context(), Options{DataDir: t.TempDir(), Domain: "example.test"})
	require.NoError(t, err)
	require.NoError(t, n.Healthy())
	nc, err := n.Connect("test")
	require.NoError(t, err)
	require.NoError(t, n.Stop(context.Background()))
	require.NoError(t, n.Stop(context.Background()), "twice is once")
	require.True(t, nc.IsClosed())
	require.ErrorIs(t, n.Healthy(), ErrStopped)
	_, err = n.Connect("late")
	require.ErrorIs(t, err, ErrStopped)
	// The access-time clock of the server is process wide and ends a little later.
	goleak.VerifyNone(t, before,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1"))
}

func TestNoListenerIsOpen(t *testing.T) {
	n := start(t, Options{DataDir: t.TempDir()})
	require.Nil(t, n.ClusterAddr())
	require.Nil(t, n.srv.Addr())
	require.Nil(t, n.srv.MonitorAddr())
}

func TestDataSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		n, err := Start(t.Context(), Options{DataDir: dir, Domain: "example.test"})
		require.NoError(t, err)
		nc, err := n.Connect("test")
		require.NoError(t, err)
		js, err := jetstream.NewWithDomain(nc, JetStreamDomain("example.test"))
		require.NoError(t, err)
		s, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}})
		require.NoError(t, err)
		require.EqualValues(t, i, s.CachedInfo().State.Msgs)
		_, err = js.Publish(t.Context(), "s.a", []byte("x"))
		require.NoError(t, err)
		require.DirExists(t, n.StreamDir("S"))
		require.NoError(t, n.Stop(context.Background()))
	}
}

func TestSystemAccountIsApart(t *testing.T) {
	n := start(t, Options{DataDir: t.TempDir()})
	nc, err := n.Connect("test")
	require.NoError(t, err)
	_, err = nc.Request("$SYS.REQ.SERVER.PING", nil, 200*time.Millisecond)
	require.Error(t, err)
}

func TestSameProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, Options{DataDir: dir})
	_, err := Start(t.Context(), Options{DataDir: dir, Domain: "example.test"})
	require.ErrorIs(t, err, ErrDataLocked)
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)

	_, err = Start(t.Context(), Options{DataDir: dir, Domain: "example.test"})
	require.ErrorIs(t, err, ErrDataLocked)
	var locked *DataLockedError
	require.ErrorAs(t, err, &locked)
	require.Equal(t, dir, locked.Dir)
	require.Equal(t, cmd.Process.Pid, locked.PID)

	// However the owner ends, the directory is free again.
	require.NoError(t, cmd.Process.Kill())
	require.NoError(t, in.Close())
	_ = cmd.Wait()
	start(t, Options{DataDir: dir})
}

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no data":   {Domain: "a"},
		"no domain": {DataDir: t.TempDir()},
		"routes":    {DataDir: t.TempDir(), Domain: "a", Routes: []string{"nats://127.0.0.1:1"}},
		"no name":   {DataDir: t.TempDir(), Domain: "a", ClusterListen: "127.0.0.1:0"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Start(t.Context(), o)
			require.Error(t, err)
		})
	}
	file := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Start(t.Context(), Options{DataDir: file, Domain: "a"})
	require.Error(t, err)
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := Start(ctx, Options{DataDir: dir, Domain: "example.test"})
	if err != nil { // the server may also have been quicker
		require.ErrorIs(t, err, context.Canceled)
		start(t, Options{DataDir: dir}) // the lock has been released
	}
}

func TestServerLogGoesToSlog(t *testing.T) {
	var mu sync.Mutex
	var text strings.Builder
	h := slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return text.Write(p)
	}), &slog.HandlerOptions{Level: slog.LevelDebug})
	n := start(t, Options{DataDir: t.TempDir(), Logger: slog.New(h)})
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, text.String(), "component=nats")
	require.Contains(t, text.String(), "Server is ready")
	require.NotContains(t, text.String(), n.secret)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestLockErrorText(t *testing.T) {
	err := error(&DataLockedError{Dir: "/srv/data", PID: 12})
	require.Equal(t, "data directory /srv/data is in use by process 12", err.Error())
	require.True(t, errors.Is(err, ErrDataLocked))
}

func TestOneNodeOfACluster(t *testing.T) {
	n, err := Start(t.Context(), Options{DataDir: t.TempDir(), Domain: "example.test", NodeName: "n1"})
	require.NoError(t, err)
	require.Equal(t, "n1", n.Name())
	require.NoError(t, n.Stop(context.Background()))
}
