package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// writePair writes a certificate for name and its key.
func writePair(t *testing.T, certFile, keyFile, name string, modified time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	require.NoError(t, err)
	secret, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}), 0o600))
	require.NoError(t, os.Chtimes(certFile, modified, modified))
	require.NoError(t, os.Chtimes(keyFile, modified, modified))
}

func TestCertificateIsRenewedWithoutRestart(t *testing.T) {
	cert, key := filepath.Join(t.TempDir(), "c.pem"), filepath.Join(t.TempDir(), "k.pem")
	now := time.Now()
	writePair(t, cert, key, "one", now.Add(-time.Hour))
	c := &certificate{certFile: cert, keyFile: key, log: slog.New(slog.DiscardHandler)}
	require.NoError(t, c.load())
	name := func() string {
		got, err := c.get(&tls.ClientHelloInfo{})
		require.NoError(t, err)
		parsed, err := x509.ParseCertificate(got.Certificate[0])
		require.NoError(t, err)
		return parsed.Subject.CommonName
	}
	require.Equal(t, "one", name())

	writePair(t, cert, key, "two", now)
	require.Equal(t, "one", name(), "looked at a moment ago")
	c.checked = now.Add(-time.Hour)
	require.Equal(t, "two", name())

	require.NoError(t, os.WriteFile(cert, []byte("half a file"), 0o600))
	c.checked = now.Add(-time.Hour)
	require.Equal(t, "two", name(), "the last good one stays")
}

func TestCertificateThatCannotBeRead(t *testing.T) {
	_, err := loadCertificate("mqtt.tls", "nowhere.pem", "nowhere.key", slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "mqtt.tls.cert")
}
