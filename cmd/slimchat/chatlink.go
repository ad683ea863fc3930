package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

const (
	chatKeepAlive = 30 * time.Second
	// chatRetryMost bounds the pause between attempts to connect again.
	chatRetryMost = 10 * time.Second
	// chatSeen is how many messages are remembered so that none is shown twice.
	chatSeen = 10_000
	// chatOutbox bounds the messages that wait for their acknowledgement.
	chatOutbox = 1000
)

// chatLink is chat's MQTT connection: it connects again when it breaks and sends again, under the same ids, what was not
// acknowledged; the server delivers none of it twice.
type chatLink struct {
	options  client.Options
	me, peer im.Address
	show     func(line string)

	mu     sync.Mutex
	conn   *client.Conn // nil while there is none
	outbox []*outgoing  // in the order of sending
	flying int          // of outbox: sent over conn
	nextID uint16
	empty  chan struct{} // closed while the outbox is empty
	seen   map[string]struct{}
}

// outgoing is a message that the server has not acknowledged.
type outgoing struct {
	payload  []byte
	packetID uint16 // on this connection; 0: not sent over it
	again    bool   // an earlier connection may have carried it
}

func newChatLink(options client.Options, me, peer im.Address) *chatLink {
	l := &chatLink{options: options, me: me, peer: peer, seen: map[string]struct{}{}, empty: make(chan struct{})}
	close(l.empty)
	return l
}

// run keeps the link up until ctx ends, or the server refuses us for good.
func (l *chatLink) run(ctx context.Context) error {
	retry := time.Second
	for {
		err := l.connected(ctx, func() { retry = time.Second })
		if ctx.Err() != nil {
			return nil
		}
		if refusal := (*client.Refused)(nil); errors.As(err, &refusal) && !passing(refusal) {
			return err
		}
		l.show(fmt.Sprintf("! %v; trying again", err))
		select {
		case <-time.After(retry):
			retry = min(2*retry, chatRetryMost)
		case <-ctx.Done():
			return nil
		}
	}
}

// passing tells whether a refusal is of this moment only: the server goes down, or has too much to do.
func passing(r *client.Refused) bool {
	if r.What != "CONNECT" {
		return false
	}
	switch packet.Reason(r.Code) {
	case packet.ServerUnavailable, packet.ServerBusy, packet.ConnectionRateExceeded:
		return true
	}
	return false
}

// connected holds one connection: it subscribes, sends what waits and receives until the connection ends.
func (l *chatLink) connected(ctx context.Context, up func()) error {
	conn, err := client.Connect(ctx, l.options)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { l.goodbye(conn) })
	defer stop()
	if err := conn.Subscribe("$IM/#", 1, func(frame []byte) error { return l.handle(conn, frame) }); err != nil {
		return err
	}
	up()
	defer l.lost()
	if err := l.took(conn); err != nil {
		return err
	}
	pings := make(chan struct{})
	defer close(pings)
	go l.ping(conn, pings)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(2 * chatKeepAlive)); err != nil {
			return err
		}
		frame, err := conn.Reader.Next()
		if err != nil {
			return fmt.Errorf("the connection broke: %w", err)
		}
		if err := l.handle(conn, frame); err != nil {
			return err
		}
	}
}

// took makes conn the connection in use and sends the outbox over it.
func (l *chatLink) took(conn *client.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = conn
	return l.fly()
}

// lost leaves what the connection has not brought to an acknowledgement for the next one.
func (l *chatLink) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.outbox {
		m.again = m.again || m.packetID != 0
		m.packetID = 0
	}
	l.conn, l.flying = nil, 0
}

// fly sends what waits in the outbox, as much as the server takes at once. l.mu is held.
func (l *chatLink) fly() error {
	if l.conn == nil || l.flying == len(l.outbox) {
		return nil
	}
	for _, m := range l.outbox {
		if l.flying >= l.conn.SendMax {
			return nil
		}
		if m.packetID != 0 {
			continue
		}
		l.flying++
		if err := l.write(m); err != nil {
			return err
		}
	}
	return nil
}

func (l *chatLink) ping(conn *client.Conn, done <-chan struct{}) {
	ticker := time.NewTicker(chatKeepAlive / 2)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			l.mu.Lock()
			_, err := conn.Write(packet.AppendPingreq(nil))
			l.mu.Unlock()
			if err != nil {
				return // the reader finds out too
			}
		}
	}
}

// goodbye says that we leave on purpose and closes the connection.
func (l *chatLink) goodbye(conn *client.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := conn.Disconnect(); err != nil && !errors.Is(err, net.ErrClosed) {
		l.show("! " + err.Error())
	}
}

// send puts a text into the outbox, and on its way if there is a connection.
func (l *chatLink) send(text string) error {
	id := rand.Text()
	payload, err := json.Marshal(map[string]any{"id": id, "type": im.TypeChat, "content": map[string]string{"type": "text", "data": text}})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.outbox) >= chatOutbox {
		return errors.New("not sent: too much waits for the server already")
	}
	if len(l.outbox) == 0 {
		l.empty = make(chan struct{})
	}
	l.outbox = append(l.outbox, &outgoing{payload: payload})
	return l.fly()
}

// write publishes one message of the outbox. l.mu is held.
func (l *chatLink) write(m *outgoing) error {
	if l.nextID++; l.nextID == 0 {
		l.nextID = 1
	}
	m.packetID = l.nextID
	publish := packet.Publish{QoS: 1, Dup: m.again, PacketID: m.packetID, Topic: []byte(im.TopicPrefix + l.peer.String()), Payload: m.payload}
	if _, err := l.conn.Write(packet.AppendPublish(nil, l.conn.Version, &publish)); err != nil {
		return fmt.Errorf("will be sent once there is a connection again: %w", err)
	}
	return nil
}

// drained waits, for so long at the most, until everything was acknowledged.
func (l *chatLink) drained(ctx context.Context, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	l.mu.Lock()
	empty := l.empty
	l.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return errors.New("some messages were not acknowledged by the server")
	}
}

func (l *chatLink) handle(conn *client.Conn, frame []byte) error {
	switch packet.TypeOf(frame[0]) {
	case packet.PUBLISH:
		var publish packet.Publish
		if err := publish.Decode(conn.Version, frame); err != nil {
			return err
		}
		var m client.Message
		if err := json.Unmarshal(publish.Payload, &m); err == nil {
			l.received(&m)
		}
		if publish.QoS == 1 {
			l.mu.Lock()
			defer l.mu.Unlock()
			_, err := conn.Write(packet.AppendAck(nil, conn.Version, &packet.Ack{Type: packet.PUBACK, PacketID: publish.PacketID}))
			return err
		}
	case packet.PUBACK:
		var ack packet.Ack
		if err := ack.Decode(conn.Version, frame); err != nil {
			return err
		}
		if ack.Reason.Failed() {
			l.show("! not sent: " + harmless(string(ack.Props.Bytes(packet.ReasonString))))
		}
		return l.acknowledged(ack.PacketID)
	case packet.DISCONNECT:
		return client.Disconnected(conn.Version, frame)
	}
	return nil
}

// acknowledged takes a message out of the outbox, which makes room for the next one on its way.
func (l *chatLink) acknowledged(id uint16) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, m := range l.outbox {
		if m.packetID == id && id != 0 {
			l.flying--
			l.outbox = append(l.outbox[:i], l.outbox[i+1:]...)
			if len(l.outbox) == 0 {
				close(l.empty)
			}
			return l.fly()
		}
	}
	return nil
}

// received shows a message that was not shown before. Only people's messages are shown, not the events between programs.
func (l *chatLink) received(m *client.Message) {
	key := m.From + "\x00" + m.ID
	l.mu.Lock()
	_, twice := l.seen[key]
	if len(l.seen) >= chatSeen {
		clear(l.seen)
	}
	l.seen[key] = struct{}{}
	l.mu.Unlock()
	if twice || m.Type != im.TypeChat && m.Type != im.TypeGroupChat {
		return
	}
	l.show(formatMessage(m, l.me.String(), l.peer.String()))
}

// formatMessage is a message as the terminal shows it. Lines after the first are set in, so that no text can look like
// another message.
func formatMessage(m *client.Message, me, peer string) string {
	who := strings.TrimPrefix(m.From, "user/")
	switch {
	case m.From == me && m.To == peer:
		who = "me"
	case m.From == me:
		who = "me to " + m.To
	case m.From != peer:
		who = m.From // someone else than the one we talk with
	}
	head := time.UnixMilli(m.TS).Format("01-02 15:04") + " " + harmless(strings.ReplaceAll(who, "\n", " ")) + ": "
	return head + strings.ReplaceAll(harmless(m.Text()), "\n", "\n"+strings.Repeat(" ", 11)+"| ")
}
