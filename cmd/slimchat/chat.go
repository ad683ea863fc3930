package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// lastWords is how long chat waits at the end for what it sent to be acknowledged.
const lastWords = 10 * time.Second

func newChat() *cobra.Command {
	var mqtt string
	var history int
	r := remote{client: "chat-" + hostName()}
	cmd := &cobra.Command{
		Use:   "chat PEER",
		Short: "Talk with someone from this terminal",
		Long: "chat logs in, shows the last messages with PEER, and then sends what you type and shows what you get.\n" +
			"PEER is an address, such as user/bob, or the bare name of a user. Several lines that are pasted at once are one message, and\n" +
			"so are lines that end in a backslash with the line after them. Ctrl-D leaves.",
		Example: "  slimchat chat bob --user alice",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			peer, err := parsePeer(args[0])
			if err != nil {
				return fmt.Errorf("%q: %w", args[0], err)
			}
			in := bufio.NewReader(cmd.InOrStdin())
			cmd.SetIn(in)
			if isTerminal(os.Stdin) {
				cmd.SetIn(os.Stdin)
			}
			rest, login, err := r.login(cmd.Context(), cmd)
			if err != nil {
				return err
			}
			defer rest.Close()
			if mqtt == "" {
				if mqtt, err = mqttAddress(r.server, login); err != nil {
					return err
				}
			}
			link := newChatLink(client.Options{
				Address: mqtt, Version: packet.V5, User: login.User.UID, Password: login.Token, ClientID: login.Client.ID,
				KeepAlive: uint16(chatKeepAlive / time.Second), CleanStart: true,
			}, im.User(login.User.UID), peer)
			return runChat(cmd, rest, link, history, in)
		},
	}
	r.flags(cmd)
	cmd.Flags().StringVar(&mqtt, "mqtt", "", "the server's MQTT address (default: what it says at login)")
	cmd.Flags().IntVar(&history, "history", 20, "messages of the past to show")
	return cmd
}

// runChat shows the past, then connects and carries messages both ways until the input ends.
func runChat(cmd *cobra.Command, rest *client.REST, link *chatLink, history int, in *bufio.Reader) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	console, restore, err := newConsole(cmd, in)
	if err != nil {
		return err
	}
	defer restore()
	link.show = func(line string) { fmt.Fprintln(console.out, line) }
	if history > 0 {
		past, err := rest.History(ctx, link.peer.String(), history)
		if err != nil {
			return fmt.Errorf("reading the history: %w", err)
		}
		for _, m := range slices.Backward(past) {
			link.received(&m)
		}
	}
	done := make(chan error, 1)
	go func() { done <- link.run(ctx) }()
	lines := make(chan string)
	inputEnd := make(chan error, 1)
	go func() { inputEnd <- console.read(ctx, lines) }()
	for {
		select {
		case text := <-lines:
			if err := link.send(text); err != nil {
				link.show("! " + err.Error())
			}
		case err := <-done:
			return err
		case <-ctx.Done():
			return <-done
		case err := <-inputEnd:
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if err := link.drained(ctx, lastWords); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "slimchat: %v\n", err)
			}
			cancel()
			return <-done
		}
	}
}

// console is where a person types and reads.
type console struct {
	out  io.Writer
	line func() (text string, pasted bool, err error)
}

// newConsole takes over the terminal, with a prompt and line editing, so that what arrives does not mix with what is being
// typed; input that is no terminal is read as it is. restore gives the terminal back.
func newConsole(cmd *cobra.Command, in *bufio.Reader) (*console, func(), error) {
	if !isTerminal(os.Stdin) || !isTerminal(os.Stdout) {
		return &console{out: cmd.OutOrStdout(), line: func() (string, bool, error) {
			text, err := in.ReadString('\n')
			if err != nil && text != "" {
				err = nil
			}
			return strings.TrimRight(text, "\r\n"), false, err
		}}, func() {}, nil
	}
	fd := int(os.Stdin.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, nil, fmt.Errorf("preparing the terminal: %w", err)
	}
	terminal := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{os.Stdin, os.Stdout}, "> ")
	if width, height, err := term.GetSize(fd); err == nil && width > 0 {
		_ = terminal.SetSize(width, height) // a wrong width only misplaces the prompt
	}
	terminal.SetBracketedPasteMode(true)
	return &console{out: terminal, line: func() (string, bool, error) {
			text, err := terminal.ReadLine()
			if errors.Is(err, term.ErrPasteIndicator) {
				return text, true, nil
			}
			return text, false, err
		}}, func() {
			terminal.SetBracketedPasteMode(false)
			if err := term.Restore(fd, old); err == nil {
				fmt.Fprintln(os.Stdout)
			}
		}, nil
}

// read gives each message that is typed to lines until the input ends.
func (c *console) read(ctx context.Context, lines chan<- string) error {
	var parts []string
	for {
		text, pasted, err := c.line()
		if err != nil {
			return err
		}
		if more, found := strings.CutSuffix(text, `\`); found && !pasted {
			parts = append(parts, more)
			continue
		}
		parts = append(parts, text)
		if pasted {
			continue
		}
		message := strings.Join(parts, "\n")
		parts = nil
		if strings.TrimSpace(message) == "" {
			continue
		}
		select {
		case lines <- message:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
