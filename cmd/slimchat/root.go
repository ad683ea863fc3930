package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// errQuiet ends the process with a failure that has been told already.
var errQuiet = errors.New("told already")

// run is the whole program: it executes the verb in args and returns the exit code.
func run(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	ctx, stop := interruptible()
	defer stop()
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errQuiet):
	default:
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(os.Stderr, "slimchat: %s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	return 1
}

// interruptible returns a context that the first SIGINT or SIGTERM ends; a second one ends the process at once.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel()
		case <-done:
			return
		}
		select {
		case <-signals:
			fmt.Fprintln(os.Stderr, "slimchat: stopped at once")
			os.Exit(130)
		case <-done:
		}
	}()
	return ctx, func() { signal.Stop(signals); close(done); cancel() }
}

// newRoot builds the tree of verbs; without one, slimchat serves.
func newRoot() *cobra.Command {
	serve := newServe()
	root := &cobra.Command{
		Use:   "slimchat",
		Short: "Instant messages for people and devices",
		Long: "SlimChat is a messaging server for phones, browsers and devices: MQTT and HTTP in, one durable log inside.\n" +
			"Without a verb it serves; `slimchat serve --help` lists the settings.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          unknownVerb,
		RunE:          serve.RunE,
		Version:       version(),
	}
	root.SetVersionTemplate("slimchat {{.Version}}\n")
	configFlags(root)
	hideFlags(root)
	root.AddCommand(serve, newConfig(), newUser(), newToken(), newSend(), newChat(), newBench(), newVersion())
	return root
}

// unknownVerb refuses arguments of the root, which can only be misspelled verbs.
func unknownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("there is no verb %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(text + "\nslimchat --help lists them")
}

// group is a verb that only holds others.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: unknownVerb, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddCommand(verbs...)
	return cmd
}

// isTerminal tells whether a stream is one.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && termIsTerminal(int(f.Fd()))
}

// say writes a line of a verb's result.
func say(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, format+"\n", args...)
}
