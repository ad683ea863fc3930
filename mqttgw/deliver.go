package mqttgw

import (
	"strconv"
	"time"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// maxTopic is the longest topic: a client's, in another domain.
const maxTopic = len("$IM/domain/") + 253 + len("/user/") + im.MaxIDBytes + len("/client/") + im.MaxIDBytes

var (
	_      delivery.Conn = (*conn)(nil)
	seqKey               = []byte("seq")
)

// Push implements delivery.Conn: it encodes one message into the output buffer.
func (c *conn) Push(d delivery.Push) bool {
	var (
		topic [maxTopic]byte
		seq   [20]byte
		users [4]packet.UserProperty
		p     packet.Publish
	)
	e := d.Entry
	p.QoS, p.PacketID, p.Dup, p.Payload = d.QoS, d.PacketID, d.Dup, e.Body
	p.Topic = appendTopic(topic[:0], e.To)
	if c.version == packet.V5 {
		p.Props.User = users[:0]
		setProperties(&p.Props, e)
		if e.Seq != 0 {
			p.Props.AddUser(seqKey, strconv.AppendUint(seq[:0], e.Seq, 10))
		}
	}
	size := packet.PublishSize(c.version, &p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		// Not taken, so that the session stays behind it and the next connection gets it,
		// at QoS 0 too. Ready never comes: Detach does, or another connection takes over.
		return false
	}
	if c.maxPacket > 0 && size > int(c.maxPacket) {
		c.g.stats.oversized.Add(1)
		if d.QoS > 0 {
			c.oversized = append(c.oversized, d.PacketID)
		}
		return true
	}
	if have := c.unwrittenLocked(); have > 0 && have+size > c.g.opt.Limits.Output {
		c.g.stats.outputFull.Add(1)
		c.refused = true
		c.kickLocked()
		return false
	}
	c.g.stats.delivered.Add(1)
	b := c.outLocked()
	b.data = packet.AppendPublish(b.data, c.version, &p)
	return true
}

// Flush implements delivery.Conn.
func (c *conn) Flush() {
	c.mu.Lock()
	if c.out != nil || len(c.oversized) > 0 {
		c.kickLocked()
	}
	c.mu.Unlock()
}

// setProperties sets what travelled with the message, and how long it is still good for
// [MQTT-3.3.2-6].
func setProperties(p *packet.Properties, e *im.Entry) {
	if e.Expires != 0 {
		left := time.Until(time.UnixMilli(e.Expires))
		p.SetUint(packet.MessageExpiry, uint32(max(1, (left+time.Second-1)/time.Second)))
	}
	if e.Props.PayloadUTF8 {
		p.SetUint(packet.PayloadFormat, 1)
	}
	if e.Props.ContentType != "" {
		p.SetBytes(packet.ContentType, bytesOf(e.Props.ContentType))
	}
	if e.Props.ResponseTopic != "" {
		p.SetBytes(packet.ResponseTopic, bytesOf(e.Props.ResponseTopic))
	}
	if e.Props.Correlation != "" {
		p.SetBytes(packet.CorrelationData, bytesOf(e.Props.Correlation))
	}
	for _, u := range e.Props.User {
		p.AddUser(bytesOf(u.Key), bytesOf(u.Value))
	}
}

// appendTopic is im.Address.Topic without a string.
func appendTopic(dst []byte, a im.Address) []byte {
	dst = append(dst, im.TopicPrefix...)
	if a.Domain != "" {
		dst = append(dst, "domain/"...)
		dst = append(dst, a.Domain...)
		dst = append(dst, '/')
	}
	switch a.Kind {
	case im.KindUser:
		return append(append(dst, "user/"...), a.ID...)
	case im.KindClient:
		dst = append(append(dst, "user/"...), a.ID...)
		return append(append(dst, "/client/"...), a.Client...)
	case im.KindNode:
		return append(append(dst, "node/"...), a.ID...)
	case im.KindRoom:
		return append(append(dst, "room/"...), a.ID...)
	}
	return dst
}
