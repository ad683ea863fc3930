package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/slimchat/slimchat/cmd/slimchat/config"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/models"
)

func newUser() *cobra.Command {
	return group("user", "Manage accounts, whether the server runs or not", newUserAdd(), newUserPasswd(), newUserDel(), newUserList())
}

func newUserAdd() *cobra.Command {
	var nick string
	var admin bool
	cmd := operator(&cobra.Command{
		Use:   "add NAME",
		Short: "Add an account; the password is asked for, or read from standard input",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(cmd, "password: ", true)
			if err != nil {
				return err
			}
			return withAccounts(cmd, func(ctx context.Context, accounts *account.Service, _ *config.Config) error {
				role := models.RoleUser
				if admin {
					role = models.RoleAdmin
				}
				u, err := accounts.CreateUser(ctx, account.NewUser{Name: args[0], Password: password, Nick: nick, Role: role})
				if err != nil {
					return err
				}
				say(cmd.OutOrStdout(), "added %s", harmless(u.UID))
				return nil
			})
		},
	})
	passwordFlag(cmd)
	cmd.Flags().StringVar(&nick, "nick", "", "name to show; the name by default")
	cmd.Flags().BoolVar(&admin, "admin", false, "may administer the domain")
	return cmd
}

func newUserPasswd() *cobra.Command {
	cmd := operator(&cobra.Command{
		Use:   "passwd NAME",
		Short: "Give an account a new password and sign all its clients out",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(cmd, "new password: ", true)
			if err != nil {
				return err
			}
			return withAccounts(cmd, func(ctx context.Context, accounts *account.Service, _ *config.Config) error {
				uid := account.Name(args[0])
				if err := accounts.SetPassword(ctx, uid, password, ""); err != nil {
					return err
				}
				say(cmd.OutOrStdout(), "%s has a new password", harmless(uid))
				return nil
			})
		},
	})
	passwordFlag(cmd)
	return cmd
}

func newUserDel() *cobra.Command {
	var yes bool
	cmd := operator(&cobra.Command{
		Use:   "del NAME",
		Short: "Delete an account for good; its name is not given out again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			uid := account.Name(args[0])
			if err := confirm(cmd, yes, "Delete "+harmless(uid)+" and sign all its clients out?"); err != nil {
				return err
			}
			return withAccounts(cmd, func(ctx context.Context, accounts *account.Service, _ *config.Config) error {
				if err := accounts.DeleteUser(ctx, uid); err != nil {
					return err
				}
				say(cmd.OutOrStdout(), "deleted %s", harmless(uid))
				return nil
			})
		},
	})
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// confirm asks before what cannot be undone. Without a terminal to ask at, --yes is needed.
func confirm(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(os.Stdin) {
		return errors.New("this cannot be undone: say --yes")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

func newUserList() *cobra.Command {
	return operator(&cobra.Command{
		Use:   "list",
		Short: "List the accounts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAccounts(cmd, func(ctx context.Context, accounts *account.Service, _ *config.Config) error {
				table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(table, "NAME\tNICK\tROLE\tSTATE\tSINCE")
				for after := ""; ; {
					users, err := accounts.Users(ctx, after, models.MaxPage)
					if err != nil {
						return err
					}
					for _, u := range users {
						fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", harmless(u.UID), harmless(u.Nick), u.Role, u.State, time.UnixMilli(u.Created).Format(time.DateOnly))
						after = u.UID
					}
					if len(users) < models.MaxPage {
						return table.Flush()
					}
				}
			})
		},
	})
}
