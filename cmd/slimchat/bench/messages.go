package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

const (
	// connectParallel is how many connections are opened at a time before the load.
	connectParallel = 32
	// pacers is how many goroutines send on time in an open loop.
	pacers = 2
	// paceEvery is how often they look what is due.
	paceEvery = time.Millisecond
)

// messages runs pairs and fan-out.
func (r *run) messages(ctx context.Context, people identities) (*Report, error) {
	publishers, err := r.prepare(ctx, people)
	if err != nil {
		return nil, err
	}
	for _, p := range publishers {
		r.workers.Go(func() { r.failed(p.acknowledgements()) })
	}
	var pace sync.WaitGroup
	if r.o.Rate > 0 {
		r.pace(&pace, publishers)
	} else {
		for _, p := range publishers {
			r.failed(p.fill())
		}
	}
	report, err := r.measure(ctx, func() {
		r.stopping.Store(true)
		pace.Wait()
	})
	if err != nil {
		return nil, err
	}
	copies := int64(1)
	if r.o.Mode == ModeFanout {
		copies = int64(r.o.Clients)
	}
	if err := r.phase(ctx, "draining", r.o.Drain, func() bool {
		return r.acked.Load()+r.refused.Load() >= r.sent.Load() && r.delivered.Load() >= r.acked.Load()*copies
	}); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	r.total(report, copies)
	return report, nil
}

// measure warms up, measures and stops the load; the report holds the rates and times.
func (r *run) measure(ctx context.Context, stop func()) (*Report, error) {
	if err := r.phase(ctx, "warming up", r.o.Warmup, nil); err != nil {
		stop()
		return nil, err
	}
	cpu := processTime()
	start, sent, delivered := time.Now(), r.acked.Load(), r.delivered.Load()
	r.from.Store(max(r.now(), 1))
	err := r.phase(ctx, "measuring", r.o.Duration, nil)
	r.to.Store(r.now())
	elapsed := time.Since(start)
	report := &Report{
		Mode: r.o.Mode, Broker: r.o.Broker.Address, Version: r.o.Broker.Version.String(), Clients: r.o.Clients, Window: r.o.Window, Rate: r.o.Rate, Size: r.o.Size,
		Seconds:      elapsed.Seconds(),
		Published:    float64(r.acked.Load()-sent) / elapsed.Seconds(),
		Delivered:    float64(r.delivered.Load()-delivered) / elapsed.Seconds(),
		GeneratorCPU: (processTime() - cpu).Seconds() / elapsed.Seconds(),
	}
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	report.Delivery, report.Puback = timesOf(&r.deliveryTime), timesOf(&r.ackTime)
	return report, nil
}

// total counts over the whole run.
func (r *run) total(report *Report, copies int64) {
	report.Sent, report.Acked, report.Refused = r.sent.Load(), r.acked.Load(), r.refused.Load()
	report.Received, report.Duplicates, report.OutOfOrder = r.delivered.Load(), r.duplicates.Load(), r.outOfOrder.Load()
	report.Lost = max(0, report.Acked*copies-report.Received)
	errs, first := r.failures.get()
	report.Errors = errs
	if first != nil {
		report.FirstError = first.Error()
	}
}

// prepare connects everyone: the subscribers with their goroutines running, the publishers still silent.
func (r *run) prepare(ctx context.Context, people identities) ([]*publisher, error) {
	var senders, receivers []identity
	var err error
	if r.o.Mode == ModeFanout {
		if receivers, err = people.group(ctx, r.o.Clients); err == nil {
			senders, err = people.users(ctx, 1)
		}
	} else if senders, err = people.users(ctx, 2*r.o.Clients); err == nil {
		receivers, senders = senders[r.o.Clients:], senders[:r.o.Clients]
	}
	if err != nil {
		return nil, err
	}
	if err := r.each(ctx, "connecting", len(receivers), connectParallel, func(ctx context.Context, i int) error {
		conn, err := r.connect(ctx, receivers[i])
		if err != nil {
			return err
		}
		s := &subscriber{run: r, conn: conn, trackers: map[uint64]*tracker{}}
		if err := conn.Subscribe(receivers[i].inbox, 1, func([]byte) error { return nil }); err != nil {
			return err
		}
		r.workers.Go(func() { r.failed(s.receive()) })
		return nil
	}); err != nil {
		return nil, err
	}
	publishers := make([]*publisher, len(senders))
	err = r.each(ctx, "connecting", len(senders), connectParallel, func(ctx context.Context, i int) error {
		conn, err := r.connect(ctx, senders[i])
		if err != nil {
			return err
		}
		publishers[i] = newPublisher(r, conn, uint64(i), receivers[i].inbox)
		return nil
	})
	return publishers, err
}

// pace sends at the rate, spread over the publishers, until the run stops. A message that could not go in time because the
// window was full keeps the time at which it was due, so that its wait is measured too.
func (r *run) pace(wg *sync.WaitGroup, publishers []*publisher) {
	workers := min(pacers, len(publishers))
	for w := range workers {
		wg.Go(func() {
			ticker := time.NewTicker(paceEvery)
			defer ticker.Stop()
			var mine []*publisher
			for i := w; i < len(publishers); i += workers {
				mine = append(mine, publishers[i])
			}
			interval := float64(time.Second) / r.o.Rate * float64(workers)
			begin, n := r.now(), 0
			for ; !r.stopping.Load(); <-ticker.C {
				due := int((float64(r.now()-begin))/interval) + 1
				for ; n < due; n++ {
					mine[n%len(mine)].schedule(begin + int64(float64(n)*interval))
				}
				for _, p := range mine[:min(len(mine), n)] {
					r.failed(p.fill())
				}
			}
		})
	}
}

// publisher is one sending connection. mu guards everything but what acknowledgements reads from the connection.
type publisher struct {
	run   *run
	conn  *client.Conn
	topic []byte

	mu      sync.Mutex
	payload *payload
	seq     uint64
	sentAt  []int64  // by packet identifier: when it was sent, or due
	free    []uint16 // packet identifiers
	due     []int64  // open loop: when the next messages are to go
	out     []byte
	broken  bool
}

func newPublisher(r *run, conn *client.Conn, number uint64, topic string) *publisher {
	window := min(r.o.Window, conn.SendMax)
	p := &publisher{run: r, conn: conn, topic: []byte(topic), payload: newPayload(r.id, number, r.o.Size), sentAt: make([]int64, window+1)}
	for id := window; id >= 1; id-- {
		p.free = append(p.free, uint16(id))
	}
	return p
}

// schedule notes that a message is due.
func (p *publisher) schedule(at int64) {
	p.mu.Lock()
	p.due = append(p.due, at)
	p.mu.Unlock()
}

// fill sends what the window has room for, all in one write: in a closed loop as much as fits, in an open one what is due.
func (p *publisher) fill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.free)
	if p.run.o.Rate > 0 {
		n = min(n, len(p.due))
	}
	if n == 0 || p.broken || p.run.stopping.Load() {
		return nil
	}
	p.out = p.out[:0]
	now := p.run.now()
	publish := packet.Publish{QoS: 1, Topic: p.topic}
	for i := range n {
		at := now
		if p.run.o.Rate > 0 {
			at = p.due[i]
		}
		id := p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		p.sentAt[id] = at
		p.seq++
		publish.PacketID, publish.Payload = id, p.payload.stamp(at, p.seq)
		p.out = packet.AppendPublish(p.out, p.conn.Version, &publish)
	}
	if p.run.o.Rate > 0 {
		p.due = p.due[:copy(p.due, p.due[n:])]
	}
	p.run.sent.Add(int64(n))
	if _, err := p.conn.Write(p.out); err != nil {
		p.broken = true
		return fmt.Errorf("publishing: %w", err)
	}
	return nil
}

// acknowledgements reads what the broker answers and keeps the window full, until the connection ends.
func (p *publisher) acknowledgements() error {
	var ack packet.Ack
	for {
		frame, err := p.conn.Reader.Next()
		if err != nil {
			return fmt.Errorf("waiting for PUBACK: %w", err)
		}
		switch packet.TypeOf(frame[0]) {
		case packet.PUBACK:
			if err := ack.Decode(p.conn.Version, frame); err != nil {
				return err
			}
			if err := p.acknowledged(&ack); err != nil {
				return err
			}
		case packet.DISCONNECT:
			return client.Disconnected(p.conn.Version, frame)
		}
		if !p.conn.Reader.Buffered() {
			if err := p.fill(); err != nil {
				return err
			}
		}
	}
}

func (p *publisher) acknowledged(ack *packet.Ack) error {
	now := p.run.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(ack.PacketID) >= len(p.sentAt) || p.sentAt[ack.PacketID] == 0 {
		return fmt.Errorf("PUBACK for packet identifier %d, which waits for none", ack.PacketID)
	}
	at := p.sentAt[ack.PacketID]
	p.sentAt[ack.PacketID] = 0
	p.free = append(p.free, ack.PacketID)
	if ack.Reason.Failed() {
		p.run.refused.Add(1)
		p.run.failures.add(fmt.Errorf("a publish was refused with reason 0x%02X %s", uint8(ack.Reason), ack.Props.Bytes(packet.ReasonString)))
		return nil
	}
	p.run.acked.Add(1)
	if p.run.measuring(now) {
		p.run.ackTime.Record(now - at)
	}
	return nil
}

// subscriber is one receiving connection.
type subscriber struct {
	run      *run
	conn     *client.Conn
	trackers map[uint64]*tracker
	stamps   stampReader
	out      []byte
}

// receive reads, judges and acknowledges until the connection ends.
func (s *subscriber) receive() error {
	var publish packet.Publish
	ack := packet.Ack{Type: packet.PUBACK}
	for {
		frame, err := s.conn.Reader.Next()
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		switch packet.TypeOf(frame[0]) {
		case packet.PUBLISH:
			if err := publish.Decode(s.conn.Version, frame); err != nil {
				return err
			}
			s.message(publish.Payload)
			if publish.QoS == 1 {
				ack.PacketID = publish.PacketID
				s.out = packet.AppendAck(s.out, s.conn.Version, &ack)
			}
		case packet.DISCONNECT:
			return client.Disconnected(s.conn.Version, frame)
		}
		if len(s.out) > 0 && !s.conn.Reader.Buffered() {
			if _, err := s.conn.Write(s.out); err != nil {
				return fmt.Errorf("acknowledging: %w", err)
			}
			s.out = s.out[:0]
		}
	}
}

func (s *subscriber) message(text []byte) {
	sent, publisher, seq, ok := s.stamps.read(text)
	if !ok {
		s.run.foreign.Add(1)
		return
	}
	t := s.trackers[publisher]
	if t == nil {
		t = &tracker{}
		s.trackers[publisher] = t
	}
	switch t.see(seq) {
	case duplicate:
		s.run.duplicates.Add(1)
		return
	case late:
		s.run.outOfOrder.Add(1)
	}
	s.run.delivered.Add(1)
	if now := s.run.now(); s.run.measuring(now) {
		s.run.deliveryTime.Record(now - sent)
	}
}
