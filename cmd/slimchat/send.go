package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/cmd/slimchat/config"
)

// maxText bounds the text that send reads from standard input, in bytes; the server has its own limit.
const maxText = 1 << 20

// logoutTimeout bounds the goodbye after a message was sent.
const logoutTimeout = 5 * time.Second

func newSend() *cobra.Command {
	var thread string
	r := remote{client: "send-" + hostName()}
	cmd := &cobra.Command{
		Use:   "send TO [TEXT]",
		Short: "Send one message, with the text from the command line or standard input",
		Long: "send sends one message over REST and returns once the server has it in its log.\n" +
			"TO is an address, such as user/bob or node/lamp, or the bare name of a user. The password is read from the terminal, from\n" +
			config.EnvPrefix + "PASSWORD, or as the first line of standard input; a token in " + config.EnvPrefix + "TOKEN goes before any password.",
		Example: "  slimchat send bob 'see you at eight' --user alice\n  uptime | " + config.EnvPrefix + "TOKEN=… slimchat send bob --user alice",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := parsePeer(args[0])
			if err != nil {
				return fmt.Errorf("%q: %w", args[0], err)
			}
			rest, logout, err := r.session(cmd)
			if err != nil {
				return err
			}
			defer logout()
			text, err := textOf(cmd, args[1:])
			if err != nil {
				return err
			}
			message := map[string]any{"to": to.String(), "type": "chat", "content": map[string]any{"type": "text", "data": text}}
			if thread != "" {
				message["thread"] = thread
			}
			sent, err := rest.Send(cmd.Context(), message)
			if err != nil {
				return err
			}
			say(cmd.OutOrStdout(), "sent to %s: id %s, seq %d", to, harmless(sent.ID), sent.Seq)
			return nil
		},
	}
	r.flags(cmd)
	cmd.Flags().StringVar(&thread, "thread", "", "thread of the message")
	return cmd
}

// session returns a REST client that speaks for the user, and what to do when it is no longer needed.
func (r *remote) session(cmd *cobra.Command) (*client.REST, func(), error) {
	if token := environmentToken(); token != "" {
		rest, err := client.NewREST(r.server, 1)
		if err != nil {
			return nil, nil, err
		}
		return rest.WithToken(token), rest.Close, nil
	}
	rest, _, err := r.login(cmd.Context(), cmd)
	if err != nil {
		return nil, nil, err
	}
	return rest, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), logoutTimeout)
		defer cancel()
		if err := rest.Logout(ctx); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "slimchat: logging out: %v\n", err)
		}
		rest.Close()
	}, nil
}

// textOf is the message's text: the argument, or else standard input without its last line end.
func textOf(cmd *cobra.Command, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxText+1))
	if err != nil {
		return "", fmt.Errorf("reading the text: %w", err)
	}
	if len(text) > maxText {
		return "", errors.New("the text is too long")
	}
	if n := len(text); n > 0 && text[n-1] == '\n' {
		text = text[:n-1]
	}
	if len(text) == 0 {
		return "", errors.New("there is no text to send")
	}
	return string(text), nil
}
