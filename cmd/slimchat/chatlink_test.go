package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// scripted is a broker that does what the test says, and so things that a real one does only in trouble.
type scripted struct {
	t *testing.T
	l net.Listener
}

func newScripted(t *testing.T) *scripted {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return &scripted{t, l}
}

// chat runs a link to the broker until the test ends; what it shows goes to the channel.
func (s *scripted) chat() (link *chatLink, shown chan string, done chan error) {
	link = newChatLink(client.Options{
		Address: s.l.Addr().String(), Version: packet.V5, User: "alice", Password: "x", ClientID: "c", CleanStart: true,
	}, im.User("alice"), im.User("bob"))
	shown, done = make(chan string, 100), make(chan error, 1)
	link.show = func(line string) { shown <- line }
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		done <- link.run(ctx)
		close(done)
	}()
	s.t.Cleanup(func() {
		cancel()
		for range done {
		}
	})
	return link, shown, done
}

// accept takes the next connection and answers its CONNECT.
func (s *scripted) accept(ack packet.Connack) *peer {
	s.t.Helper()
	require.NoError(s.t, s.l.(*net.TCPListener).SetDeadline(time.Now().Add(20*time.Second)))
	nc, err := s.l.Accept()
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = nc.Close() })
	p := &peer{t: s.t, nc: nc, r: packet.NewReader(nc, 0)}
	p.next(packet.CONNECT)
	p.write(packet.AppendConnack(nil, packet.V5, &ack))
	return p
}

// peer is the broker's end of one connection.
type peer struct {
	t  *testing.T
	nc net.Conn
	r  *packet.Reader
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	_, err := p.nc.Write(b)
	require.NoError(p.t, err)
}

func (p *peer) next(want packet.Type) []byte {
	p.t.Helper()
	require.NoError(p.t, p.nc.SetReadDeadline(time.Now().Add(20*time.Second)))
	frame, err := p.r.Next()
	require.NoError(p.t, err)
	require.Equal(p.t, want, packet.TypeOf(frame[0]))
	return frame
}

// subscribed grants the one subscription.
func (p *peer) subscribed() {
	p.t.Helper()
	var sub packet.Subscribe
	require.NoError(p.t, sub.Decode(packet.V5, p.next(packet.SUBSCRIBE)))
	p.write(packet.AppendSubAnswer(nil, packet.V5, &packet.SubAnswer{Type: packet.SUBACK, PacketID: sub.PacketID, Codes: []byte{1}}))
}

// publish is the next message, of which text is part.
func (p *peer) publish(text string) (id uint16, dup bool) {
	p.t.Helper()
	var m packet.Publish
	require.NoError(p.t, m.Decode(packet.V5, p.next(packet.PUBLISH)))
	require.Contains(p.t, string(m.Payload), text)
	return m.PacketID, m.Dup
}

func (p *peer) acknowledge(id uint16) {
	p.t.Helper()
	p.write(packet.AppendAck(nil, packet.V5, &packet.Ack{Type: packet.PUBACK, PacketID: id}))
}

// nothing makes sure that the other end has sent nothing for a moment.
func (p *peer) nothing() {
	p.t.Helper()
	require.NoError(p.t, p.nc.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	_, err := p.nc.Read(make([]byte, 1))
	require.ErrorContains(p.t, err, "timeout")
}

func TestChatKeepsToTheReceiveMaximum(t *testing.T) {
	s := newScripted(t)
	link, _, _ := s.chat()
	for i := range 5 {
		require.NoError(t, link.send(fmt.Sprintf("text-%d", i)))
	}
	var two packet.Connack
	two.Props.SetUint(packet.ReceiveMaximum, 2)
	p := s.accept(two)
	p.subscribed()
	first, dup := p.publish("text-0")
	require.False(t, dup)
	p.publish("text-1")
	p.nothing()
	p.acknowledge(first)
	p.publish("text-2")
	p.nothing()
	require.NoError(t, p.nc.Close())

	// What was under way comes again, and says so; what was not, does not. The first is done.
	p = s.accept(two)
	p.subscribed()
	second, dup := p.publish("text-1")
	require.True(t, dup)
	third, dup := p.publish("text-2")
	require.True(t, dup)
	p.nothing()
	p.acknowledge(second)
	p.acknowledge(third)
	for i := 3; i < 5; i++ {
		id, dup := p.publish(fmt.Sprintf("text-%d", i))
		require.False(t, dup)
		p.acknowledge(id)
	}
	require.NoError(t, link.drained(t.Context(), 10*time.Second))
}

func TestChatTriesAgainWhenTheServerIsBusy(t *testing.T) {
	for _, reason := range []packet.Reason{packet.ServerUnavailable, packet.ServerBusy, packet.ConnectionRateExceeded} {
		t.Run(fmt.Sprintf("0x%02X", uint8(reason)), func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			link, shown, done := s.chat()
			require.NoError(t, link.send("patience"))
			s.accept(packet.Connack{Code: uint8(reason)})
			select {
			case line := <-shown:
				require.True(t, strings.HasSuffix(line, "; trying again"), line)
			case err := <-done:
				t.Fatalf("it gave up: %v", err)
			}
			p := s.accept(packet.Connack{})
			p.subscribed()
			id, _ := p.publish("patience")
			p.acknowledge(id)
			require.NoError(t, link.drained(t.Context(), 10*time.Second))
		})
	}
}

func TestChatEndsWhenItIsRefused(t *testing.T) {
	s := newScripted(t)
	_, _, done := s.chat()
	s.accept(packet.Connack{Code: uint8(packet.NotAuthorized)})
	var refused *client.Refused
	require.ErrorAs(t, <-done, &refused)
	require.Equal(t, uint8(packet.NotAuthorized), refused.Code)
}
