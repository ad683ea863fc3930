package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/slimchat/slimchat/cmd/slimchat/config"
)

// configFlags gives a verb one flag for every setting.
func configFlags(cmd *cobra.Command) {
	config.AddFlags(cmd.Flags())
	cmd.Flags().SortFlags = false
}

// hideFlags keeps the settings out of a verb's help, except those named.
func hideFlags(cmd *cobra.Command, except ...string) {
	shown := map[string]bool{}
	for _, name := range except {
		shown[name] = true
	}
	settings := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	config.AddFlags(settings)
	settings.VisitAll(func(f *pflag.Flag) {
		if own := cmd.Flags().Lookup(f.Name); own != nil {
			own.Hidden = !shown[f.Name]
		}
	})
}

// loadConfig loads the configuration that a verb with configFlags was started with.
func loadConfig(cmd *cobra.Command) (*config.Config, error) {
	return config.Load(config.SourcesOf(cmd.Flags()))
}

func newConfig() *cobra.Command {
	check := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and name everything that is wrong with it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := loadConfig(cmd); err != nil {
				return err
			}
			say(cmd.OutOrStdout(), "The configuration is good.")
			return nil
		},
	}
	configFlags(check)
	defaults := &cobra.Command{
		Use:   "default",
		Short: "Print the default configuration as a file with every setting explained",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return config.WriteDefault(cmd.OutOrStdout()) },
	}
	docs := &cobra.Command{
		Use:    "docs",
		Short:  "Print the table of settings for docs/configuration.md",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE:   func(cmd *cobra.Command, _ []string) error { return config.WriteMarkdown(cmd.OutOrStdout()) },
	}
	return group("config", "Check the configuration, or print the default one", check, defaults, docs)
}
