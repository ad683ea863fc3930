package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// publisher sends the messages of its conversations over one connection at a time, as many in flight as the server takes. What
// is not acknowledged when a connection ends it sends again on the next one, first and in the old order, with DUP set.
type publisher struct {
	w       *workload
	owner   login
	version packet.Version
	convs   []*conversation
	events  *mailbox // of the client itself, which gets nothing but error events
	rng     *rand.Rand

	mu       sync.Mutex
	changed  sync.Cond
	unacked  []outgoing // in the order of sending
	nextID   uint16
	gone     error     // why the connection at hand has ended
	pauseTil time.Time // after a refusal
	connects atomic.Int64
}

// outgoing is a message without its acknowledgement.
type outgoing struct {
	conv *conversation
	n    int
	id   uint16
}

// refusalPause keeps a publisher from asking at full speed while it is refused.
const refusalPause = 20 * time.Millisecond

func newPublisher(w *workload, owner login, version packet.Version, seed uint64) *publisher {
	p := &publisher{w: w, owner: owner, version: version, rng: rand.New(rand.NewPCG(w.seed, seed))}
	p.changed.L = &p.mu
	p.events = &mailbox{w: w, owner: owner}
	return p
}

// run publishes until the workload stops publishing and everything is answered, or ctx ends.
func (p *publisher) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, p.wake)
	defer stop()
	for ctx.Err() == nil && !p.finished() {
		address, generation, ok := p.w.target.wait(ctx)
		if !ok {
			return
		}
		if err := p.connection(ctx, address); err != nil {
			p.w.connectionEnded(ctx, p.owner, generation, err)
		}
	}
}

// finished tells whether there is nothing left to do.
func (p *publisher) finished() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.w.stopping.Load() && len(p.unacked) == 0
}

func (p *publisher) wake() {
	p.mu.Lock()
	p.changed.Broadcast()
	p.mu.Unlock()
}

// connection publishes over one connection until it breaks or there is nothing left to do.
func (p *publisher) connection(ctx context.Context, address string) error {
	conn, err := client.Connect(ctx, client.Options{
		Address: address, Version: p.version, ClientID: p.owner.Client, User: p.owner.User, Password: p.owner.Token, SessionExpiry: 3600,
	})
	if err != nil {
		return err
	}
	p.connects.Add(1)
	p.events.connected()
	// What the server says of refused publishes to a client of MQTT 3.1.1 comes as events.
	if err := conn.Subscribe(p.owner.inbox(), 1, func(frame []byte) error { return p.publish(frame) }); err != nil {
		conn.Close()
		return err
	}
	p.mu.Lock()
	p.gone = nil
	p.mu.Unlock()
	var reading sync.WaitGroup
	reading.Go(func() {
		err := p.read(conn)
		p.mu.Lock()
		p.gone = err
		p.changed.Broadcast()
		p.mu.Unlock()
	})
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err = p.write(ctx, conn)
	if err == nil { // done
		err = conn.Disconnect()
	}
	conn.Close()
	reading.Wait()
	return err
}

// read takes what the server sends until the connection ends.
func (p *publisher) read(conn *client.Conn) error {
	for {
		frame, err := conn.Reader.Next()
		if err != nil {
			return err
		}
		switch packet.TypeOf(frame[0]) {
		case packet.PUBACK:
			err = p.puback(frame)
		case packet.PUBLISH:
			err = p.publish(frame)
		case packet.DISCONNECT:
			err = client.Disconnected(p.version, frame)
		default:
			err = fmt.Errorf("a publisher got %s", packet.TypeOf(frame[0]))
		}
		if err != nil {
			return err
		}
	}
}

// publish takes a message to the publisher itself: an error event, and nothing else.
func (p *publisher) publish(frame []byte) error {
	var m packet.Publish
	if err := m.Decode(p.version, frame); err != nil {
		return err
	}
	p.events.receive(&stream{version: p.version}, &m)
	return nil
}

// puback takes an acknowledgement, which must be that of the oldest publish in flight [MQTT-4.6.0-2].
func (p *publisher) puback(frame []byte) error {
	var ack packet.Ack
	if err := ack.Decode(p.version, frame); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.unacked) == 0 || p.unacked[0].id != ack.PacketID {
		err := fmt.Errorf("PUBACK %d is not due", ack.PacketID)
		p.w.problem(p.owner.User + ": " + err.Error())
		return err
	}
	done := p.unacked[0]
	p.unacked = p.unacked[1:]
	if ack.Reason.Failed() {
		done.conv.settle(done.n, declined)
		p.pauseTil = time.Now().Add(refusalPause)
		p.w.refusedBy(complaint{
			ID: messageID(p.w.tag, done.conv.index, done.n), Reason: ack.Reason, Message: string(ack.Props.Bytes(packet.ReasonString)),
		})
	} else {
		done.conv.settle(done.n, acked)
		p.w.acknowledged.Add(1)
	}
	p.changed.Broadcast()
	return nil
}

// write sends what is open from the connection before, and then new messages as fast as they are acknowledged.
func (p *publisher) write(ctx context.Context, conn *client.Conn) error {
	window := min(p.w.window, conn.SendMax)
	p.mu.Lock()
	batch := append([]outgoing(nil), p.unacked...)
	p.mu.Unlock()
	var out []byte
	for _, m := range batch {
		if out = p.appendPublish(out[:0], m, true); len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return err
			}
		}
	}
	for {
		batch, err := p.next(ctx, window)
		if err != nil || len(batch) == 0 {
			return err
		}
		out = out[:0]
		for _, m := range batch {
			out = p.appendPublish(out, m, false)
		}
		if _, err := conn.Write(out); err != nil {
			return err
		}
	}
}

// next waits for room in the window and fills it with new messages; none when there is nothing left to do.
func (p *publisher) next(ctx context.Context, window int) ([]outgoing, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.gone != nil:
			return nil, p.gone
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case p.w.stopping.Load() && len(p.unacked) == 0:
			return nil, nil
		}
		if pause := time.Until(p.pauseTil); pause > 0 && !p.w.stopping.Load() {
			time.AfterFunc(pause, p.wake)
		} else if len(p.unacked) < window && !p.w.stopping.Load() {
			break
		}
		p.changed.Wait()
	}
	var batch []outgoing
	for len(p.unacked) < window && len(batch) < p.w.burst {
		p.nextID = p.nextID%60_000 + 1
		c := p.convs[p.rng.IntN(len(p.convs))]
		m := outgoing{c, c.next(), p.nextID}
		p.unacked = append(p.unacked, m)
		batch = append(batch, m)
	}
	return batch, nil
}

func (p *publisher) appendPublish(dst []byte, m outgoing, dup bool) []byte {
	text := p.w.text(m.conv.index, m.n)
	return packet.AppendPublish(dst, p.version, &packet.Publish{
		Dup: dup, QoS: 1, Topic: []byte(m.conv.to.Topic()), PacketID: m.id,
		Payload: appendMessage(nil, p.w.tag, m.conv.index, m.n, text),
	})
}
