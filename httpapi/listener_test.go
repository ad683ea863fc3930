package httpapi

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// elsewhere is a listener whose peers have the addresses that the test says.
type elsewhere struct {
	net.Listener
	peers chan string
}

type peerConn struct {
	net.Conn
	peer net.Addr
}

func (c peerConn) RemoteAddr() net.Addr { return c.peer }

func (l elsewhere) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return peerConn{c, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(<-l.peers))}, nil
}

// greeter greets each connection that a limited listener lets in, and hands it over.
func greeter(t *testing.T, limits ConnLimits) (dial func(peer string) (admitted bool), inside chan net.Conn, l *limitListener) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	peers := make(chan string, 1)
	l, _ = LimitListener(elsewhere{tcp, peers}, limits).(*limitListener)
	inside = make(chan net.Conn, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("!"))
			inside <- c
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return func(peer string) bool {
		peers <- peer
		c, err := net.Dial("tcp", tcp.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = io.ReadFull(c, make([]byte, 1))
		return err == nil
	}, inside, l
}

func TestConnectionsInAll(t *testing.T) {
	dial, inside, l := greeter(t, ConnLimits{Total: 2})
	require.True(t, dial("192.0.2.1:1"))
	require.True(t, dial("127.0.0.1:1"))
	require.False(t, dial("192.0.2.2:1"))
	c := <-inside
	require.NoError(t, c.Close())
	require.Error(t, c.Close(), "is closed, and counts once")
	require.True(t, dial("192.0.2.2:1"))
	require.False(t, dial("192.0.2.2:2"))
	require.NoError(t, (<-inside).Close())
	require.NoError(t, (<-inside).Close())
	require.Empty(t, l.byAddress)
	require.Zero(t, l.total)
}

func TestConnectionsOfOneAddress(t *testing.T) {
	dial, inside, _ := greeter(t, ConnLimits{Total: 100, PerAddress: 1, Exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for _, tc := range []struct {
		peer     string
		admitted bool
	}{
		{"192.0.2.1:1", true}, {"192.0.2.1:2", false}, {"[::ffff:192.0.2.1]:3", false}, {"192.0.2.2:1", true},
		{"[2001:db8::1]:1", true}, {"[2001:db8::2]:1", false}, {"[2001:db8:0:1::1]:1", true},
		{"127.0.0.1:1", true}, {"127.0.0.1:2", true}, {"[::1]:1", true}, {"[::1]:2", true},
		{"10.1.1.1:1", true}, {"10.1.1.1:2", true},
	} {
		require.Equal(t, tc.admitted, dial(tc.peer), tc.peer)
	}
	require.NoError(t, (<-inside).Close())
	require.True(t, dial("192.0.2.1:4"), "one has gone")
}

// A handler that takes a connection over keeps its place until it closes it.
func TestHijackedConnectionsCount(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	taken := make(chan net.Conn, 1)
	server := &http.Server{ReadHeaderTimeout: readTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			taken <- c
		}
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(LimitListener(tcp, ConnLimits{Total: 1})) }()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", tcp.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	first := dial()
	_, err = first.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, err)
	c := <-taken
	_, err = dial().Read(make([]byte, 1))
	require.Error(t, err, "there is no room")
	require.NoError(t, c.Close())
	next := dial()
	_, err = next.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, err)
	require.NoError(t, (<-taken).Close())
	require.NoError(t, server.Shutdown(context.Background()))
	require.ErrorIs(t, <-done, http.ErrServerClosed)
}
