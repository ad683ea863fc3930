package mqttgw_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// forAnHour is a will with a delay that no test waits for.
func forAnHour(id string, padding int) func(*packet.Connect) {
	return func(p *packet.Connect) {
		withWill(0)(p)
		p.Props.SetUint(packet.SessionExpiry, 7200)
		p.WillProps.SetUint(packet.WillDelay, 3600)
		p.WillPayload = []byte(`{"id":"` + id + `","type":"chat","content":{"type":"text","data":"` + strings.Repeat("x", padding) + `"}}`)
	}
}

// A login that is revoked during the delay of its will speaks no more.
func TestDelayedWillOfARevokedLogin(t *testing.T) {
	var revoked atomic.Value
	asked := make(chan string, 10)
	s := newStack(t, func(o *setup) {
		o.gateway.Revoked = func(ticket string) bool {
			asked <- ticket
			return revoked.Load() == ticket
		}
	})
	bob, carol := s.connect(packet.V5, "bob", "b1"), s.connect(packet.V5, "carol", "c1")
	bob.subscribe("$IM/user/bob")
	d := s.connect(packet.V5, "alice", "a1", withWill(1))
	revoked.Store("t-a1")
	require.NoError(t, d.nc.Close())
	require.Equal(t, "t-a1", <-asked)
	mark(s, carol, "no-will")
	require.Contains(t, string(bob.take().Payload), "no-will")

	d = s.connect(packet.V5, "alice", "a2", withWill(1))
	require.NoError(t, d.nc.Close())
	require.Equal(t, "t-a2", <-asked)
	require.Contains(t, string(bob.take().Payload), `"id":"will"`)
}

// Wills that would take too much memory, of one user or of all, are sent and not held.
func TestDelayedWillsAreBounded(t *testing.T) {
	s := newStack(t, func(o *setup) {
		o.gateway.Limits.Wills = 10_000
		o.gateway.Limits.WillsPerPrincipal = 6000
	})
	bob := s.connect(packet.V5, "bob", "b1")
	bob.subscribe("$IM/user/bob")
	gone := func(owner, client, id string, padding int) {
		before := s.gw.Stats().Connections
		d := s.connect(packet.V5, owner, client, forAnHour(id, padding))
		require.NoError(t, d.nc.Close())
		require.Eventually(t, func() bool { return s.gw.Stats().Connections == before }, patience, time.Millisecond)
	}
	gone("alice", "a1", "held-1", 4000)
	gone("alice", "a2", "over-for-alice", 4000)
	require.Contains(t, string(bob.take().Payload), "over-for-alice")
	gone("carol", "c1", "held-2", 4000)
	gone("bob", "b2", "over-for-all", 2000)
	require.Contains(t, string(bob.take().Payload), "over-for-all")

	// What is held no more counts no more.
	before := s.gw.Stats().Connections
	back := s.connect(packet.V5, "alice", "a1")
	require.NoError(t, back.nc.Close())
	require.Eventually(t, func() bool { return s.gw.Stats().Connections == before }, patience, time.Millisecond)
	gone("alice", "a2", "held-3", 4000)
	bob.silent()
}
