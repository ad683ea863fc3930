package main

import (
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slimchat/slimchat/cmd/slimchat/config"
	"github.com/slimchat/slimchat/cmd/slimchat/server"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: "serve runs the server until SIGINT or SIGTERM, which let it end its work in order; a second signal ends it at once.\n" +
			"Every setting can stand in slimchat.yaml (`slimchat config default` prints one), in the environment (mqtt.listen is\n" +
			"SLIMCHAT_MQTT_LISTEN) or in a flag, each going before the one before it.",
		Example: "  slimchat serve --data /var/lib/slimchat --domain chat.example.org",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			stderr := cmd.ErrOrStderr()
			return server.Run(cmd.Context(), cfg, newLogger(stderr, cfg.Log), func(at server.Addresses) {
				if isTerminal(stderr) {
					banner(stderr, cfg, at)
				}
			})
		},
	}
	configFlags(cmd)
	return cmd
}

// banner tells a newcomer at a terminal where things are and what to try.
func banner(w io.Writer, cfg *config.Config, at server.Addresses) {
	scheme := "http"
	if cfg.HTTP.TLS.Cert != "" {
		scheme = "https"
	}
	web := scheme + "://" + reachable(at.HTTP)
	lines := []string{
		"", "  SlimChat " + version() + " serves " + cfg.Domain, "",
		"  REST  " + web,
		"  MQTT  " + reachable(at.MQTT) + "  and over WebSocket at " + strings.Replace(web, "http", "ws", 1) + "/mqtt",
	}
	if at.MQTTS != "" {
		lines = append(lines, "  MQTT over TLS  "+reachable(at.MQTTS))
	}
	lines = append(lines, "  data  "+cfg.Data, "", "  Next: make an account, in another terminal:", "",
		`    curl -s -X POST `+web+`/register -H 'Content-Type: application/json' -d '{"username":"alice","password":"correct horse"}'`, "",
		"  and go on with the walk-through in README.md. Ctrl-C stops.", "")
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}

// reachable is a listener's address as one on this machine can use it.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
