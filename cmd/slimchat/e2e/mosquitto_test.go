package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMosquitto(t *testing.T) {
	s := startServer(t, withCertificate, fast)
	for name, test := range map[string]func(t *testing.T, m mosquitto){
		"send-and-receive":      mosquittoSendsAndReceives,
		"offline":               mosquittoOffline,
		"clients":               mosquittoClients,
		"stream":                mosquittoStream,
		"will":                  mosquittoWill,
		"refused-connections":   mosquittoRefusedConnections,
		"revoked":               mosquittoRevoked,
		"refused-publishes":     mosquittoRefusedPublishes,
		"refused-subscriptions": mosquittoRefusedSubscriptions,
		"tls":                   mosquittoOverTLS,
	} {
		t.Run(name, func(t *testing.T) { eachMosquitto(t, s.in(t), test) })
	}
}

// publish wants mosquitto_pub to succeed without a word.
func (m mosquitto) publish(who login, topic, payload string, args ...string) {
	m.t.Helper()
	said, code := m.pub(who, topic, payload, args...)
	require.Zero(m.t, code, said)
	require.Empty(m.t, said)
}

// nothingMore is as for devices.
func (m mosquitto) nothingMore(subscribers ...*subscription) {
	m.t.Helper()
	for _, p := range subscribers {
		id := fmt.Sprint(markerPrefix, markers.Add(1))
		m.post(p.who, map[string]any{
			"id": id, "to": p.who.address() + "/client/" + p.who.Client, "type": "chat", "content": map[string]any{"type": "text", "data": ""},
		})
		p.take(id)
	}
}

func mosquittoSendsAndReceives(_ *testing.T, m mosquitto) {
	alice, bob, carol := m.account("alice", "phone"), m.account("bob", "phone"), m.account("carol", "phone")
	b, c := m.sub(bob), m.sub(carol)
	m.publish(alice, bob.inbox(), chat("m1"))
	got := b.take("m1")
	require.Equal(m.t, bob.inbox(), got.Topic)
	require.EqualValues(m.t, 1, got.QoS)
	require.Equal(m.t, alice.address(), got.From)
	require.Equal(m.t, "phone", got.Client)
	m.publish(alice, bob.inbox(), chat("m2"), "-q", "2")
	m.publish(alice, bob.inbox(), chat("m3"), "-q", "0")
	b.take("m2", "m3")
	m.nothingMore(b, c)
}

func mosquittoOffline(_ *testing.T, m mosquitto) {
	alice, bob := m.account("alice", "phone"), m.account("bob", "phone")
	b := m.sub(bob, "-c")
	m.publish(alice, bob.inbox(), chat("m1"))
	b.take("m1")
	b.leave()
	for _, id := range []string{"m2", "m3"} {
		m.publish(alice, bob.inbox(), chat(id))
	}
	b = m.sub(bob, "-c")
	b.take("m2", "m3")
	b.kill()
	m.publish(alice, bob.inbox(), chat("m4"))
	m.sub(bob).take("m4") // a clean session starts where this client has come to
}

func mosquittoClients(_ *testing.T, m mosquitto) {
	alice, bob := m.account("alice", "phone"), m.account("bob", "phone")
	other, desk := m.login(alice.User, "laptop"), m.login(bob.User, "desk")
	o, b, d := m.sub(other), m.sub(bob), m.sub(desk)
	m.publish(alice, bob.inbox(), chat("for both"))
	b.take("for both")
	d.take("for both")
	require.Equal(m.t, alice.inbox(), o.take("for both").Topic)
	m.publish(alice, desk.own(), chat("for the desk"))
	require.Equal(m.t, desk.own(), d.take("for the desk").Topic)
	m.nothingMore(o, b, d)
}

func mosquittoStream(_ *testing.T, m mosquitto) {
	alice, bob := m.account("alice", "phone"), m.account("bob", "phone")
	b := m.sub(bob)
	var lines strings.Builder
	want := make([]string, 300) // more than fit into the receive maximum
	for i := range want {
		want[i] = fmt.Sprintf("line-%03d", i)
		lines.WriteString(chat(want[i]) + "\n")
	}
	said, code := m.finish(m.command("mosquitto_pub", alice, "-t", bob.inbox(), "-l"), lines.String())
	require.Zero(m.t, code, said)
	b.take(want...)
	m.nothingMore(b)
}

func mosquittoWill(_ *testing.T, m mosquitto) {
	alice, bob := m.account("alice", "phone"), m.account("bob", "phone")
	b := m.sub(bob)
	will := func(id string) *subscription {
		return m.sub(alice, "--will-topic", bob.inbox(), "--will-payload", chat(id), "--will-qos", "1")
	}
	will("last words").kill()
	require.Equal(m.t, alice.address(), b.take("last words").From)
	will("at goodbye").leave()
	if m.version == "mqttv5" {
		b.take("at goodbye") // mosquitto_sub disconnects with reason 0x04, which asks for the will
	}
	m.nothingMore(b)
}

func mosquittoRefusedConnections(_ *testing.T, m mosquitto) {
	alice, eve := m.account("alice", "phone"), m.account("eve", "phone")
	brief := login{User: alice.User, Client: "watch", Token: m.run("token", alice.User, "--client", "watch", "--ttl", "1s")}
	for name, l := range map[string]login{
		"a wrong token":         {User: alice.User, Client: "phone", Token: "letmein"},
		"a bent token":          {User: alice.User, Client: "phone", Token: bent(alice.Token)},
		"somebody else's token": {User: alice.User, Client: "phone", Token: eve.Token},
	} {
		said, code := m.pub(l, eve.inbox(), chat("x"))
		m.notAuthorised(name, said, code)
		said, code = m.subOnce(l, "-t", "$IM/#")
		m.notAuthorised(name, said, code)
	}
	eventually(m.t, func() bool {
		said, code := m.pub(brief, eve.inbox(), chat("in time"))
		if code != 0 {
			m.notAuthorised("an expired token", said, code)
		}
		return code != 0
	}, "the token must end")
}

// notAuthorised wants CONNACK with the code of a token that is not good.
func (m mosquitto) notAuthorised(what, said string, code int) {
	m.t.Helper()
	want := 5
	if m.version == "mqttv5" {
		want = 0x87
	}
	require.Equal(m.t, want, code, "%s: %s", what, said)
	require.Contains(m.t, strings.ToLower(said), "not authori", what)
}

func mosquittoRevoked(_ *testing.T, m mosquitto) {
	alice := m.account("alice", "phone")
	laptop := m.login(alice.User, "laptop")
	a, l := m.sub(alice), m.sub(laptop)
	for _, ended := range []struct {
		sub *subscription
		by  func()
	}{
		{l, func() {
			require.Equal(m.t, http.StatusNoContent, m.call(alice.Token, http.MethodDelete, "/clients/laptop", nil, nil))
		}},
		{a, func() { m.logout(alice) }},
	} {
		begin := time.Now()
		ended.by()
		ended.sub.gone() // it tries to come back after a second, is refused and gives up
		require.Less(m.t, time.Since(begin), 5*time.Second)
		said, code := m.pub(ended.sub.who, alice.inbox(), chat("x"))
		m.notAuthorised("a revoked token", said, code)
	}
}

func mosquittoRefusedPublishes(_ *testing.T, m mosquitto) {
	alice, bob := m.account("alice", "phone"), m.account("bob", "phone")
	b := m.sub(bob)
	for _, bad := range []struct{ what, topic, payload, says string }{
		{"forged from", bob.inbox(), `{"id":"x","from":"user/eve","type":"chat","content":{"type":"text","data":""}}`, "Not authorized"},
		{"wrong to", bob.inbox(), `{"id":"x","to":"user/eve","type":"chat","content":{"type":"text","data":""}}`, "Payload format invalid"},
		{"not JSON", bob.inbox(), "hello", "Payload format invalid"},
		{"too large", bob.inbox(), strings.Repeat("x", 70<<10), "Quota exceeded"},
		{"to nobody", "$IM/user/nobody-at-all", chat("x"), "Topic Name invalid"},
	} {
		said, _ := m.pub(alice, bad.topic, bad.payload)
		if m.version == "mqttv5" {
			require.Contains(m.t, said, bad.says, bad.what)
		}
	}
	m.publish(alice, bob.inbox(), chat("good"))
	b.take("good")
	m.nothingMore(b)
}

func mosquittoRefusedSubscriptions(_ *testing.T, m mosquitto) {
	alice, bob := m.account("alice", "phone"), m.account("bob", "phone")
	for _, filter := range []string{bob.inbox(), bob.own(), "news/today"} {
		said, code := m.subOnce(alice, "-t", filter)
		require.Contains(m.t, said, "All subscription requests were denied", "%s: exit code %d", filter, code)
	}
}

func mosquittoOverTLS(t *testing.T, m mosquitto) {
	alice, bob := m.account("alice", "phone"), m.account("bob", "phone")
	b := m.sub(bob, "--cafile", m.rootFile)
	m.publish(alice, bob.inbox(), chat("in secret"), "--cafile", m.rootFile)
	b.take("in secret")
	foreign := newCertificate(t)
	said, code := m.pub(alice, bob.inbox(), chat("x"), "--cafile", foreign.root)
	require.NotZero(t, code, "a server that is not trusted: %s", said)
	m.nothingMore(b)
}

func TestMosquittoTooFast(t *testing.T) {
	s := startServer(t, withSetting("limits.publish_rate", 1), withSetting("limits.publish_burst", 5))
	eachMosquitto(t, s, func(t *testing.T, m mosquitto) {
		alice, bob := m.account("alice", "phone"), m.account("bob", "phone")
		b := m.sub(bob)
		var lines strings.Builder
		for i := range 50 {
			lines.WriteString(chat(fmt.Sprintf("line-%02d", i)) + "\n")
		}
		said, _ := m.finish(m.command("mosquitto_pub", alice, "-t", bob.inbox(), "-l"), lines.String())
		if m.version == "mqttv5" {
			require.Contains(t, said, "Quota exceeded")
		}
		b.take("line-00", "line-01", "line-02", "line-03", "line-04")
		require.Less(t, len(m.history(alice, "with", bob.address()).Items), 50)
	})
}
