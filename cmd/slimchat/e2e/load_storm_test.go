package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// storm is a crowd of clients, each of which knows what it was sent and what it has acknowledged.
type storm struct {
	s      *server
	crowd  []*member
	sender []login // four, of whom each writes to every fourth member
}

// member is one of the crowd. Its messages are numbered from 0; those below acked are acknowledged and may not come again.
type member struct {
	login
	number    int
	sent      int // messages that were sent to it and acknowledged to their sender
	acked     int
	delivered int // messages below this number have come at least once
}

// id of a member's message tells whose it is, so that a stranger's would show.
func (m *member) id(n int) string { return fmt.Sprintf("to-%05d-%d", m.number, n) }

// TestReconnectStorm has 2,000 clients come back at once after a restart; each must get what it missed, all of it and nothing
// else, in order, and again only what it had not acknowledged.
func TestReconnectStorm(t *testing.T) {
	clients := 2_000
	if testing.Short() || underRace {
		clients = 300
	}
	for _, how := range []string{"stopped", "killed"} {
		t.Run(how, func(t *testing.T) {
			c := newStorm(t, clients)
			c.connectAll(func(*member, *client.Conn) error { return nil }) // and so they have a session
			c.send(3)
			// They take the first three, and a third of them acknowledges only the first two: one more is owed to those.
			c.connectAll(func(m *member, conn *client.Conn) error {
				keep := 0
				if m.number%3 == 0 {
					keep = 1
				}
				return m.receive(conn, keep)
			})
			c.end(how)
			c.s.start()
			c.send(4)
			c.end(how)
			c.s.start()
			begin := time.Now()
			c.connectAll(func(m *member, conn *client.Conn) error { return m.receive(conn, 0) })
			t.Logf("%d clients had all that they missed %s after the restart", clients, time.Since(begin).Round(time.Millisecond))
			c.nobodyIsOwed()
		})
	}
}

func newStorm(t *testing.T, clients int) *storm {
	s := startServer(t, fast)
	c := &storm{s: s}
	for i, l := range s.mint(names("member", clients), oneClient) {
		c.crowd = append(c.crowd, &member{login: l[0], number: i})
	}
	for _, l := range s.mint(names("sender", 4), oneClient) {
		c.sender = append(c.sender, l[0])
	}
	return c
}

// end stops the process in one way or the other. Cursors that a crash takes back by up to a second would repeat messages that
// were acknowledged, which is allowed, but not told apart from a fault by this test: it waits until they are written.
func (c *storm) end(how string) {
	if how == "stopped" {
		c.s.stop()
		return
	}
	time.Sleep(2 * time.Second) // the server does not tell when it has written its cursors
	c.s.kill()
}

// send sends everybody n more messages.
func (c *storm) send(n int) {
	c.s.t.Helper()
	var sending errgroup.Group
	for i, l := range c.sender {
		sending.Go(func() error {
			conn, err := c.s.dial(c.s.t.Context(), l)
			if err != nil {
				return err
			}
			defer conn.Close()
			// One sender for each member, so that a member's messages have one order.
			mine := (len(c.crowd) - i + len(c.sender) - 1) / len(c.sender)
			return pump(conn, mine*n, func(k int) (string, string) {
				m := c.crowd[i+k%mine*len(c.sender)]
				return m.inbox(), chat(m.id(m.sent + k/mine))
			})
		})
	}
	require.NoError(c.s.t, sending.Wait())
	for _, m := range c.crowd {
		m.sent += n
	}
}

// connectAll connects everybody at once, each with its session of before, lets each do something and leave, without a goodbye.
func (c *storm) connectAll(do func(m *member, conn *client.Conn) error) {
	c.s.t.Helper()
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		failures []error
	)
	ctx, cancel := context.WithTimeout(c.s.t.Context(), time.Minute)
	defer cancel()
	for _, m := range c.crowd {
		wg.Go(func() {
			if err := c.visit(ctx, m, do); err != nil {
				mu.Lock()
				failures = append(failures, fmt.Errorf("%s: %w", m.User, err))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(failures) > 0 {
		c.s.t.Fatalf("%d of %d clients failed, such as:\n%v", len(failures), len(c.crowd), errors.Join(failures[:min(5, len(failures))]...))
	}
}

func (c *storm) visit(ctx context.Context, m *member, do func(m *member, conn *client.Conn) error) error {
	conn, err := c.s.dial(ctx, m.login)
	if err != nil {
		return err
	}
	defer conn.Close()
	if !conn.SessionPresent {
		if m.sent > 0 {
			return errors.New("the server has forgotten the session")
		}
		if _, err := subscribeLight(conn, m.inbox(), 1); err != nil {
			return err
		}
	}
	return do(m, conn)
}

// receive takes everything that the member is owed and leaves the last keep messages without an acknowledgement. Then it makes
// sure that no more comes.
func (m *member) receive(conn *client.Conn, keep int) error {
	deadline := time.Now().Add(time.Minute)
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	var held []uint16
	want := m.acked
	for want < m.sent {
		var p packet.Publish
		frame, err := conn.Reader.Next()
		if err != nil {
			return fmt.Errorf("message %d of %d: %w", want, m.sent, err)
		}
		if packet.TypeOf(frame[0]) == packet.DISCONNECT {
			return client.Disconnected(conn.Version, frame)
		}
		if err := p.Decode(conn.Version, frame); err != nil {
			return err
		}
		if got := idOf(p.Payload); got != m.id(want) || string(p.Topic) != m.inbox() {
			return fmt.Errorf("got %s on %s, want %s", got, p.Topic, m.id(want))
		}
		if again := want < m.delivered; p.Dup && !again {
			return fmt.Errorf("%s comes as a repetition for the first time", m.id(want))
		}
		held = append(held, p.PacketID)
		want++
	}
	m.delivered = m.sent
	var out []byte
	for _, id := range held[:max(len(held)-keep, 0)] {
		out = packet.AppendAck(out, conn.Version, &packet.Ack{Type: packet.PUBACK, PacketID: id})
		m.acked++
	}
	return m.silent(conn, out)
}

// silent sends what is left to send and a ping, whose answer must come next.
func (m *member) silent(conn *client.Conn, out []byte) error {
	if _, err := conn.Write(packet.AppendPingreq(out)); err != nil {
		return err
	}
	frame, err := conn.Reader.Next()
	if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
		return errors.New("no answer to a ping")
	}
	if err != nil {
		return err
	}
	if got := packet.TypeOf(frame[0]); got != packet.PINGRESP {
		return fmt.Errorf("got %s beyond what it was owed: %x", got, frame)
	}
	return nil
}

// nobodyIsOwed connects everybody once more: nothing may come.
func (c *storm) nobodyIsOwed() {
	c.s.t.Helper()
	c.connectAll(func(m *member, conn *client.Conn) error {
		if m.acked != m.sent {
			return fmt.Errorf("%d of %d messages acknowledged", m.acked, m.sent)
		}
		return m.silent(conn, nil)
	})
}
