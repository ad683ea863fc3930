package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/slimchat/slimchat/cmd/slimchat/config"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
)

// operator adds the settings that say which database an operator's verb works on.
func operator(cmd *cobra.Command) *cobra.Command {
	configFlags(cmd)
	hideFlags(cmd, config.FileFlag, "data", "database", "domain")
	return cmd
}

// withAccounts opens the accounts database of the configuration for an operator's verb. A server may be running on it.
func withAccounts(cmd *cobra.Command, do func(ctx context.Context, accounts *account.Service, cfg *config.Config) error) (err error) {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	store, err := models.Open(ctx, cfg.Database)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	authority, err := token.New(ctx, token.Options{Domain: cfg.Domain, Keys: store, Log: log})
	if err != nil {
		return fmt.Errorf("signing keys: %w", err)
	}
	defer authority.Close()
	return plain(do(ctx, account.New(account.Options{
		Store: store, Tokens: authority, Log: log, TTL: cfg.Token.TTL.Std(), ClientsPerUser: cfg.Limits.ClientsPerUser,
		Node: cfg.Node.Name,
	}), cfg))
}

// plain says a refusal in words, without the code that is for programs.
func plain(err error) error {
	var refusal *im.Error
	if !errors.As(err, &refusal) || refusal.Code == im.CodeInternal {
		return err
	}
	if refusal.Field != "" {
		return fmt.Errorf("%s %s", refusal.Field, refusal.Message)
	}
	return errors.New(refusal.Message)
}
