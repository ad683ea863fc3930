package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// role is why a client gets a conversation.
type role uint8

const (
	notMine   role = iota
	addressee      // it was sent to the client's user, or to the client
	alsoMine       // another client of the same user sent it
)

// mailbox is what one client has received, over all its connections, and judges each message as it arrives.
type mailbox struct {
	w     *workload
	owner login

	mu      sync.Mutex
	since   []int // by conversation: only messages after this number are owed; nil before the first connection
	got     [][]bool
	order   []place // first deliveries as they came
	top     uint64  // the highest position that was delivered (5.0)
	repeats int
	events  int
}

// place is a message by its conversation and number.
type place struct{ conv, n int32 }

// role tells why the client should get a conversation.
func (b *mailbox) role(c *conversation) role {
	switch {
	case c.to == im.User(b.owner.User), c.to == im.Client(b.owner.User, b.owner.Client):
		return addressee
	case c.sender.User == b.owner.User && c.sender.Client != b.owner.Client && c.to.Kind == im.KindUser:
		return alsoMine
	}
	return notMine
}

// connected notes the first connection: from then on the client is owed all that is sent.
func (b *mailbox) connected() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since != nil {
		return
	}
	b.since = make([]int, len(b.w.convs))
	b.got = make([][]bool, len(b.w.convs))
	for i, c := range b.w.convs {
		b.since[i] = c.sentSoFar()
	}
}

// stream is one connection of a client.
type stream struct {
	version packet.Version
	last    uint64 // position of the last message (5.0)
}

var stampedError = []byte(`"type":"error"`)

// receive judges a PUBLISH.
func (b *mailbox) receive(s *stream, p *packet.Publish) {
	var m message
	if err := json.Unmarshal(p.Payload, &m); err != nil {
		b.problem("got a message that is not JSON: %v", err)
		return
	}
	conv, n, ours := parseID(b.w.tag, m.ID)
	if !ours || conv < 0 || conv >= len(b.w.convs) {
		if m.Type == im.TypeEvent && p.QoS == 0 {
			b.event(p.Payload)
			return
		}
		b.problem("got message %q of %s, which nobody sent", m.ID, m.From)
		return
	}
	c := b.w.convs[conv]
	mine := b.role(c)
	if mine == notMine {
		b.problem("got message %s from %s to %s, which is not for it", m.ID, c.sender.User, c.to)
		return
	}
	if n < 1 || n > c.sentSoFar() {
		b.problem("got message %s, which was never sent", m.ID)
		return
	}
	b.checkBody(c, n, mine, &m, p)
	seq := uint64(0)
	if s.version == packet.V5 {
		seq = b.checkPosition(s, c, n, mine, p)
	}
	b.note(c, n, seq)
}

func (b *mailbox) checkBody(c *conversation, n int, mine role, m *message, p *packet.Publish) {
	topic := c.to.Topic()
	if mine == alsoMine {
		topic = b.owner.inbox()
	}
	if m.From != c.sender.address() || m.Client != c.sender.Client || m.To != c.to.String() || m.Type != "chat" {
		b.problem("message %s says from %s client %s to %s type %s", m.ID, m.From, m.Client, m.To, m.Type)
	}
	if string(p.Topic) != topic || p.QoS != 1 || p.Retain {
		b.problem("message %s came on %s at QoS %d, retain %t", m.ID, p.Topic, p.QoS, p.Retain)
	}
	if want := fmt.Appendf(nil, `"content":{"type":"text","data":"%s"}`, b.w.text(c.index, n)); !bytes.Contains(p.Payload, want) {
		b.problem("message %s has another content", m.ID)
	}
}

// checkPosition checks the position that a client of MQTT 5.0 is told.
func (b *mailbox) checkPosition(s *stream, c *conversation, n int, mine role, p *packet.Publish) uint64 {
	seq, found := uint64(0), 0
	for _, u := range p.Props.User {
		if string(u.Key) == "seq" {
			seq, _ = strconv.ParseUint(string(u.Value), 10, 64)
			found++
		}
	}
	id := messageID(b.w.tag, c.index, n)
	if found != 1 || seq == 0 {
		b.problem("message %s has %d positions, %d", id, found, seq)
		return 0
	}
	if other, _ := c.place(n, seq, mine == alsoMine); other != 0 {
		b.problem("message %s is at position %d, and at %d before", id, seq, other)
	}
	if seq <= s.last {
		b.problem("message %s at position %d came after position %d on the same connection", id, seq, s.last)
	}
	s.last = seq
	return seq
}

// note keeps the delivery.
func (b *mailbox) note(c *conversation, n int, seq uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since == nil {
		b.w.problem(fmt.Sprintf("%s/%s got a message before it was ever connected", b.owner.User, b.owner.Client))
		return
	}
	got := b.got[c.index]
	for len(got) <= n {
		got = append(got, make([]bool, max(256, len(got)))...)
	}
	b.got[c.index] = got
	if got[n] {
		b.repeats++
		return
	}
	got[n] = true
	b.order = append(b.order, place{int32(c.index), int32(n)})
	if seq > 0 {
		if seq < b.top {
			b.w.problem(fmt.Sprintf("%s/%s got position %d for the first time after position %d", b.owner.User, b.owner.Client, seq, b.top))
		}
		b.top = max(b.top, seq)
	}
}

// event takes an event of the server's to this client: an error tells of a publish that was refused.
func (b *mailbox) event(body []byte) {
	b.mu.Lock()
	b.events++
	b.mu.Unlock()
	if !bytes.Contains(body, stampedError) {
		return
	}
	var m struct {
		From    string `json:"from"`
		Content struct {
			Data complaint `json:"data"`
		} `json:"content"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		b.problem("got an event that cannot be read: %v", err)
		return
	}
	conv, n, ours := parseID(b.w.tag, m.Content.Data.ID)
	if !ours || conv < 0 || conv >= len(b.w.convs) || b.w.convs[conv].sender.Client != b.owner.Client || b.w.convs[conv].sender.User != b.owner.User {
		b.problem("got an error event for message %q, which it did not send", m.Content.Data.ID)
		return
	}
	b.w.convs[conv].settle(n, declined)
	b.w.refusedBy(m.Content.Data)
}

// lacks counts the messages that the client is owed and has not got; the first few are named.
func (b *mailbox) lacks() (n int, first []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.w.convs {
		if b.since == nil || b.role(c) == notMine {
			continue
		}
		c.mu.Lock()
		got := b.got[c.index]
		for i := b.since[c.index] + 1; i <= c.last; i++ {
			if c.verdict[i] == acked && (i >= len(got) || !got[i]) {
				if n++; n <= 5 {
					first = append(first, fmt.Sprintf("%s@%d", messageID(b.w.tag, c.index, i), c.seq[i]))
				}
			}
		}
		c.mu.Unlock()
	}
	return n, first
}

func (b *mailbox) problem(format string, args ...any) {
	b.w.problem(b.owner.User + "/" + b.owner.Client + " " + fmt.Sprintf(format, args...))
}
