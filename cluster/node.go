package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ErrStopped says that the node has been stopped.
var ErrStopped = errors.New("cluster: node is stopped")

// Node is the embedded NATS server of this process. Its methods may be called from any
// goroutine.
type Node struct {
	opts   Options
	srv    *server.Server
	lock   *dirLock
	secret string
	begun  chan struct{} // closed when the server's Start has returned; nil before

	mu      sync.Mutex
	stopped bool
	conns   []*nats.Conn
	done    chan struct{} // closed when Stop has finished
	stopErr error
}

// Start locks the data directory, starts the server and waits until it has recovered its
// streams and accepts in-process connections, or until ctx ends. A data directory that
// another process uses gives an error that is ErrDataLocked.
func Start(ctx context.Context, opts Options) (*Node, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(opts.DataDir)
	if err != nil {
		return nil, fmt.Errorf("cluster: data directory: %w", err)
	}
	opts.DataDir = dir
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("cluster: data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	n := &Node{opts: opts, lock: lock, secret: rand.Text(), done: make(chan struct{})}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.Stop(context.WithoutCancel(ctx)))
	}
	return n, nil
}

func (n *Node) start(ctx context.Context) error {
	so, err := n.opts.serverOptions(n.secret)
	if err != nil {
		return err
	}
	srv, err := server.NewServer(so)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	log := n.opts.Logger.With("component", "nats")
	srv.SetLoggerV2(serverLog{log}, log.Enabled(ctx, slog.LevelDebug), false, false)
	// Start returns when the streams are recovered, which a large log may take seconds for.
	n.srv, n.begun = srv, make(chan struct{})
	go func() { defer close(n.begun); srv.Start() }()
	select {
	case <-n.begun:
	case <-ctx.Done():
		return fmt.Errorf("cluster: start: %w", ctx.Err())
	}
	return n.Ready(ctx)
}

// Ready waits until the server accepts connections and its JetStream works, or ctx ends.
func (n *Node) Ready(ctx context.Context) error {
	for {
		wait := time.Second
		if until, ok := ctx.Deadline(); ok {
			wait = min(wait, max(time.Until(until), time.Millisecond))
		}
		if n.srv.ReadyForConnections(wait) {
			break
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("cluster: server is not ready: %w", err)
		}
		if !n.srv.Running() {
			return errors.New("cluster: the server ended while it started")
		}
	}
	return n.Healthy()
}

// Healthy tells whether the server runs and its JetStream is usable. It is cheap.
func (n *Node) Healthy() error {
	if !n.srv.Running() {
		return ErrStopped
	}
	if !n.srv.JetStreamEnabled() {
		return errors.New("cluster: JetStream is not enabled")
	}
	return nil
}

// RestartJetStream stops JetStream and starts it again, which recovers the streams from
// their files. A stream that met a write error, for a full disk say, takes nothing until
// then, and its error never goes away by itself. Connections stay; consumers in memory are
// lost. It must not be called while messages are being published.
func (n *Node) RestartJetStream() error {
	cfg := n.srv.JetStreamConfig()
	if cfg == nil {
		return errors.New("cluster: JetStream is not enabled")
	}
	restart := *cfg
	restart.StoreDir = n.opts.DataDir
	if err := n.srv.ShutdownJetStream(); err != nil {
		return fmt.Errorf("cluster: stop JetStream: %w", err)
	}
	if err := n.srv.EnableJetStream(&restart); err != nil {
		return fmt.Errorf("cluster: start JetStream: %w", err)
	}
	return n.Healthy()
}

// InProcessConn returns a pipe to the server. It makes Node a provider for
// nats.InProcessServer.
func (n *Node) InProcessConn() (net.Conn, error) { return n.srv.InProcessConn() }

// Connect opens an in-process connection to AccountIM. It reconnects for ever, buffers
// nothing while it is not connected, and is closed by its user, or at the latest by Stop.
func (n *Node) Connect(name string, opts ...nats.Option) (*nats.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return nil, ErrStopped
	}
	all := []nats.Option{
		nats.Name(name),
		nats.InProcessServer(n),
		nats.UserInfo(AccountIM, n.secret),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(50 * time.Millisecond),
		nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			n.opts.Logger.Warn("internal connection", "name", name, "subject", subject, "error", err)
		}),
	}
	nc, err := nats.Connect("", append(all, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("cluster: connect %s: %w", name, err)
	}
	open := n.conns[:0]
	for _, c := range n.conns {
		if !c.IsClosed() {
			open = append(open, c)
		}
	}
	n.conns = append(open, nc)
	return nc, nil
}

// DataDir is the absolute path of the data directory.
func (n *Node) DataDir() string { return n.opts.DataDir }

// StreamDir is where the server keeps the files of one stream of AccountIM.
func (n *Node) StreamDir(stream string) string {
	return filepath.Join(n.opts.DataDir, "jetstream", AccountIM, "streams", stream)
}

// SyncAlways tells whether the server syncs each write before it acknowledges it.
func (n *Node) SyncAlways() bool { return n.opts.SyncAlways }

// Name is the node's name in the cluster.
func (n *Node) Name() string { return n.srv.Name() }

// ClusterAddr is the address that other nodes connect to, nil on a single node.
func (n *Node) ClusterAddr() net.Addr {
	if n.opts.ClusterListen == "" {
		return nil
	}
	if a := n.srv.ClusterAddr(); a != nil {
		return a
	}
	return nil
}

// Stop closes connections that are still open, shuts the server down, waits for it and
// releases the data directory. When ctx ends first, the shutdown goes on in the
// background and the data directory stays locked until it is complete. Stop may be called
// more than once.
func (n *Node) Stop(ctx context.Context) error {
	n.mu.Lock()
	if !n.stopped {
		n.stopped = true
		conns := n.conns
		n.conns = nil
		go n.shutdown(conns)
	}
	n.mu.Unlock()
	select {
	case <-n.done:
		return n.stopErr
	case <-ctx.Done():
		return fmt.Errorf("cluster: stop: %w", ctx.Err())
	}
}

func (n *Node) shutdown(conns []*nats.Conn) {
	defer close(n.done)
	for _, c := range conns {
		c.Close()
	}
	if n.srv != nil {
		<-n.begun // the server cannot be shut down in the middle of its start
		n.srv.Shutdown()
		n.srv.WaitForShutdown()
	}
	if err := n.lock.release(); err != nil {
		n.stopErr = fmt.Errorf("cluster: release of the data directory: %w", err)
	}
}
