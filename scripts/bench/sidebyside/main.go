// Command sidebyside runs the same `slimchat bench` load against SlimChat, mosquitto and nats-server's own MQTT listener on this
// machine, one broker at a time in rounds, and prints medians and ratios. Everything listens on the loopback interface and ends
// with the run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// load is one column of figures: arguments of `slimchat bench`.
type load struct {
	Name     string   `json:"name"`
	Args     []string `json:"args"`
	Connects bool     `json:"-"`
}

func loads() []load {
	pairs := func(clients, window string) []string {
		return []string{"pairs", "--clients", clients, "--window", window}
	}
	return []load{
		{Name: "pairs, 1 in flight", Args: pairs("1", "1")},
		{Name: "pairs, 10 in flight", Args: pairs("10", "1")},
		{Name: "pairs, 200 in flight", Args: pairs("200", "1")},
		{Name: "pairs, 800 in flight", Args: pairs("200", "4")},
		{Name: "pairs, 3200 in flight", Args: pairs("200", "16")},
		{Name: "fan-out, 1 to 100", Args: []string{"fanout", "--clients", "100", "--window", "4"}},
		{Name: "connect and subscribe", Args: []string{"connect", "--clients", "32"}, Connects: true},
	}
}

// settings are the command line.
type settings struct {
	rounds           int
	duration, warmup time.Duration
	dir, out         string
	brokers, match   string
	verbose          bool
}

func main() {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 3, "rounds; the table shows their medians")
	flag.DurationVar(&s.duration, "duration", 6*time.Second, "measurement of each load")
	flag.DurationVar(&s.warmup, "warmup", 2*time.Second, "load before each measurement")
	flag.StringVar(&s.dir, "dir", os.TempDir(), "where the brokers keep their data; must be on a disk")
	flag.StringVar(&s.out, "json", "", "file for all results as JSON")
	flag.StringVar(&s.brokers, "brokers", "slimchat,mosquitto,nats", "brokers to compare")
	flag.StringVar(&s.match, "match", "", "only loads whose name contains this")
	flag.BoolVar(&s.verbose, "v", false, "show what the brokers say")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, s)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	if err := onDisk(s.dir); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.dir, "slimchat-compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, program := range []string{"./cmd/slimchat", "./scripts/bench/natsmqtt"} {
		build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, filepath.Base(program)), program)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("building %s: %w", program, err)
		}
	}
	results := &results{Machine: describeMachine(dir), Rounds: s.rounds, Seconds: s.duration.Seconds()}
	for round := range s.rounds {
		for _, b := range brokers(dir, s) {
			if err := measure(ctx, s, b, round, dir, results); err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
		}
	}
	if s.out != "" {
		text, err := json.MarshalIndent(results, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.out, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return results.table(os.Stdout)
}

// measure starts one broker, puts every load on it and stops it.
func measure(ctx context.Context, s settings, b broker, round int, dir string, results *results) (err error) {
	running, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running.stop()) }()
	for _, l := range loads() {
		if !strings.Contains(l.Name, s.match) {
			continue
		}
		args := append([]string{"bench"}, l.Args...)
		args = append(args, "--broker", running.mqtt, "--mqtt", "3.1.1", "--json", "--duration", s.duration.String(), "--warmup", s.warmup.String(), "--drain", "30s")
		args = append(args, running.benchArgs...)
		bench := exec.CommandContext(ctx, filepath.Join(dir, "slimchat"), args...)
		bench.Stderr = os.Stderr
		text, err := bench.Output()
		if err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
		var r report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
		results.Runs = append(results.Runs, result{Round: round + 1, Broker: b.name, Load: l.Name, Report: text, report: r})
		fmt.Fprintf(os.Stderr, "round %d  %-9s  %-22s  %8.0f/s  p50 %8.2f ms  p99 %8.2f ms%s\n", round+1, b.name, l.Name, r.rate(), r.times().P50, r.times().P99, r.blemishes())
	}
	return nil
}

// brokers are those asked for, in their order.
func brokers(dir string, s settings) []broker {
	var list []broker
	for _, b := range []broker{slimchat(dir, s.verbose), mosquitto(dir, s.verbose), natsMQTT(dir, s.verbose)} {
		if slices.Contains(strings.Split(s.brokers, ","), b.name) {
			list = append(list, b)
		}
	}
	return list
}
