package e2e

import (
	"context"
	"net"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/stretchr/testify/require"
)

// paho5 is the Eclipse Paho client for 5.0.
type paho5 struct {
	*arrivals
	client *paho.Client
	conn   net.Conn
	ack    *paho.Connack
}

func connectPaho5(s *server, how dialing) (device, connack) {
	s.t.Helper()
	return dialPaho5(s, how, nil)
}

// dialPaho5 lets a test change the CONNECT before it is sent.
func dialPaho5(s *server, how dialing, change func(*paho.Connect)) (device, connack) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr.MQTT)
	require.NoError(s.t, err)
	d := &paho5{arrivals: newArrivals(s.t, how.login), conn: conn}
	d.client = paho.NewClient(paho.ClientConfig{
		ClientID: how.Client, Conn: packets.NewThreadSafeConn(conn), PacketTimeout: patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			d.add(ofPaho5(r.Packet))
			return true, nil
		}},
		OnServerDisconnect: func(p *paho.Disconnect) {
			reason := ""
			if p.Properties != nil {
				reason = p.Properties.ReasonString
			}
			d.disconnected(p.ReasonCode, reason)
			d.end()
		},
		OnClientError: func(error) { d.end() },
	})
	cp := &paho.Connect{
		ClientID: how.Client, CleanStart: how.Clean, KeepAlive: keepAlive(how),
		UsernameFlag: true, Username: how.User, PasswordFlag: true, Password: []byte(how.Token),
		Properties: &paho.ConnectProperties{SessionExpiryInterval: paho.Uint32(how.Expiry), RequestProblemInfo: true},
	}
	if w := how.Will; w != nil {
		cp.WillMessage = &paho.WillMessage{Topic: w.Topic, Payload: []byte(w.Payload), QoS: w.QoS}
		cp.WillProperties = &paho.WillProperties{}
	}
	if change != nil {
		change(cp)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := d.client.Connect(ctx, cp)
	require.NotNil(s.t, ack, "no CONNACK: %v", err)
	d.ack = ack
	out := connack{Code: ack.ReasonCode, Present: ack.SessionPresent}
	if ack.Properties != nil {
		out.Assigned, out.Reason = ack.Properties.AssignedClientID, ack.Properties.ReasonString
	}
	if out.Code != 0 {
		conn.Close()
		return nil, out
	}
	require.NoError(s.t, err)
	return d, out
}

func ofPaho5(p *paho.Publish) delivered {
	out := delivered{Topic: p.Topic, QoS: p.QoS, Dup: p.Duplicate(), Body: string(p.Payload)}
	if p.Properties != nil {
		for _, u := range p.Properties.User {
			out.User = append(out.User, [2]string{u.Key, u.Value})
		}
	}
	return out
}

func (d *paho5) subscribe(filter string) byte {
	d.t.Helper()
	ack, err := d.client.Subscribe(context.Background(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}})
	require.NotNil(d.t, ack, "no SUBACK: %v", err)
	require.Len(d.t, ack.Reasons, 1)
	return ack.Reasons[0]
}

func (d *paho5) publish(qos byte, topic, payload string) outcome {
	d.t.Helper()
	return d.send(&paho.Publish{QoS: qos, Topic: topic, Payload: []byte(payload)})
}

func (d *paho5) send(p *paho.Publish) outcome {
	d.t.Helper()
	answer, err := d.client.Publish(context.Background(), p)
	require.NotNil(d.t, answer, "no acknowledgement: %v", err)
	out := outcome{Code: answer.ReasonCode}
	if answer.Properties != nil {
		out.Reason = answer.Properties.ReasonString
	}
	return out
}

func (d *paho5) disconnect() {
	_ = d.client.Disconnect(&paho.Disconnect{}) // it may be closed already
	d.end()
}

func (d *paho5) drop() {
	d.conn.Close()
	d.end()
}
