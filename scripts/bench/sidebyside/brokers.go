package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 60 * time.Second
)

// broker is something to measure.
type broker struct {
	name  string
	start func(ctx context.Context) (*server, error)
}

// server is a broker that runs.
type server struct {
	cmd       *exec.Cmd
	mqtt      string   // its address
	benchArgs []string // what `slimchat bench` needs besides
	data      string   // removed at the stop, if not empty
}

// stop ends the process with SIGTERM, or SIGKILL if it does not go.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(stopTimeout, func() {
		fmt.Fprintln(os.Stderr, "compare: a broker does not stop and is killed")
		_ = s.cmd.Process.Kill() // it may have gone meanwhile
	})
	defer kill.Stop()
	_ = s.cmd.Wait() // brokers end with many codes after a signal
	if s.data == "" {
		return nil
	}
	return os.RemoveAll(s.data)
}

// slimchat keeps its data from round to round, so that the accounts need to be made once.
func slimchat(dir string, verbose bool) broker {
	return broker{name: "slimchat", start: func(ctx context.Context) (*server, error) {
		data := filepath.Join(dir, "slimchat-data")
		listen := filepath.Join(data, "run", "listen.json")
		if err := os.RemoveAll(listen); err != nil {
			return nil, err
		}
		s, _, err := launch(ctx, verbose, filepath.Join(dir, "slimchat"), "serve", "--data", data, "--durability", "disk",
			"--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0", "--log-level", "warn",
			"--limits-publish-rate", "1000000000", "--limits-publish-burst", "1000000000", "--limits-clients-per-user", "1000",
			"--limits-connections-per-address", "1000000", "--limits-registrations", "1000000", "--limits-logins", "1000000")
		if err != nil {
			return nil, err
		}
		var at struct{ HTTP, MQTT string }
		if err := await(ctx, func() error {
			text, err := os.ReadFile(listen)
			if err != nil {
				return err
			}
			return json.Unmarshal(text, &at)
		}); err != nil {
			return nil, errors.Join(err, s.stop())
		}
		s.mqtt = at.MQTT
		s.benchArgs = []string{"--slimchat", "http://" + at.HTTP, "--accounts", filepath.Join(dir, "accounts.json")}
		return s, nil
	}}
}

// mosquitto keeps everything in memory, and its limits are raised so that it drops nothing.
func mosquitto(dir string, verbose bool) broker {
	return broker{name: "mosquitto", start: func(ctx context.Context) (*server, error) {
		path, err := exec.LookPath("mosquitto")
		if err != nil {
			path = "/usr/sbin/mosquitto" // Debian's place, which is not on everybody's path
		}
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		address := free.Addr().String()
		if err := free.Close(); err != nil {
			return nil, err
		}
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		conf := filepath.Join(dir, "mosquitto.conf")
		lines := []string{
			"listener " + port + " 127.0.0.1", "allow_anonymous true", "persistence false",
			"max_inflight_messages 65535", "max_queued_messages 0", "max_queued_bytes 0", "memory_limit 0",
		}
		if os.Geteuid() == 0 {
			lines = append(lines, "user root")
		}
		if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return nil, err
		}
		s, _, err := launch(ctx, verbose, path, "-c", conf)
		if err != nil {
			return nil, err
		}
		s.mqtt = address
		if err := await(ctx, func() error {
			conn, err := net.DialTimeout("tcp", address, time.Second)
			if err != nil {
				return err
			}
			return conn.Close()
		}); err != nil {
			return nil, errors.Join(err, s.stop())
		}
		return s, nil
	}}
}

// natsMQTT starts from an empty directory each time.
func natsMQTT(dir string, verbose bool) broker {
	return broker{name: "nats", start: func(ctx context.Context) (*server, error) {
		data, err := os.MkdirTemp(dir, "nats-")
		if err != nil {
			return nil, err
		}
		s, output, err := launch(ctx, verbose, filepath.Join(dir, "natsmqtt"), "-data", data)
		if err != nil {
			return nil, err
		}
		s.data = data
		line, err := bufio.NewReader(output).ReadString('\n')
		if err != nil {
			return nil, errors.Join(err, s.stop())
		}
		s.mqtt = strings.TrimSpace(line)
		return s, nil
	}}
}

// launch starts a program; output is what it prints.
func launch(ctx context.Context, verbose bool, path string, args ...string) (s *server, output io.Reader, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(path, args...) // not bound to ctx: stop ends it in good order
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SLIMCHAT_") })
	if verbose {
		cmd.Stderr = os.Stderr
	}
	if output, err = cmd.StdoutPipe(); err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return &server{cmd: cmd}, output, nil
}

// await repeats try until it succeeds.
func await(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("does not start: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
