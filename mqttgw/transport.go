package mqttgw

import (
	"net"
	"syscall"
	"time"
)

// transport is a connection as a stream of bytes. Close may be called at any time and
// ends reads and writes that are under way.
type transport interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	// CloseWrite tells the peer that nothing more will come.
	CloseWrite() error
	SetWriteDeadline(t time.Time) error
	Close() error
}

// waiter is a transport that can wait for bytes without a buffer to put them in.
type waiter interface {
	transport
	SetReadDeadline(t time.Time) error
	// raw gives access to the socket.
	raw() syscall.RawConn
}

// rawTransport is a socket of the operating system's.
type rawTransport struct {
	*net.TCPConn
	socket syscall.RawConn
}

func (t *rawTransport) raw() syscall.RawConn { return t.socket }

// plainTransport is any other connection.
type plainTransport struct{ net.Conn }

// CloseWrite passes on to the connection if that can close one direction.
func (t plainTransport) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func bufferedTransport(nc net.Conn) transport { return plainTransport{nc} }

func netTransport(nc net.Conn) transport {
	tcp, ok := nc.(*net.TCPConn)
	if !ok || !canReadRaw {
		return bufferedTransport(nc)
	}
	socket, err := tcp.SyscallConn()
	if err != nil {
		return bufferedTransport(nc)
	}
	return &rawTransport{TCPConn: tcp, socket: socket}
}
