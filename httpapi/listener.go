package httpapi

import (
	"net"
	"net/netip"
	"sync"
)

// ConnLimits bounds the connections to a listener; 0 is no limit.
type ConnLimits struct {
	Total int
	// PerAddress holds for each remote IPv4 address or IPv6 /64, but not for loopback.
	PerAddress int
	Exempt     []netip.Prefix // have no limit of their own: reverse proxies, for example
}

// LimitListener closes connections over the limits as soon as they are accepted, before
// anything is spent on them. A connection counts until it is closed, also when a handler has
// taken it over. The listener is as safe for concurrent use as l.
func LimitListener(l net.Listener, limits ConnLimits) net.Listener {
	return &limitListener{Listener: l, limits: limits, byAddress: make(map[netip.Addr]int)}
}

type limitListener struct {
	net.Listener
	limits ConnLimits

	mu        sync.Mutex
	total     int
	byAddress map[netip.Addr]int
}

// Accept implements net.Listener.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		counted := &countedConn{Conn: c, listener: l, from: l.countedAs(c.RemoteAddr())}
		if l.take(counted.from) {
			return counted, nil
		}
		_ = c.Close() // nobody is to hear of its failure
	}
}

// countedAs is the address that a peer counts for; the zero Addr for none.
func (l *limitListener) countedAs(peer net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(peer.String())
	if err != nil {
		return netip.Addr{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.IsLoopback() {
		return netip.Addr{}
	}
	for _, p := range l.limits.Exempt {
		if p.Contains(addr) {
			return netip.Addr{}
		}
	}
	if addr.Is6() {
		if network, err := addr.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return addr
}

func (l *limitListener) take(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limits.Total > 0 && l.total >= l.limits.Total {
		return false
	}
	if from.IsValid() {
		if l.limits.PerAddress > 0 && l.byAddress[from] >= l.limits.PerAddress {
			return false
		}
		l.byAddress[from]++
	}
	l.total++
	return true
}

func (l *limitListener) release(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if !from.IsValid() {
		return
	}
	if l.byAddress[from]--; l.byAddress[from] == 0 {
		delete(l.byAddress, from)
	}
}

// countedConn is a connection that counts until it is closed.
type countedConn struct {
	net.Conn
	listener *limitListener
	from     netip.Addr
	once     sync.Once
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.listener.release(c.from) })
	return err
}

// CloseWrite ends one direction, as the HTTP server does to let a client read an answer
// whose request was not read to its end.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
