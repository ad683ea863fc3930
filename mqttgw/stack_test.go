package mqttgw_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/cluster"
	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw"
	"github.com/slimchat/slimchat/msglog"
	"github.com/slimchat/slimchat/router"
)

const domain = "example.test"

// stack is a gateway over the real router, delivery engine and log.
type stack struct {
	t      testing.TB
	gw     *mqttgw.Gateway
	engine *delivery.Engine
	addr   string // of the TCP listener
	people *people
	auth   *tokens
	served []chan error // what the Serves return
}

// people is the router's directory: the users alice, bob and carol, and the node sensor.
type people struct {
	mu      sync.Mutex
	clients map[string]int
}

func (p *people) Exists(_ context.Context, a im.Address) (bool, error) {
	if a.Kind == im.KindNode {
		return a.ID == "sensor", nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clients[a.ID] > 0 || strings.HasPrefix(a.ID, "user"), nil
}

func (p *people) Clients(_ context.Context, uid string) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(1, p.clients[uid]), nil
}

// tokens takes passwords of the form "owner/client" for tokens.
type tokens struct {
	mu  sync.Mutex
	err error // refuses everybody
}

func (a *tokens) refuse(err error) {
	a.mu.Lock()
	a.err = err
	a.mu.Unlock()
}

func (a *tokens) Authenticate(_ context.Context, _, password, _ string) (im.Principal, time.Time, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return im.Principal{}, time.Time{}, a.err
	}
	owner, client, ok := strings.Cut(password, "/")
	if !ok {
		return im.Principal{}, time.Time{}, errors.Join(errors.New("no such token"), mqttgw.ErrBadToken)
	}
	p := im.Principal{Address: im.User(owner), Client: client, Role: "user", Ticket: "t-" + client}
	if owner == "sensor" {
		p.Address, p.Role = im.Node(owner), "node"
	}
	return p, time.Now().Add(time.Hour), nil
}

// setup changes the options of a stack's parts.
type setup struct {
	gateway mqttgw.Options
	router  router.Options
	engine  delivery.Options
	log     msglog.Options
}

func newStack(t testing.TB, change func(*setup)) *stack {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	s := &stack{t: t, auth: &tokens{}, people: &people{clients: map[string]int{"alice": 1, "bob": 1, "carol": 1}}}
	node, err := cluster.Start(ctx, cluster.Options{DataDir: dir, NodeName: "n1", Domain: domain})
	require.NoError(t, err)
	o := setup{log: msglog.Options{Server: node, DataDir: dir, Durability: msglog.DurabilityProcess}}
	o.gateway = mqttgw.Options{Domain: domain, Node: "n1", Auth: s.auth}
	o.gateway.Timeouts.Linger = 300 * time.Millisecond
	if change != nil {
		change(&o)
	}
	log, err := msglog.Open(ctx, o.log)
	require.NoError(t, err)
	o.engine.Log, o.engine.Domain = log, domain
	s.engine = delivery.New(o.engine)
	require.NoError(t, s.engine.Start(ctx))
	o.router.Domain, o.router.Log, o.router.Directory = domain, log, s.people
	o.router.Window, o.router.Pusher = s.engine.Window(), s.engine
	o.gateway.Sessions = s.engine
	if o.gateway.Router == nil {
		o.gateway.Router = router.New(o.router)
	}
	s.gw, err = mqttgw.New(o.gateway)
	require.NoError(t, err)
	s.addr = s.listen(func(l net.Listener) error { return s.gw.Serve(l) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, s.gw.Shutdown(ctx))
		for _, done := range s.served {
			require.ErrorIs(t, <-done, mqttgw.ErrClosed)
		}
		require.NoError(t, s.engine.Stop(ctx))
		require.NoError(t, log.Close(ctx))
		require.NoError(t, node.Stop(ctx))
	})
	return s
}

// listen runs serve on a new listener and returns its address.
func (s *stack) listen(serve func(net.Listener) error) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s.t, err)
	done := make(chan error, 1)
	go func() { done <- serve(l) }()
	s.served = append(s.served, done)
	return l.Addr().String()
}
