package mqttgw

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

const webSocketProtocol = "mqtt"

// Handler serves MQTT over WebSocket (section 6). Any origin is allowed, for the
// credentials are in the CONNECT packet and no browser adds them by itself.
func (g *Gateway) Handler() http.Handler { return http.HandlerFunc(g.serveWebSocket) }

func (g *Gateway) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if g.isClosing() {
		http.Error(w, "the server is shutting down", http.StatusServiceUnavailable)
		return
	}
	hijacked := &hijackRecorder{ResponseWriter: w}
	ws, err := websocket.Accept(hijacked, r, &websocket.AcceptOptions{
		Subprotocols:       []string{webSocketProtocol},
		InsecureSkipVerify: true, // see Handler
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return // Accept has answered
	}
	if ws.Subprotocol() != webSocketProtocol { // [MQTT-6.0.0-3]
		_ = ws.Close(websocket.StatusPolicyViolation, "the subprotocol mqtt is required")
		return
	}
	ws.SetReadLimit(-1) // a frame may hold many packets; the size of each is checked
	g.start(&webSocket{ws: ws, nc: hijacked.nc}, g.opt.Remote(r))
}

// hijackRecorder keeps hold of the network connection, for its deadlines, and to close
// it without the closing handshake that the websocket package would wait for.
type hijackRecorder struct {
	http.ResponseWriter
	nc net.Conn
}

// Hijack implements http.Hijacker.
func (h *hijackRecorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.nc = nc
	return nc, rw, err
}

// webSocket is a WebSocket as a stream: packets may span messages, and a message may hold
// many of them [MQTT-6.0.0-2].
type webSocket struct {
	ws      *websocket.Conn
	nc      net.Conn
	message io.Reader // of the reader: what is left of the current message
}

var errNotBinary = errors.New("mqttgw: a WebSocket message is not binary")

func (t *webSocket) Read(p []byte) (int, error) {
	for {
		if t.message == nil {
			kind, r, err := t.ws.Reader(context.Background())
			if err != nil {
				return 0, err
			}
			if kind != websocket.MessageBinary { // [MQTT-6.0.0-1]
				_ = t.ws.Close(websocket.StatusUnsupportedData, "binary messages only")
				return 0, errNotBinary
			}
			t.message = r
		}
		n, err := t.message.Read(p)
		if errors.Is(err, io.EOF) {
			t.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (t *webSocket) Write(p []byte) (int, error) {
	if err := t.ws.Write(context.Background(), websocket.MessageBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (t *webSocket) SetWriteDeadline(at time.Time) error { return t.nc.SetWriteDeadline(at) }

// CloseWrite begins the closing handshake; the reader sees its end.
func (t *webSocket) CloseWrite() error { return t.ws.Close(websocket.StatusNormalClosure, "") }

func (t *webSocket) Close() error {
	err := t.nc.Close()
	_ = t.ws.CloseNow() // says that it is closed already; releases its memory
	return err
}
