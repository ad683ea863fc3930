package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// habits are how a reader behaves.
type habits struct {
	version packet.Version
	restart bool          // clean start on every connection
	life    time.Duration // how long a connection lasts on average until the reader ends it; 0: as long as it can
	ackLate time.Duration // how long a message waits for its acknowledgement
	window  uint16        // receive maximum (5.0); 0: as many as the server sends
}

// reader is one client that receives.
type reader struct {
	w   *workload
	box *mailbox
	habits
	rng      *rand.Rand
	connects atomic.Int64
	replaced replaced
	ready    chan struct{}
}

// replaced is the connection before, still open, if the next one is to take over.
type replaced struct {
	*client.Conn
	generation int // of its server
}

func newReader(w *workload, owner login, h habits, seed uint64) *reader {
	return &reader{
		w: w, box: &mailbox{w: w, owner: owner}, habits: h, rng: rand.New(rand.NewPCG(w.seed, seed)), ready: make(chan struct{}),
	}
}

// run connects and receives until ctx ends.
func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		address, generation, ok := r.w.target.wait(ctx)
		if !ok {
			break
		}
		if err := r.connection(ctx, address, generation); err != nil {
			r.w.connectionEnded(ctx, r.box.owner, generation, err)
		}
	}
	if r.replaced.Conn != nil {
		r.replaced.Close()
	}
}

// connection receives over one connection until it breaks, its life is over or ctx ends.
func (r *reader) connection(ctx context.Context, address string, generation int) error {
	conn, err := client.Connect(ctx, client.Options{
		Address: address, Version: r.version, ClientID: r.box.owner.Client, User: r.box.owner.User, Password: r.box.owner.Token,
		CleanStart: r.restart, SessionExpiry: 3600, ReceiveMax: r.window,
	})
	if err != nil {
		return err
	}
	defer func() {
		if conn != r.replaced.Conn {
			conn.Close()
		}
	}()
	if old := r.replaced; old.Conn != nil {
		r.replaced = replaced{}
		if err := r.leave(old); err != nil {
			r.box.problem("the connection that was taken over ended with: %v", err)
		}
	}
	r.box.connected()
	s := &stream{version: r.version}
	acks := r.acknowledger(conn)
	defer acks.end()
	if !conn.SessionPresent {
		early := func(frame []byte) error { return r.publish(s, acks, frame) }
		if err := conn.Subscribe("$IM/#", 1, early); err != nil {
			return err
		}
	}
	if r.connects.Add(1) == 1 {
		close(r.ready)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if r.life > 0 && !r.w.calm.Load() {
		life := time.Duration(r.rng.ExpFloat64() * float64(r.life))
		timer := time.AfterFunc(life, func() { conn.SetReadDeadline(time.Now()) })
		defer timer.Stop()
	}
	for {
		frame, err := conn.Reader.Next()
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return r.part(conn, generation)
		default:
			return err
		}
		switch packet.TypeOf(frame[0]) {
		case packet.PUBLISH:
			err = r.publish(s, acks, frame)
		case packet.DISCONNECT:
			err = client.Disconnected(r.version, frame)
		default:
			r.box.problem("got %s", packet.TypeOf(frame[0]))
		}
		if err != nil {
			return err
		}
	}
}

func (r *reader) publish(s *stream, acks *acknowledger, frame []byte) error {
	var p packet.Publish
	if err := p.Decode(r.version, frame); err != nil {
		r.box.problem("got a malformed PUBLISH: %v", err)
		return err
	}
	r.box.receive(s, &p)
	if p.QoS > 0 {
		acks.take(p.PacketID)
	}
	return nil
}

// part ends a connection whose life is over, in one of three ways.
func (r *reader) part(conn *client.Conn, generation int) error {
	switch r.rng.IntN(3) {
	case 0: // without a word
		return conn.Close()
	case 1:
		return conn.Disconnect()
	default: // the next connection takes the session over; nothing more is read from this one until then
		conn.SetReadDeadline(time.Time{})
		r.replaced = replaced{conn, generation}
		return nil
	}
}

// leave reads a connection that was taken over to its end: the server must end it, and say why (wire.md section 2). What came
// last on it was not acknowledged and counts for nothing.
func (r *reader) leave(conn replaced) error {
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	told := false
	for {
		frame, err := conn.Reader.Next()
		switch {
		case err == nil && packet.TypeOf(frame[0]) == packet.DISCONNECT:
			var bye packet.Disconnect
			if err := bye.Decode(r.version, frame); err != nil {
				return err
			}
			told = bye.Reason == packet.SessionTakenOver
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case r.version == packet.V5 && !told && r.w.target.is(conn.generation):
			return errors.New("no word of the takeover")
		default:
			return nil
		}
	}
}
