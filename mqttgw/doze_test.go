package mqttgw_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// A silent connection dozes, wakes for a packet or for a message, and dozes again.
func TestDozing(t *testing.T) {
	s := newStack(t, func(o *setup) { o.gateway.Timeouts.Doze = 50 * time.Millisecond })
	alice, bob := s.connect(packet.V5, "alice", "a1"), s.connect(packet.V311, "bob", "b1")
	bob.subscribe("$IM/#")
	asleep := func(n int64) {
		t.Helper()
		require.Eventually(t, func() bool { return s.gw.Stats().Dozing == n }, patience, time.Millisecond)
	}
	for i := range uint16(5) {
		asleep(2)
		alice.publish(1, i+1, "$IM/user/bob", chat(fmt.Sprint(i)))
		alice.ack(packet.PUBACK, i+1)
		require.Contains(t, string(bob.take().Payload), fmt.Sprintf(`"id":"%d"`, i))
	}
	asleep(2)
	bob.write([]byte{0xc0}) // half a packet keeps it awake
	asleep(1)
	bob.write([]byte{0})
	bob.frame(packet.PINGRESP)
	asleep(2)
	alice.write(packet.AppendDisconnect(nil, packet.V5, &packet.Disconnect{}))
	require.NoError(t, bob.nc.Close())
	require.Eventually(t, func() bool { return s.gw.Stats().Connections == 0 }, patience, time.Millisecond)
	require.Zero(t, s.gw.Stats().Dozing)

	carol := s.connect(packet.V5, "carol", "c1")
	asleep(1)
	s.connect(packet.V5, "carol", "c1")
	require.Equal(t, packet.SessionTakenOver, carol.closed())
}
