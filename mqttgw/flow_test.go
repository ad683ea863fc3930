package mqttgw_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

var bothVersions = []packet.Version{packet.V311, packet.V5}

func eachVersion(t *testing.T, f func(t *testing.T, v packet.Version)) {
	for _, v := range bothVersions {
		t.Run(v.String(), func(t *testing.T) { f(t, v) })
	}
}

func TestOneToOne(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s := newStack(t, nil)
		alice, bob := s.connect(v, "alice", "a1"), s.connect(v, "bob", "b1")
		require.Equal(t, []byte{1}, bob.subscribe("$IM/#"))
		for qos := range uint8(3) {
			id := fmt.Sprintf("m%d", qos)
			alice.publish(qos, 10+uint16(qos), "$IM/user/bob", chat(id))
			switch qos {
			case 1:
				alice.ack(packet.PUBACK, 11)
			case 2:
				alice.ack(packet.PUBREC, 12)
				alice.write(packet.AppendAck(nil, v, &packet.Ack{Type: packet.PUBREL, PacketID: 12}))
				alice.ack(packet.PUBCOMP, 12)
			}
			got := bob.take()
			require.Equal(t, "$IM/user/bob", string(got.Topic))
			require.EqualValues(t, 1, got.QoS)
			require.False(t, got.Dup || got.Retain)
			var m map[string]any
			require.NoError(t, json.Unmarshal(got.Payload, &m))
			require.Equal(t, id, m["id"])
			require.Equal(t, "user/alice", m["from"])
			require.Equal(t, "user/bob", m["to"])
			if v == packet.V5 {
				require.Len(t, got.Props.User, 1)
				require.Equal(t, "seq", string(got.Props.User[0].Key))
			}
		}
		bob.silent()
		alice.silent()
	})
}

func TestOfflineDelivery(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s := newStack(t, nil)
		keep := func(p *packet.Connect) {
			p.CleanStart = false
			if v == packet.V5 {
				p.Props.SetUint(packet.SessionExpiry, 3600)
			}
		}
		bob := s.connect(v, "bob", "b1", keep)
		bob.subscribe("$IM/user/bob")
		bob.write(packet.AppendDisconnect(nil, v, &packet.Disconnect{}))
		bob.closed()

		alice := s.connect(v, "alice", "a1")
		for i := range uint16(50) {
			alice.publish(1, i+1, "$IM/user/bob", chat(fmt.Sprint(i)))
		}
		for i := range uint16(50) {
			alice.ack(packet.PUBACK, i+1) // in the order of the publishes
		}
		bob = s.dial(v)
		hi := hello(v, "bob", "b1")
		keep(hi)
		require.True(t, bob.hello(hi).SessionPresent)
		for i := range 50 {
			var m struct{ ID string }
			require.NoError(t, json.Unmarshal(bob.take().Payload, &m))
			require.Equal(t, fmt.Sprint(i), m.ID)
		}
		bob.silent()
	})
}
