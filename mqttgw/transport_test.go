package mqttgw_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

func selfSigned(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool}
}

// exchange sends messages of many sizes from d to itself and checks what comes back.
func exchange(t *testing.T, d *device) {
	t.Helper()
	require.Zero(t, d.hello(hello(d.v, "alice", "a1")).Code)
	d.subscribe("$IM/#")
	for i, size := range []int{0, 10, 250, 4000, 17_000, 60_000} {
		body := `{"id":"` + string(rune('a'+i)) + `","type":"chat","content":{"type":"text","data":"` + strings.Repeat("~", size) + `"}}`
		d.publish(1, uint16(i+1), "$IM/user/alice", []byte(body))
		var got packet.Publish
		for seen := 0; seen < 2; seen++ {
			require.NoError(t, d.nc.SetReadDeadline(time.Now().Add(patience)))
			f, err := d.r.Next()
			require.NoError(t, err)
			if packet.TypeOf(f[0]) == packet.PUBLISH {
				require.NoError(t, got.Decode(d.v, f))
				require.Equal(t, size, strings.Count(string(got.Payload), "~"))
			}
		}
		d.write(packet.AppendAck(nil, d.v, &packet.Ack{Type: packet.PUBACK, PacketID: got.PacketID}))
	}
	d.silent()
}

func TestTCP(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		exchange(t, newStack(t, nil).dial(v))
	})
}

func TestTLS(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s := newStack(t, nil)
		server, client := selfSigned(t)
		addr := s.listen(func(l net.Listener) error { return s.gw.ServeTLS(l, server) })
		nc, err := tls.Dial("tcp", addr, client)
		require.NoError(t, err)
		d := newDevice(t, v, nc)
		exchange(t, d)
		// Somebody who speaks no TLS disturbs nobody.
		plain, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		_, err = plain.Write(packet.AppendConnect(nil, hello(v, "bob", "b1")))
		require.NoError(t, err)
		newDevice(t, v, plain).closedSomehow()
		d.silent()
	})
}

// closedSomehow waits for the end of a connection that speaks something else.
func (d *device) closedSomehow() {
	d.t.Helper()
	require.NoError(d.t, d.nc.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 1024)
	for {
		if _, err := d.nc.Read(b); err != nil {
			var late net.Error
			require.False(d.t, errors.As(err, &late) && late.Timeout(), "the connection stays open")
			return
		}
	}
}

func dialWebSocket(t *testing.T, s *stack, protocols ...string) (*websocket.Conn, error) {
	t.Helper()
	web := httptest.NewServer(s.gw.Handler())
	t.Cleanup(web.Close)
	ws, resp, err := websocket.Dial(t.Context(), web.URL, &websocket.DialOptions{Subprotocols: protocols})
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	return ws, err
}

func TestWebSocket(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s := newStack(t, nil)
		ws, err := dialWebSocket(t, s, "mqtt")
		require.NoError(t, err)
		require.Equal(t, "mqtt", ws.Subprotocol())
		d := newDevice(t, v, websocket.NetConn(t.Context(), ws, websocket.MessageBinary))
		exchange(t, d)
		// A packet in three messages, and two packets in one.
		ping := packet.AppendPingreq(packet.AppendSubscribe(nil, v, &packet.Subscribe{PacketID: 9, Filters: []packet.Subscription{{Filter: []byte("$IM/#"), QoS: 1}}}))
		d.write(ping[:1])
		d.write(ping[1:5])
		d.write(ping[5:])
		d.frame(packet.SUBACK)
		d.frame(packet.PINGRESP)
		d.write(packet.AppendDisconnect(nil, v, &packet.Disconnect{}))
		require.Eventually(t, func() bool { return s.gw.Stats().Connections == 0 }, patience, time.Millisecond)
	})
}

func TestWebSocketRefusals(t *testing.T) {
	s := newStack(t, nil)
	ws, err := dialWebSocket(t, s)
	require.NoError(t, err)
	_, _, err = ws.Read(t.Context())
	require.Equal(t, websocket.StatusPolicyViolation, websocket.CloseStatus(err), "no subprotocol")

	ws, err = dialWebSocket(t, s, "mqtt")
	require.NoError(t, err)
	require.NoError(t, ws.Write(t.Context(), websocket.MessageText, []byte("hello")))
	_, _, err = ws.Read(t.Context())
	require.Equal(t, websocket.StatusUnsupportedData, websocket.CloseStatus(err), "text")

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, err = dialWebSocket(t, s, "mqtt")
	require.NoError(t, err)
	require.NoError(t, ws.Write(ctx, websocket.MessageBinary, []byte("\x00\x00")))
	_, _, err = ws.Read(ctx)
	require.Error(t, err)
	require.NoError(t, ctx.Err())
}

// Behind a proxy the devices are told apart by what the proxy says of them.
func TestWebSocketsBehindAProxy(t *testing.T) {
	s := newStack(t, func(o *setup) {
		o.gateway.Limits.PerAddress = 1
		o.gateway.Remote = func(r *http.Request) netip.Addr { return netip.MustParseAddr(r.Header.Get("X-Forwarded-For")) }
	})
	web := httptest.NewServer(s.gw.Handler())
	t.Cleanup(web.Close)
	from := func(addr string) *device {
		ws, _, err := websocket.Dial(t.Context(), web.URL, &websocket.DialOptions{
			Subprotocols: []string{"mqtt"}, HTTPHeader: http.Header{"X-Forwarded-For": {addr}},
		})
		require.NoError(t, err)
		return newDevice(t, packet.V5, websocket.NetConn(t.Context(), ws, websocket.MessageBinary))
	}
	first := from("192.0.2.1")
	require.Zero(t, first.hello(hello(packet.V5, "alice", "a1")).Code)
	from("192.0.2.1").closedSomehow()
	require.Zero(t, from("192.0.2.2").hello(hello(packet.V5, "alice", "a2")).Code)
	first.silent()
	require.Zero(t, from("2001:db8::1").hello(hello(packet.V5, "alice", "a3")).Code)
	from("2001:db8::2").closedSomehow() // the same network
}
