package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/crypto/bcrypt"
)

// The accounts of the embedded server. Nothing but the server itself uses the system
// account; the log, the buckets and all internal messages live in AccountIM.
const (
	AccountIM  = "IM"
	AccountSys = "SYS"
)

// DefaultMaxPayload is the largest NATS message in bytes unless Options say otherwise.
const DefaultMaxPayload = 1 << 20

// Options configure a Node. DataDir and Domain are required.
type Options struct {
	// DataDir is the directory that everything is kept in. It is created when it does
	// not exist, and locked against other processes.
	DataDir string
	// Domain is our IM domain; JetStreamDomain makes the JetStream domain of it.
	Domain string
	// NodeName is unique in the cluster. Empty takes the name of the domain.
	NodeName string
	// SyncAlways lets the server sync every write before it acknowledges it. A single
	// node does not need it: there msglog syncs whole groups.
	SyncAlways bool
	// MaxPayload limits one NATS message in bytes; 0 means DefaultMaxPayload. It must
	// leave room for the envelope around the largest IM message.
	MaxPayload int
	// ClusterName, ClusterListen and Routes join several nodes. ClusterListen is
	// host:port; all three are empty on a single node.
	ClusterName   string
	ClusterListen string
	Routes        []string
	// Logger receives the server's log; nil discards it.
	Logger *slog.Logger
}

// JetStreamDomain is the name of the JetStream domain of an IM domain. JetStream allows no
// dots in it; DNS names have no underscores, so that no two domains meet in one name.
func JetStreamDomain(domain string) string { return strings.ReplaceAll(domain, ".", "_") }

// check reports what makes the options unusable.
func (o *Options) check() error {
	switch {
	case o.DataDir == "":
		return errors.New("cluster: no data directory")
	case o.Domain == "":
		return errors.New("cluster: no domain")
	case (o.ClusterListen == "") != (o.ClusterName == ""):
		return errors.New("cluster: a cluster needs a name and an address to listen on")
	case len(o.Routes) > 0 && o.ClusterListen == "":
		return errors.New("cluster: routes without an address to listen on")
	}
	return nil
}

// accountsConfig makes the accounts. They go through the server's configuration parser,
// because only that marks JetStream of an account as configured, so that it outlives a
// later reload of the options.
const accountsConfig = `
accounts {
  %[1]s { jetstream: enabled, users: [ { user: %[1]q, password: %[3]q } ] }
  %[2]s { users: [ { user: %[2]q, password: %[3]q } ] }
}
system_account: %[2]s
`

// serverOptions translates o. secret is the password of the in-process connections.
func (o *Options) serverOptions(secret string) (*server.Options, error) {
	// The least cost is enough for a random secret that never leaves the process.
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		return nil, fmt.Errorf("cluster: accounts: %w", err)
	}
	so := &server.Options{}
	if err := so.ProcessConfigString(fmt.Sprintf(accountsConfig, AccountIM, AccountSys, hash)); err != nil {
		return nil, fmt.Errorf("cluster: accounts: %w", err)
	}
	so.ServerName = o.NodeName
	if so.ServerName == "" {
		so.ServerName = o.Domain
	}
	so.DontListen = true
	so.NoSigs = true
	so.NoLog = true
	so.DisableJetStreamBanner = true
	so.MaxPayload = int32(o.MaxPayload)
	if so.MaxPayload == 0 {
		so.MaxPayload = DefaultMaxPayload
	}
	so.JetStream = true
	so.JetStreamDomain = JetStreamDomain(o.Domain)
	so.StoreDir = o.DataDir
	so.SyncAlways = o.SyncAlways
	// The server would otherwise reserve three quarters of what happens to be free at its
	// start and refuse writes beyond, for good. The free space is guarded by msglog, which
	// can tell a full disk from a limit and resumes when there is room again.
	so.JetStreamMaxStore = 1 << 60
	so.JetStreamMaxMemory = 1 << 40
	so.WriteDeadline = 30 * time.Second
	if o.ClusterListen != "" {
		so.Cluster.Name = o.ClusterName
		so.Cluster.ListenStr = o.ClusterListen
		for _, r := range o.Routes {
			u, err := url.Parse(r)
			if err != nil {
				return nil, fmt.Errorf("cluster: route %q: %w", r, err)
			}
			so.Routes = append(so.Routes, u)
		}
	}
	return so, nil
}
