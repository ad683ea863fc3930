package mqttgw

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRemoteAddr(t *testing.T) {
	for hostport, want := range map[string]string{
		"192.0.2.1:5":           "192.0.2.1",
		"[::ffff:192.0.2.1]:5":  "192.0.2.1",
		"[2001:db8:1:2:3::4]:5": "2001:db8:1:2::",
		"[::1]:5":               "::1",
	} {
		require.Equal(t, netip.MustParseAddr(want), countedAs(addrOf(hostport)), hostport)
	}
	require.False(t, countedAs(addrOf("@")).IsValid())
}

func TestConnectionsOfOneAddressAreBounded(t *testing.T) {
	g := &Gateway{conns: map[*conn]struct{}{}, byAddr: map[netip.Addr]int{}}
	g.opt.Limits = Limits{Connections: 100, PerAddress: 3, Handshakes: 2}
	from := func(hostport string) *conn { return &conn{g: g, remote: countedAs(addrOf(hostport))} }
	first := from("192.0.2.1:1")
	require.True(t, g.admit(first))
	require.True(t, g.admit(from("192.0.2.1:2")))
	require.True(t, g.admit(from("192.0.2.1:3")))
	require.False(t, g.admit(from("192.0.2.1:4")))
	require.True(t, g.admit(from("192.0.2.2:1")))
	g.leave(first)
	require.True(t, g.admit(from("192.0.2.1:5")))
	for range 10 {
		require.True(t, g.admit(from("127.0.0.1:1")), "loopback is not bounded")
	}
}
