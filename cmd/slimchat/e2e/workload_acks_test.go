package e2e

import (
	"sync"
	"time"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// acknowledger sends the PUBACKs of one connection, in order, each batch after a delay.
type acknowledger struct {
	r    *reader
	conn *client.Conn

	mu      sync.Mutex
	waiting []uint16
	kick    chan struct{}
	quit    chan struct{}
	done    sync.WaitGroup
}

func (r *reader) acknowledger(conn *client.Conn) *acknowledger {
	a := &acknowledger{r: r, conn: conn, kick: make(chan struct{}, 1), quit: make(chan struct{})}
	a.done.Go(a.run)
	return a
}

func (a *acknowledger) take(id uint16) {
	a.mu.Lock()
	a.waiting = append(a.waiting, id)
	a.mu.Unlock()
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

func (a *acknowledger) run() {
	var out []byte
	for {
		select {
		case <-a.kick:
		case <-a.quit:
			return
		}
		if a.r.ackLate > 0 && !a.r.w.calm.Load() {
			select {
			case <-time.After(a.r.ackLate):
			case <-a.quit:
				return
			}
		}
		a.mu.Lock()
		ids := a.waiting
		a.waiting = nil
		a.mu.Unlock()
		out = out[:0]
		for _, id := range ids {
			out = packet.AppendAck(out, a.conn.Version, &packet.Ack{Type: packet.PUBACK, PacketID: id})
		}
		if len(out) > 0 {
			if _, err := a.conn.Write(out); err != nil {
				return // the reader meets it too
			}
		}
	}
}

// end stops acknowledging; what waits is not acknowledged.
func (a *acknowledger) end() {
	close(a.quit)
	a.conn.SetWriteDeadline(time.Now())
	a.done.Wait()
}
