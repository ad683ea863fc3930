package mqttgw_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

func withWill(delay uint32) func(*packet.Connect) {
	return func(p *packet.Connect) {
		p.Will, p.WillQoS, p.WillTopic, p.WillPayload = true, 1, []byte("$IM/user/bob"), chat("will")
		if p.Version == packet.V5 {
			p.Props.SetUint(packet.SessionExpiry, 60)
			if delay > 0 {
				p.WillProps.SetUint(packet.WillDelay, delay)
			}
		}
	}
}

// mark publishes a message by carol: what bob gets before it was published before.
func mark(s *stack, carol *device, id string) {
	carol.publish(1, 9, "$IM/user/bob", chat(id))
	carol.ack(packet.PUBACK, 9)
}

func TestWill(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s := newStack(t, nil)
		bob, carol := s.connect(v, "bob", "b1"), s.connect(v, "carol", "c1")
		bob.subscribe("$IM/user/bob")

		d := s.connect(v, "alice", "a1", withWill(0))
		d.write(packet.AppendDisconnect(nil, v, &packet.Disconnect{}))
		d.closed()
		mark(s, carol, "after-disconnect")
		require.Contains(t, string(bob.take().Payload), "after-disconnect")

		d = s.connect(v, "alice", "a1", withWill(0))
		require.NoError(t, d.nc.Close())
		got := string(bob.take().Payload)
		require.Contains(t, got, `"id":"will"`)
		require.Contains(t, got, `"from":"user/alice"`)

		if v == packet.V5 {
			d = s.connect(v, "alice", "a1", withWill(0), func(p *packet.Connect) { p.WillPayload = chat("will-4") })
			d.write(packet.AppendDisconnect(nil, v, &packet.Disconnect{Reason: packet.DisconnectWithWill}))
			require.Contains(t, string(bob.take().Payload), "will-4")
		}
		d = s.connect(v, "alice", "a1", withWill(0), func(p *packet.Connect) { p.WillPayload = chat("will-bad") })
		d.write([]byte{0, 0})
		require.Contains(t, string(bob.take().Payload), "will-bad")
	})
}

func TestWillDelay(t *testing.T) {
	s := newStack(t, nil)
	bob, carol := s.connect(packet.V5, "bob", "b1"), s.connect(packet.V5, "carol", "c1")
	bob.subscribe("$IM/user/bob")

	d := s.connect(packet.V5, "alice", "a1", withWill(2))
	require.NoError(t, d.nc.Close())
	mark(s, carol, "before")
	require.Contains(t, string(bob.take().Payload), "before")
	require.Contains(t, string(bob.take().Payload), `"id":"will"`)

	// The device comes back in time.
	d = s.connect(packet.V5, "alice", "a1", withWill(2), func(p *packet.Connect) { p.WillPayload = chat("never") })
	require.NoError(t, d.nc.Close())
	require.Eventually(t, func() bool { return s.gw.Stats().Sessions == 2 }, patience, time.Millisecond)
	begin := time.Now()
	back := s.connect(packet.V5, "alice", "a1")
	require.Eventually(t, func() bool { return time.Since(begin) > 2300*time.Millisecond }, patience, 10*time.Millisecond)
	mark(s, carol, "no-will")
	require.Contains(t, string(bob.take().Payload), "no-will")
	back.silent()
}

func TestRevocation(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s := newStack(t, nil)
		bob, carol := s.connect(v, "bob", "b1"), s.connect(v, "carol", "c1")
		bob.subscribe("$IM/user/bob")
		d := s.connect(v, "alice", "a1", withWill(0))
		require.True(t, s.engine.Kick(im.SessionKey{Owner: im.User("alice"), Client: "a1"}, "", delivery.CloseRevoked))
		if reason := d.closed(); v == packet.V5 {
			require.Equal(t, packet.NotAuthorized, reason)
		}
		mark(s, carol, "no-will")
		require.Contains(t, string(bob.take().Payload), "no-will")
	})
}

func TestShutdown(t *testing.T) {
	s := newStack(t, nil)
	five := s.connect(packet.V5, "alice", "a1", withWill(0))
	old := s.connect(packet.V311, "bob", "b1")
	waiting := s.dial(packet.V311)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.gw.Shutdown(ctx) }()
	require.Equal(t, packet.ServerShuttingDown, five.closed())
	old.closed()
	waiting.closed()
	require.NoError(t, <-done)
	_, err := net.Dial("tcp", s.addr)
	require.Error(t, err)
	st := s.gw.Stats()
	require.Zero(t, st.Connections)
	require.Zero(t, st.Sessions)
	require.Zero(t, st.Publishes, "no will is sent")
}

// A device that never reads nor closes is gone after the linger.
func TestDeafDeviceDoesNotHoldUpShutdown(t *testing.T) {
	s := newStack(t, nil)
	s.connect(packet.V5, "alice", "a1")
	begin := time.Now()
	require.NoError(t, s.gw.Shutdown(t.Context()))
	require.Less(t, time.Since(begin), 3*time.Second)
}

// A device that asks without reading the answers is not read from any more, and is cut
// when it takes nothing for the write timeout.
func TestDeafAsker(t *testing.T) {
	s := newStack(t, func(o *setup) {
		o.gateway.Limits.Output = 4 << 10
		o.gateway.Timeouts.Write = 500 * time.Millisecond
	})
	d := s.connect(packet.V311, "alice", "a1")
	pings := make([]byte, 0, 64<<10)
	for len(pings) < 64<<10 {
		pings = packet.AppendPingreq(pings)
	}
	require.NoError(t, d.nc.SetWriteDeadline(time.Now().Add(30*time.Second)))
	for { // until both socket buffers are full and the connection is cut
		if _, err := d.nc.Write(pings); err != nil {
			break
		}
	}
	require.Eventually(t, func() bool { return s.gw.Stats().Connections == 0 }, patience, 10*time.Millisecond)
	require.EqualValues(t, 1, s.gw.Stats().WriteErrors)
	require.NotZero(t, s.gw.Stats().Blocked)
}
