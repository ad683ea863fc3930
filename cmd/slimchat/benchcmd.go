package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/slimchat/slimchat/cmd/slimchat/bench"
	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/cmd/slimchat/config"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

const benchHelp = `bench puts load on an MQTT broker and prints rates and latency percentiles.

  pairs    N publishers send to one subscriber each, QoS 1 both ways
  fanout   one publisher sends to N subscribers, QoS 1 both ways
  connect  N clients connect, subscribe at QoS 1 and disconnect, over and over

Without --rate the loop is closed: each publisher keeps --window publishes waiting for their acknowledgement. With --rate it
is open: messages go when they are due, and their latency counts from then, however late they could be sent.

Against SlimChat, --slimchat http://host:port registers accounts of its own and logs them in first (in fanout mode the
subscribers are N clients of one user, so limits.clients_per_user must allow them); the accounts stay on the server. Raise
limits.publish_rate there, or one client is held to its default. Only put load on servers that are yours.`

// benchFlags are the flags of bench.
type benchFlags struct {
	o        bench.Options
	mqtt     string
	slimchat string
	accounts string
	json     bool
}

func newBench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:       "bench pairs|fanout|connect --broker host:port",
		Short:     "Put load on an MQTT broker and measure it",
		Long:      benchHelp,
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{string(bench.ModePairs), string(bench.ModeFanout), string(bench.ModeConnect)},
		Example: "  slimchat bench pairs --broker localhost:1883 --clients 200 --window 16\n" +
			"  slimchat bench pairs --broker localhost:1883 --slimchat http://localhost:8080 --clients 10 --rate 500",
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.o.Broker.Address, "broker", "", "the broker: host:port, mqtt://host:port or mqtts://host:port (required)")
	flags.StringVar(&f.slimchat, "slimchat", "", "the REST address of a SlimChat server, for accounts and addresses of its own")
	flags.IntVarP(&f.o.Clients, "clients", "n", 10, "pairs, subscribers, or connections at a time")
	flags.IntVarP(&f.o.Window, "window", "w", 1, "publishes that each publisher has under way")
	flags.Float64Var(&f.o.Rate, "rate", 0, "messages a second in all (open loop); 0: closed loop")
	flags.IntVar(&f.o.Size, "size", 200, "bytes of payload")
	flags.DurationVarP(&f.o.Duration, "duration", "d", 10*time.Second, "how long to measure")
	flags.DurationVar(&f.o.Warmup, "warmup", 2*time.Second, "load before the measurement")
	flags.DurationVar(&f.o.Drain, "drain", 10*time.Second, "how long to wait for the last deliveries")
	flags.StringVar(&f.mqtt, "mqtt", "5", "MQTT version: 3.1.1 or 5")
	flags.StringVar(&f.o.Broker.User, "user", "", "user name at a broker that is not SlimChat; the password comes from "+config.EnvPrefix+"PASSWORD")
	flags.StringVar(&f.accounts, "accounts", "", "file that keeps the accounts at a SlimChat server and their tokens for the next run")
	flags.BoolVar(&f.o.Broker.Insecure, "insecure", false, "accept any TLS certificate")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	if err := cmd.MarkFlagRequired("broker"); err != nil {
		panic(err) // the flag was added just above
	}
	return cmd
}

func (f *benchFlags) run(cmd *cobra.Command, mode string) error {
	f.o.Mode = bench.Mode(mode)
	switch f.mqtt {
	case "3.1.1", "4":
		f.o.Broker.Version = packet.V311
	case "5", "5.0":
		f.o.Broker.Version = packet.V5
	default:
		return fmt.Errorf("--mqtt %s: want 3.1.1 or 5", f.mqtt)
	}
	if _, _, err := client.ParseAddress(f.o.Broker.Address); err != nil {
		return err
	}
	f.o.Broker.Password = os.Getenv(config.EnvPrefix + "PASSWORD")
	if f.slimchat != "" {
		rest, err := client.NewREST(f.slimchat, 8)
		if err != nil {
			return err
		}
		defer rest.Close()
		f.o.SlimChat = &bench.SlimChat{REST: rest, File: f.accounts}
	}
	var bar progressBar
	if isTerminal(cmd.ErrOrStderr()) {
		bar.w = cmd.ErrOrStderr()
		f.o.Progress = bar.show
	}
	report, err := f.measure(cmd.Context(), &bar)
	if err != nil {
		return err
	}
	if f.json {
		return report.WriteJSON(cmd.OutOrStdout())
	}
	return report.WriteText(cmd.OutOrStdout())
}

func (f *benchFlags) measure(ctx context.Context, bar *progressBar) (*bench.Report, error) {
	defer bar.clear()
	return bench.Run(ctx, f.o)
}

// progressBar draws a run's progress on one line of a terminal.
type progressBar struct {
	mu sync.Mutex
	w  io.Writer
}

// barWidth is the bar's length in characters.
const barWidth = 30

func (b *progressBar) show(p bench.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	filled := int(p.Done * barWidth)
	line := fmt.Sprintf("%-11s [%s%s] %3.0f%%", p.Phase, strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled), 100*p.Done)
	if p.Rate > 0 {
		line += fmt.Sprintf("  %.0f/s", p.Rate)
	}
	fmt.Fprintf(b.w, "\r\x1b[K%s", line)
}

func (b *progressBar) clear() {
	if b.w != nil {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
