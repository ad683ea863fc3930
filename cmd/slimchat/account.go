package main

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/cmd/slimchat/config"
	"github.com/slimchat/slimchat/im"
)

// defaultServer is where the client verbs look for a server.
const defaultServer = "http://localhost:8080"

// remote is what the verbs that talk to a running server have in common: whom to speak as, and where.
type remote struct {
	server, user, client string
}

func (r *remote) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&r.server, "server", "s", defaultServer, "the server's REST address")
	flags.StringVarP(&r.user, "user", "u", "", "the user to speak as (required)")
	flags.StringVar(&r.client, "client", r.client, "identifier of this client")
	passwordFlag(cmd)
	if err := cmd.MarkFlagRequired("user"); err != nil {
		panic(err) // the flag was added just above
	}
}

// login logs the user in with a password and returns the REST client that speaks for it.
func (r *remote) login(ctx context.Context, cmd *cobra.Command) (*client.REST, *client.Login, error) {
	password, err := readPassword(cmd, "password of "+harmless(r.user)+": ", false)
	if err != nil {
		return nil, nil, err
	}
	rest, err := client.NewREST(r.server, 2)
	if err != nil {
		return nil, nil, err
	}
	login, err := rest.Login(ctx, r.user, password, client.Device{Type: "terminal", App: "slimchat-cli", Dev: hostName(), ID: r.client})
	if err != nil {
		return nil, nil, err
	}
	return rest.WithToken(login.Token), login, nil
}

// hostName is the machine's name as part of a client identifier.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || im.CheckID(name) != nil {
		return "terminal"
	}
	return name
}

// parsePeer reads an address; a bare name is a user's.
func parsePeer(s string) (im.Address, error) {
	if !strings.Contains(s, "/") {
		s = "user/" + s
	}
	return im.ParseAddress(s)
}

// mqttAddress is where the server that we logged in at takes MQTT: over TLS if we came by TLS and it has that. A host that
// the server does not know to name is the one of its REST address.
func mqttAddress(server string, login *client.Login) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	address, scheme := login.MQTT.TCP, "mqtt://"
	if u.Scheme == "https" && login.MQTT.TLS != "" {
		address, scheme = login.MQTT.TLS, "mqtts://"
	}
	if address == "" {
		return "", errors.New("the server does not say where it takes MQTT; name it with --mqtt")
	}
	if _, rest, found := strings.Cut(address, "://"); found {
		address = rest
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = u.Hostname()
	}
	return scheme + net.JoinHostPort(host, port), nil
}

// environmentToken is the token of the environment, for scripts.
func environmentToken() string { return os.Getenv(config.EnvPrefix + "TOKEN") }
