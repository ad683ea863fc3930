package packet

import "bytes"

// Publish is a PUBLISH packet (section 3.3).
type Publish struct {
	Dup      bool
	QoS      uint8
	Retain   bool
	Topic    []byte // empty in 5.0 when a topic alias stands for it
	PacketID uint16 // only with QoS 1 and 2
	Props    Properties
	Payload  []byte
}

// Decode reads one whole packet of version v. It does not allocate, except to grow the
// slices of p.Props when there are more user properties than ever before.
func (p *Publish) Decode(v Version, frame []byte) error {
	c, err := open(frame, PUBLISH)
	if err != nil {
		return err
	}
	first := frame[0]
	p.Dup, p.QoS, p.Retain = first&8 != 0, first>>1&3, first&1 != 0
	p.PacketID = 0
	p.Topic = c.str()
	if p.QoS > 0 {
		p.PacketID = c.id()
	}
	if v == V5 {
		p.Props.decode(&c, PUBLISH)
	} else {
		p.Props.Reset()
	}
	if c.err != nil {
		return c.err
	}
	if len(p.Topic) == 0 && v == V5 {
		if !p.Props.Has(TopicAlias) {
			return protocolError("3.3.2.1", "neither a topic nor a topic alias")
		}
	} else {
		c.checkTopic(p.Topic)
	}
	p.Payload = c.b
	return c.err
}

// checkTopic checks what a topic name may not be; that it is UTF-8 is known.
func (c *cursor) checkTopic(topic []byte) {
	if len(topic) == 0 {
		c.fail(malformed("[MQTT-4.7.3-1]", "an empty topic"))
		return
	}
	if bytes.IndexByte(topic, '+') >= 0 || bytes.IndexByte(topic, '#') >= 0 {
		c.fail(malformed("[MQTT-3.3.2-2]", "a wildcard in a topic name"))
	}
}

// AppendPublish appends the packet in version v.
func AppendPublish(dst []byte, v Version, p *Publish) []byte {
	body, props := publishSize(v, p)
	dst = append(dst, publishFlags(p))
	dst = appendVarint(dst, body)
	dst = appendString(dst, p.Topic)
	if p.QoS > 0 {
		dst = appendU16(dst, p.PacketID)
	}
	if v == V5 {
		dst = p.Props.append(dst, props)
	}
	return append(dst, p.Payload...)
}

// PublishSize is the number of bytes that AppendPublish will append. The standard's
// largest packet is 256 MB; a larger one must not be appended.
func PublishSize(v Version, p *Publish) int {
	body, _ := publishSize(v, p)
	return 1 + varintLen(body) + body
}

func publishSize(v Version, p *Publish) (body, props int) {
	body = 2 + len(cut(p.Topic)) + len(p.Payload)
	if p.QoS > 0 {
		body += 2
	}
	if v == V5 {
		props = p.Props.size()
		body += varintLen(props) + props
	}
	return body, props
}

func publishFlags(p *Publish) byte {
	first := byte(PUBLISH)<<4 | p.QoS<<1
	if p.Dup && p.QoS > 0 {
		first |= 8
	}
	if p.Retain {
		first |= 1
	}
	return first
}

// Template is a PUBLISH encoded once for many receivers, which differ in the packet
// identifier and the DUP flag alone. It is immutable and safe for concurrent use.
type Template struct {
	data []byte
	id   int // where the packet identifier stands; 0 with QoS 0
}

// NewTemplate encodes p in version v. Its PacketID and Dup do not matter.
func NewTemplate(v Version, p *Publish) *Template {
	t := &Template{data: AppendPublish(make([]byte, 0, PublishSize(v, p)), v, p)}
	t.data[0] &^= 8
	if p.QoS > 0 {
		body, _ := publishSize(v, p)
		t.id = 1 + varintLen(body) + 2 + len(cut(p.Topic))
	}
	return t
}

// Size is the number of bytes that Append appends.
func (t *Template) Size() int { return len(t.data) }

// Append appends the packet for one receiver. id and dup are ignored with QoS 0.
func (t *Template) Append(dst []byte, id uint16, dup bool) []byte {
	start := len(dst)
	dst = append(dst, t.data...)
	if t.id == 0 {
		return dst
	}
	dst[start+t.id], dst[start+t.id+1] = byte(id>>8), byte(id)
	if dup {
		dst[start] |= 8
	}
	return dst
}
