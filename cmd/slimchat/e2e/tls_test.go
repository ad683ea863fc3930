package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// certificate is a certificate for 127.0.0.1 that signs itself.
type certificate struct {
	chain, key string // PEM files
	root       string // what to trust; the chain
	pool       *x509.CertPool
}

func newCertificate(t testing.TB) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "SlimChat under test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	c := certificate{chain: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), pool: x509.NewCertPool()}
	c.root = c.chain
	writePEM(t, c.chain, "CERTIFICATE", der)
	writePEM(t, c.key, "PRIVATE KEY", secret)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	c.pool.AddCert(parsed)
	return c
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// withCertificate turns the listener for MQTT over TLS on.
func withCertificate(s *server) {
	s.t.Helper()
	c := newCertificate(s.t)
	s.roots, s.rootFile = c.pool, c.root
	withSetting("mqtt.tls.listen", "127.0.0.1:0")(s)
	withSetting("mqtt.tls.cert", c.chain)(s)
	withSetting("mqtt.tls.key", c.key)(s)
}

// withHTTPS turns TLS on for the HTTP listener.
func withHTTPS(s *server) {
	s.t.Helper()
	c := newCertificate(s.t)
	s.roots, s.rootFile = c.pool, c.root
	withSetting("http.tls.cert", c.chain)(s)
	withSetting("http.tls.key", c.key)(s)
}

func TestMQTTOverTLS(t *testing.T) {
	s := startServer(t, withCertificate)
	alice, bob := s.account("alice", "phone"), s.account("bob", "phone")
	m := maker{connect: connectPaho3}
	over := "ssl://" + s.addr.MQTTS
	a := m.online(s, dialing{login: alice, URL: over, Clean: true})
	b := m.online(s, dialing{login: bob, Clean: true}) // the plain listener is there as well
	a.publish(1, bob.inbox(), chat("in secret"))
	b.got().take("in secret")
	b.publish(1, alice.inbox(), chat("answer"))
	a.got().take("answer")

	_, err := tls.Dial("tcp", s.addr.MQTTS, &tls.Config{RootCAs: s.roots, MaxVersion: tls.VersionTLS11}) // to see it refused
	require.Error(t, err, "TLS 1.1 is out of date")

	// One who does not speak TLS is let go, and nobody else is disturbed.
	plain, err := net.Dial("tcp", s.addr.MQTTS)
	require.NoError(t, err)
	defer plain.Close()
	_, err = plain.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	require.NoError(t, err)
	require.NoError(t, plain.SetReadDeadline(time.Now().Add(patience)))
	_, err = io.Copy(io.Discard, plain)
	require.NoError(t, err, "closed by the server")
	s.nothingMore(a, b)
}

func TestRESTAndWebSocketOverTLS(t *testing.T) {
	s := startServer(t, withHTTPS)
	s.secure()
	alice, bob := s.account("alice", "phone"), s.account("bob", "phone")
	require.Equal(t, http.StatusOK, s.call(alice.Token, http.MethodGet, "/clients", nil, nil))
	m := maker{connect: connectPaho3}
	over := "wss://" + s.addr.HTTP + "/mqtt"
	a := m.online(s, dialing{login: alice, URL: over, Clean: true})
	b := m.online(s, dialing{login: bob, URL: over, Clean: true})
	a.publish(1, bob.inbox(), chat("in secret"))
	b.got().take("in secret")
	s.nothingMore(a, b)
}
