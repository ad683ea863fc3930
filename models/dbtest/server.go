package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// startOnce starts one server for all tests of the process. It ends with the process.
var startOnce = sync.OnceValues(startServer)

// server is a running Postgres; closing lifeline ends it, and so does the end of the test
// process. A server that is not referenced any more would be ended by the collector.
type server struct {
	dsn      string
	lifeline io.WriteCloser
}

// supervise runs the server until the test process has closed its end of standard input,
// which it does even when it crashes, and removes everything.
const supervise = `"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync=off ` +
	`-c full_page_writes=off -c max_connections=200 >"$2/log" 2>&1 & ` +
	`cat >/dev/null; kill -INT $!; wait $!; cd /; rm -rf "$2"`

const startTime = 30 * time.Second

func startServer() (*server, error) {
	bin, err := findPrograms()
	if err != nil {
		return nil, err
	}
	account, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "slimchat-pg")
	if err != nil {
		return nil, err
	}
	if account != nil {
		if err := os.Chown(dir, int(account.Uid), int(account.Gid)); err != nil {
			return nil, err
		}
	}
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account, Setpgid: true}
		return cmd
	}
	out, err := run(filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "slimchat",
		"-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync").CombinedOutput()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w: %s", err, out), os.RemoveAll(dir))
	}
	process := run("/bin/sh", "-c", supervise, "sh", bin, dir)
	lifeline, err := process.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	dsn := "postgres://slimchat@/postgres?" + url.Values{"host": {dir}}.Encode()
	return &server{dsn: dsn, lifeline: lifeline}, awaitServer(dsn, filepath.Join(dir, "log"))
}

// findPrograms finds the folder that holds both initdb and postgres.
func findPrograms() (string, error) {
	candidates, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(candidates)
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		candidates = append([]string{filepath.Dir(path)}, candidates...)
	}
	for _, dir := range candidates {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("initdb and postgres are neither on PATH nor in /usr/lib/postgresql")
}

// unprivileged is the account to run as when we are root, as which Postgres refuses to run;
// nil otherwise.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(account.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(account.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("we are root and there is no account postgres or nobody to run as")
}

func awaitServer(dsn, log string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for {
		if err = db.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(log)
			return fmt.Errorf("postgres does not answer: %w: %s", err, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
