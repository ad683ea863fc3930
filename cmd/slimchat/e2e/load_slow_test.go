package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// TestSlowReaders lets 100,000 messages wait for readers that do not read, which must cost the server no more memory than
// readers that have nothing to read, and lets one of them then have all of them, in order and at the pace at which it reads.
func TestSlowReaders(t *testing.T) {
	const senders, readers = 10, 100
	each := 10_000
	if testing.Short() || underRace {
		each = 1_000
	}
	// A small garbage target, so that the process's memory is what it holds and not what it has dropped.
	s := newServer(t, fast, withSetting("retention.per_address", 1_000_000), withSetting("limits.clients_per_user", 1_000))
	s.env = append(s.env, "GOGC=20")
	s.start()
	clientsOf := func(kind string) (list []string) {
		for i := range readers {
			list = append(list, fmt.Sprintf("%s-%d", kind, i))
		}
		return list
	}
	people := s.mint(append([]string{"bob", "idle"}, names("sender", senders)...), func(i int) []string {
		switch i {
		case 0:
			return append(clientsOf("slow"), clientsOf("deaf")...)
		case 1:
			return clientsOf("idle")
		default:
			return []string{"c"}
		}
	})
	bob := people[0]
	fillInbox(s, people[2:], bob[0].inbox(), each)
	settled := s.settledRSS()

	open := func(logins []login, qos byte) []*client.Conn {
		conns := make([]*client.Conn, len(logins))
		for i, l := range logins {
			conns[i] = s.mustDial(l)
			_, err := subscribeLight(conns[i], l.inbox(), qos)
			require.NoError(t, err)
		}
		return conns
	}
	idle := open(people[1], 1)
	withIdle := s.settledRSS()
	// Slow ones have taken all that they may without an acknowledgement, and give none.
	slow := open(bob[:readers], 1)
	// Deaf ones would get everything at QoS 0, and do not read at all.
	deaf := open(bob[readers:], 0)
	withSlow := s.settledRSS()
	t.Logf("process memory: %d KiB with the messages, %+d KiB for %d idle readers, %+d KiB for %d readers that %d messages wait for",
		settled>>10, (withIdle-settled)>>10, len(idle), (withSlow-withIdle)>>10, len(slow)+len(deaf), senders*each)
	// The bound: what as many idle ones cost, the in-flight records of a window and one output buffer (64 KiB) each, and what
	// the pages of the catching-up leave in the allocator. Were messages queued, it would be 200 bytes x 100,000 for each.
	const perReader, slack = 96 << 10, 24 << 20
	bound := 2*max(withIdle-settled, 0) + int64(len(slow)+len(deaf))*perReader + slack
	if underRace {
		bound *= 10 // what the detector needs for itself
	}
	require.Less(t, withSlow-withIdle, bound)

	// What the kernel takes off the server's hands for the deaf ones is work too: without it the pace is the reader's alone.
	for _, conn := range append(slow, deaf...) {
		conn.Close()
	}
	for _, l := range bob {
		s.noticesGoing(l)
	}
	readAtOwnPace(s, bob[0], senders, each)
}

// fillInbox has every sender send its messages to a topic, all at full speed.
func fillInbox(s *server, senders [][]login, topic string, each int) {
	s.t.Helper()
	begin := time.Now()
	text := strings.Repeat("x", 100)
	var sending errgroup.Group
	for i, l := range senders {
		sending.Go(func() error {
			conn, err := s.dial(s.t.Context(), l[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			return pump(conn, each, func(n int) (string, string) {
				return topic, fmt.Sprintf(`{"id":"s%d-%d","type":"chat","content":{"type":"text","data":%q}}`, i, n, text)
			})
		})
	}
	require.NoError(s.t, sending.Wait())
	total := len(senders) * each
	s.t.Logf("%d messages sent in %s, %.0f a second", total, time.Since(begin).Round(time.Millisecond), float64(total)/time.Since(begin).Seconds())
}

// readAtOwnPace takes up the session of a reader that has acknowledged nothing, and reads with pauses until it has all.
func readAtOwnPace(s *server, l login, senders, each int) {
	t := s.t
	t.Helper()
	conn := s.mustDial(l)
	next := make([]int, senders) // the number that each sender's next message must have
	seq, got, waiting := uint64(0), 0, 0
	ack := packet.Ack{Type: packet.PUBACK}
	var p packet.Publish
	var out []byte
	begin := time.Now()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(2*time.Minute)))
	for got < senders*each {
		frame, err := conn.Reader.Next()
		require.NoError(t, err, "after %d messages", got)
		require.Equal(t, packet.PUBLISH, packet.TypeOf(frame[0]))
		require.NoError(t, p.Decode(conn.Version, frame))
		var sender, n int
		_, err = fmt.Sscanf(idOf(p.Payload), "s%d-%d", &sender, &n)
		require.NoError(t, err)
		if n != next[sender] || seqOf(&p) <= seq {
			t.Fatalf("message %d of sender %d at position %d, want %d after position %d", n, sender, seqOf(&p), next[sender], seq)
		}
		next[sender]++
		seq = seqOf(&p)
		got++
		if waiting++; waiting > 100 {
			t.Fatalf("%d messages without an acknowledgement: more than the server may have under way", waiting)
		}
		ack.PacketID = p.PacketID
		out = packet.AppendAck(out, conn.Version, &ack)
		// It takes 40 at a time and now and then does something else first.
		if waiting == 40 || got == senders*each {
			if got%2_000 == 0 {
				time.Sleep(20 * time.Millisecond) // its pace
			}
			_, err := conn.Write(out)
			require.NoError(t, err)
			out, waiting = out[:0], 0
		}
	}
	t.Logf("%d messages read in %s", got, time.Since(begin).Round(time.Millisecond))
	require.NoError(t, conn.Disconnect())
}

// mustDial is a light connection that ends with the test.
func (s *server) mustDial(l login) *client.Conn {
	s.t.Helper()
	conn, err := s.dial(context.Background(), l)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// settledRSS waits until the process's memory does not shrink or grow any more and returns it.
func (s *server) settledRSS() int64 {
	s.t.Helper()
	last, still := s.rss(), 0
	for deadline := time.Now().Add(patience); still < 10 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond) // memory is measured over time
		now := s.rss()
		if diff := now - last; diff < 256<<10 && diff > -256<<10 {
			still++
		} else {
			still = 0
		}
		last = now
	}
	return last
}
