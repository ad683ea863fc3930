package e2e

import (
	"crypto/tls"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"
)

// paho3 is the Eclipse Paho client for 3.1.1.
type paho3 struct {
	*arrivals
	client mqtt.Client
}

func connectPaho3(s *server, how dialing) (device, connack) {
	s.t.Helper()
	d := &paho3{arrivals: newArrivals(s.t, how.login)}
	url := how.URL
	if url == "" {
		url = "tcp://" + s.addr.MQTT
	}
	o := mqtt.NewClientOptions().AddBroker(url).SetProtocolVersion(4).SetTLSConfig(trusting(s)).
		SetClientID(how.Client).SetUsername(how.User).SetPassword(how.Token).SetCleanSession(how.Clean).
		SetKeepAlive(time.Duration(keepAlive(how)) * time.Second).SetConnectTimeout(patience).
		SetAutoReconnect(false).SetConnectRetry(false).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
			d.add(delivered{Topic: m.Topic(), QoS: m.Qos(), Dup: m.Duplicate(), Body: string(m.Payload())})
		}).
		SetConnectionLostHandler(func(mqtt.Client, error) { d.end() })
	if w := how.Will; w != nil {
		o.SetWill(w.Topic, w.Payload, w.QoS, false)
	}
	d.client = mqtt.NewClient(o)
	token, ok := d.client.Connect().(*mqtt.ConnectToken)
	require.True(s.t, ok)
	require.True(s.t, token.WaitTimeout(patience), "no CONNACK")
	ack := connack{Code: token.ReturnCode(), Present: token.SessionPresent()}
	if ack.Code != 0 {
		return nil, ack
	}
	require.NoError(s.t, token.Error())
	return d, ack
}

func keepAlive(how dialing) uint16 {
	if how.Alive == 0 {
		return 30
	}
	return how.Alive
}

// trusting accepts the certificate that the server was started with, if any.
func trusting(s *server) *tls.Config {
	return &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12}
}

func (d *paho3) subscribe(filter string) byte {
	d.t.Helper()
	token, ok := d.client.Subscribe(filter, 1, nil).(*mqtt.SubscribeToken)
	require.True(d.t, ok)
	require.True(d.t, token.WaitTimeout(patience), "no SUBACK")
	code, ok := token.Result()[filter]
	require.True(d.t, ok, "SUBACK without a code: %v", token.Error())
	return code
}

func (d *paho3) publish(qos byte, topic, payload string) outcome {
	d.t.Helper()
	token := d.client.Publish(topic, qos, false, payload)
	require.True(d.t, token.WaitTimeout(patience), "no acknowledgement")
	require.NoError(d.t, token.Error())
	return outcome{}
}

func (d *paho3) disconnect() {
	d.client.Disconnect(250)
	d.end()
}

func (d *paho3) drop() {
	if d.alive() {
		// The library has no rougher way; a will is tested with the clients that have one.
		d.disconnect()
	}
}
