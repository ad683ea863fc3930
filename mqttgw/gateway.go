package mqttgw

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/slimchat/slimchat/im"
)

// Gateway serves devices. Make one with New, give it listeners with Serve and ServeTLS
// and mount Handler, and end it with Shutdown.
type Gateway struct {
	opt        Options
	ctx        context.Context // ends when Shutdown is through or gives up
	cancel     context.CancelFunc
	epoch      time.Time
	handshakes chan struct{} // holds a token for each CONNECT being authenticated
	wg         sync.WaitGroup
	stats      counters
	pendings   sync.Pool // of *pending

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	excess    int // of conns: those over the limit
	byOwner   map[im.Address][]*conn
	byAddr    map[netip.Addr]int
	wills     heldWills
}

// ErrClosed is returned by Serve and ServeTLS once Shutdown was called.
var ErrClosed = errors.New("mqttgw: closed")

// New makes a Gateway, which does nothing until it has listeners.
func New(o Options) (*Gateway, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gateway{
		opt: o, ctx: ctx, cancel: cancel, epoch: time.Now(),
		handshakes: make(chan struct{}, o.Limits.Handshakes),
		listeners:  make(map[net.Listener]struct{}),
		conns:      make(map[*conn]struct{}),
		byOwner:    make(map[im.Address][]*conn),
		byAddr:     make(map[netip.Addr]int),
	}
	g.wills = newHeldWills(&g.opt.Limits)
	g.pendings.New = newPending
	return g, nil
}

// now is a cheap monotonic clock.
func (g *Gateway) now() time.Duration { return time.Since(g.epoch) }

// Serve accepts MQTT over TCP on l until Shutdown, which closes l. It returns ErrClosed
// then, and the listener's error if that fails for good.
func (g *Gateway) Serve(l net.Listener) error { return g.serve(l, nil) }

// ServeTLS is Serve for MQTT over TLS.
func (g *Gateway) ServeTLS(l net.Listener, config *tls.Config) error { return g.serve(l, config) }

func (g *Gateway) serve(l net.Listener, config *tls.Config) error {
	if !g.addListener(l) {
		return errors.Join(ErrClosed, l.Close())
	}
	defer g.wg.Done()
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			g.accept(nc, config)
			continue
		}
		if g.isClosing() {
			return ErrClosed
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("mqttgw: accept: %w", err)
		}
		// Out of file descriptors, or the peer was gone already: it passes.
		pause = min(max(5*time.Millisecond, 2*pause), time.Second)
		g.opt.Log.Warn("cannot accept a connection", "error", err, "pause", pause)
		select {
		case <-time.After(pause):
		case <-g.ctx.Done():
		}
	}
}

func (g *Gateway) addListener(l net.Listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return false
	}
	g.listeners[l] = struct{}{}
	g.wg.Add(1)
	return true
}

func (g *Gateway) accept(nc net.Conn, config *tls.Config) {
	remote := addrOf(nc.RemoteAddr().String())
	var t transport
	if config != nil {
		t = bufferedTransport(tls.Server(nc, config))
	} else {
		t = netTransport(nc)
	}
	g.start(t, remote)
}

// start takes charge of a fresh connection.
func (g *Gateway) start(t transport, remote netip.Addr) {
	g.stats.accepted.Add(1)
	c := &conn{g: g, t: t, remote: countedAs(remote), accepted: g.now()}
	c.mu.Lock()
	c.timer = time.AfterFunc(g.opt.Timeouts.Connect, c.onTimer)
	c.mu.Unlock()
	if !g.admit(c) {
		g.stats.overLimit.Add(1)
		c.timer.Stop()
		_ = t.Close()
		return
	}
	go c.open()
}

// Shutdown stops accepting, tells every device that the server is going (0x8B in 5.0),
// and waits until all connections have ended. When ctx ends first, it cuts what is left
// and returns ctx's error. Wills are not sent.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	g.closing = true
	for l := range g.listeners {
		_ = l.Close()
	}
	g.wills.dropAll()
	conns := make([]*conn, 0, len(g.conns))
	for c := range g.conns {
		conns = append(conns, c)
	}
	g.mu.Unlock()
	for _, c := range conns {
		c.end(endShutdown, "the server is shutting down")
	}
	done := make(chan struct{})
	go func() {
		g.wg.Wait()
		close(done)
	}()
	defer g.cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	g.cancel()
	for _, c := range conns {
		_ = c.t.Close()
	}
	<-done
	return fmt.Errorf("mqttgw: shutdown: %w", ctx.Err())
}

func (g *Gateway) isClosing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closing
}
