package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/slimchat/slimchat/cmd/slimchat/config"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/im"
)

// tokenFlags are the flags of token.
type tokenFlags struct {
	client, node string
	register     bool
	ttl          string
}

func newToken() *cobra.Command {
	var f tokenFlags
	cmd := operator(&cobra.Command{
		Use:   "token UID | token --node ID",
		Short: "Log a client in without its password and print the token",
		Long: "token prints a token that the operator hands to a device, a script or a test. It is a login like any other: it is listed among\n" +
			"the user's clients, can be ended there, and replaces an earlier login of the same client. On standard output stands the token\n" +
			"alone; the client identifier and the end go to standard error.",
		Args: cobra.MaximumNArgs(1),
		RunE: f.run,
	})
	cmd.Flags().StringVar(&f.client, "client", "", "identifier of the client (default: one is made up; for a node, its id)")
	cmd.Flags().StringVar(&f.node, "node", "", "for this node instead of a user")
	cmd.Flags().BoolVar(&f.register, "register", false, "with --node: register the node first; its secret goes to standard error")
	cmd.Flags().StringVar(&f.ttl, "ttl", "", "how long the token is valid, such as 12h or 30d (default: token.ttl)")
	return cmd
}

func (f *tokenFlags) run(cmd *cobra.Command, args []string) error {
	if (len(args) == 1) == (f.node != "") {
		return errors.New("name either a user or, with --node, a node")
	}
	if f.register && f.node == "" {
		return errors.New("--register goes with --node")
	}
	var ttl config.Duration
	if f.ttl != "" {
		var err error
		if ttl, err = config.ParseDuration(f.ttl); err != nil {
			return fmt.Errorf("--ttl: %w", err)
		}
	}
	return withAccounts(cmd, func(ctx context.Context, accounts *account.Service, _ *config.Config) error {
		owner := im.Node(f.node)
		if len(args) == 1 {
			owner = im.User(account.Name(args[0]))
		}
		if f.register {
			_, secret, err := accounts.AddNode(ctx, f.node, "")
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "registered %s; its secret, shown this once: %s\n", owner, secret)
		}
		session, err := accounts.Mint(ctx, owner, account.Device{Type: "token", AppID: "slimchat-cli", ClientID: f.client}, ttl.Std())
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s, client %s, until %s\n", owner, harmless(session.Client.ClientID), session.Expires.Format(time.RFC3339))
		say(cmd.OutOrStdout(), "%s", session.Token)
		return nil
	})
}
