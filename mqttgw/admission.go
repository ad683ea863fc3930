package mqttgw

import (
	"net/netip"
	"slices"

	"github.com/slimchat/slimchat/im"
)

// addrOf takes the address out of "host:port"; the zero Addr when there is none.
func addrOf(hostport string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

// countedAs is what an address is counted as: of IPv6 the network, for one device may have
// all addresses of its /64.
func countedAs(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() && !addr.IsLoopback() {
		if network, err := addr.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return addr
}

// admit registers c. Connections somewhat over the limit are let in to be refused with a
// reason; beyond that they are not worth a goroutine.
func (g *Gateway) admit(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	full := len(g.conns)-g.excess >= g.opt.Limits.Connections
	if g.closing || full && g.excess >= g.opt.Limits.Handshakes {
		return false
	}
	if c.remote.IsValid() && !c.remote.IsLoopback() {
		if g.byAddr[c.remote] >= g.opt.Limits.PerAddress {
			return false
		}
		g.byAddr[c.remote]++
	}
	if c.excess = full; full {
		g.excess++
	}
	g.conns[c] = struct{}{}
	g.stats.connections.Add(1)
	g.wg.Add(1)
	return true
}

// claim counts c among its principal's connections; false when those are too many. A
// connection that c is about to take the session from does not count, nor one that ends.
func (g *Gateway) claim(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	have := g.byOwner[c.principal.Address]
	others := 0
	for _, o := range have {
		if o.principal.Client != c.principal.Client && !o.stopped.Load() {
			others++
		}
	}
	if others >= g.opt.Limits.PerPrincipal {
		return false
	}
	g.byOwner[c.principal.Address] = append(have, c)
	c.claimed = true
	return true
}

// leave takes c out of the registry.
func (g *Gateway) leave(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
	if c.excess {
		g.excess--
	}
	g.stats.connections.Add(-1)
	if c.remote.IsValid() && !c.remote.IsLoopback() {
		if g.byAddr[c.remote]--; g.byAddr[c.remote] <= 0 {
			delete(g.byAddr, c.remote)
		}
	}
	if !c.claimed {
		return
	}
	owner := c.principal.Address
	rest := slices.DeleteFunc(g.byOwner[owner], func(o *conn) bool { return o == c })
	if len(rest) == 0 {
		delete(g.byOwner, owner)
	} else {
		g.byOwner[owner] = rest
	}
}

// connectedAgain tells whether a later connection than c has the client's session here.
func (g *Gateway) connectedAgain(key im.SessionKey, c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range g.byOwner[key.Owner] {
		if o != c && o.principal.Client == key.Client {
			return true
		}
	}
	return false
}
