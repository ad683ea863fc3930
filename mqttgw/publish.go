package mqttgw

import (
	"time"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
	"github.com/slimchat/slimchat/router"
)

// inbound is the state of a connection that publishes. The fields above the line belong
// to the reader, those below are guarded by conn.mu.
type inbound struct {
	packet  packet.Publish // its slices are kept between packets
	aliases []string       // topic aliases of 5.0, by number
	topic   string         // the last topic and what it means
	to      im.Address

	head, tail *pending        // publishes at QoS 1 and 2, in the order in which they came
	penalty    int             // refusals for being too fast that the reader has not paused for
	waiting    int             // publishes that the router has not answered
	inflight   int             // QoS 1 and 2 without PUBACK or PUBCOMP: what Receive Maximum bounds
	held       map[uint16]bool // QoS 2 identifiers until PUBREL; true once PUBREC is sent
}

// pending is one publish that the router has. Those at QoS 1 and 2 form a queue, because
// acknowledgements are due in the order of the publishes [MQTT-4.6.0-2] and the router
// answers as it can.
type pending struct {
	c      *conn
	next   *pending
	to     im.Address
	id     uint16
	qos    uint8
	done   bool
	reason packet.Reason
	text   string
	fn     router.Done // complete, bound once
}

func newPending() any {
	p := &pending{}
	p.fn = p.complete
	return p
}

// releaseLocked gives p back to the pool; nothing may touch it afterwards.
func (c *conn) releaseLocked(p *pending) {
	*p = pending{fn: p.fn}
	c.g.pendings.Put(p)
}

// publishing returns the connection's inbound state, made with its first publish.
func (c *conn) publishing() *inbound {
	if c.inbound == nil {
		in := &inbound{}
		c.mu.Lock()
		c.inbound = in
		c.mu.Unlock()
	}
	return c.inbound
}

func (c *conn) onPublish(frame []byte) error {
	in := c.publishing()
	p := &in.packet
	if err := p.Decode(c.version, frame); err != nil {
		return err
	}
	c.g.stats.publishes.Add(1)
	if c.version == packet.V5 {
		switch {
		case p.Retain:
			return refuse(packet.RetainNotSupported, "nothing is retained here") // 3.2.2.3.5
		case p.Props.Has(packet.SubscriptionID):
			return refuse(packet.ProtocolError, "a subscription identifier from a client") // [MQTT-3.3.4-6]
		}
	}
	if p.Props.Has(packet.TopicAlias) {
		if err := in.resolveAlias(p); err != nil {
			return err
		}
	}
	c.pause(in)
	again, err := c.reserve(in, p)
	if err != nil || again {
		return err
	}
	c.hand(in, p)
	return nil
}

// resolveAlias replaces or remembers a topic (section 3.3.2.3.4).
func (in *inbound) resolveAlias(p *packet.Publish) error {
	alias := int(p.Props.Uint(packet.TopicAlias, 0))
	if alias > topicAliasMaximum {
		return refuse(packet.InvalidTopicAlias, "a topic alias over the maximum") // [MQTT-3.3.2-9]
	}
	if in.aliases == nil {
		in.aliases = make([]string, topicAliasMaximum+1)
	}
	if len(p.Topic) > 0 {
		in.aliases[alias] = string(p.Topic)
		return nil
	}
	if in.aliases[alias] == "" {
		return refuse(packet.ProtocolError, "a topic alias that stands for nothing") // 3.3.4
	}
	p.Topic = bytesOf(in.aliases[alias])
	return nil
}

// pause slows down a client that is over its rate and does not mind the refusals, so that
// refusing it costs little: a millisecond for each.
func (c *conn) pause(in *inbound) {
	c.mu.Lock()
	penalty := in.penalty
	in.penalty = 0
	c.mu.Unlock()
	if penalty == 0 {
		return
	}
	pause := time.NewTimer(min(time.Duration(penalty)*time.Millisecond, longestPause))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-c.g.ctx.Done():
	}
}

// reserve makes room for one more publish, waiting where the standard gives no other way
// to slow a client down. again says that the identifier is held already, so that the
// publish is a repetition and must not be published twice.
func (c *conn) reserve(in *inbound, p *packet.Publish) (again bool, err error) {
	limit := c.g.opt.Limits.Inflight
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.QoS == 2 {
		if sent, held := in.held[p.PacketID]; held {
			if sent { // the PUBREC was lost with nothing else; send it again
				c.appendAckLocked(&packet.Ack{Type: packet.PUBREC, PacketID: p.PacketID})
				c.kickLocked()
			}
			return true, nil
		}
	}
	if p.QoS > 0 && c.version == packet.V5 && in.inflight >= limit {
		return false, refuse(packet.ReceiveMaximumExceeded, "more publishes in flight than the receive maximum") // 3.3.4
	}
	if p.QoS == 2 && len(in.held) >= maxHeld {
		return false, refuse(packet.ReceiveMaximumExceeded, "too many QoS 2 publishes that are not released")
	}
	if in.waiting >= limit {
		if err := c.waitLocked(func() bool { return in.waiting < limit }); err != nil {
			return false, err
		}
	}
	in.waiting++
	if p.QoS == 0 {
		return false, nil
	}
	in.inflight++
	if p.QoS == 2 {
		if in.held == nil {
			in.held = make(map[uint16]bool)
		}
		in.held[p.PacketID] = false
	}
	return false, nil
}

// hand gives a publish, for which there is room, to the router.
func (c *conn) hand(in *inbound, p *packet.Publish) {
	w := c.g.pendings.Get().(*pending)
	w.c, w.id, w.qos = c, p.PacketID, p.QoS
	if p.QoS > 0 {
		c.mu.Lock()
		if in.tail == nil {
			in.head = w
		} else {
			in.tail.next = w
		}
		in.tail = w
		c.mu.Unlock()
	}
	if string(p.Topic) != in.topic || in.topic == "" {
		topic := string(p.Topic)
		to, err := im.ParseTopic(topic)
		if err != nil {
			w.complete(router.Receipt{}, err)
			return
		}
		in.topic, in.to = topic, to.Local(c.g.opt.Domain)
	}
	w.to = in.to
	if len(p.Props.User) > im.MaxProperties {
		w.complete(router.Receipt{}, im.Errorf(im.CodeTooLarge, "", "more than %d user properties", im.MaxProperties))
		return
	}
	out := router.Publish{To: in.to, Payload: p.Payload, QoS: p.QoS, Again: p.Dup || c.suspect > 0}
	if c.suspect > 0 {
		c.suspect--
	}
	if !p.Props.Empty() {
		out.Expiry, out.Props = expiryOf(&p.Props), propertiesOf(&p.Props)
	}
	c.g.opt.Router.Publish(c.g.ctx, c.principal, out, w.fn)
}

// complete takes the router's answer. It is called once for each publish, on any
// goroutine, and must not block.
func (p *pending) complete(rc router.Receipt, err error) {
	c, qos, to := p.c, p.qos, p.to
	if err != nil {
		c.g.stats.publishesRefused.Add(1)
		refused := im.AsError(err)
		p.reason, p.text = publishReason(refused.Code), string(refused.Code)+": "+refused.Message
	}
	c.mu.Lock()
	in := c.inbound
	in.waiting--
	if err != nil && im.CodeOf(err) == im.CodeRateLimited {
		in.penalty++
	}
	p.done = true
	if qos == 0 {
		c.releaseLocked(p)
	} else {
		c.acknowledgeLocked(in)
	}
	c.wakeLocked()
	session := c.session
	c.mu.Unlock()
	// 5.0 has a reason code for the one that waits for an acknowledgement; all others
	// learn by an event (wire.md section 4).
	if err != nil && (qos == 0 || c.version != packet.V5) {
		session.SendTransient(errorEvent(c.g.opt.Node, c.principal, to, rc.ID, im.AsError(err), time.Now()))
	}
}

// acknowledgeLocked acknowledges what is done at the head of the queue.
func (c *conn) acknowledgeLocked(in *inbound) {
	appended := false
	for in.head != nil && in.head.done {
		p := in.head
		if in.head = p.next; in.head == nil {
			in.tail = nil
		}
		ack := packet.Ack{Type: packet.PUBACK, PacketID: p.id}
		if p.qos == 2 {
			ack.Type = packet.PUBREC
			in.held[p.id] = true
		}
		if p.reason != packet.Success && c.version == packet.V5 {
			ack.Reason = p.reason
			if !c.noProblem {
				ack.Props.SetBytes(packet.ReasonString, []byte(p.text))
			}
			delete(in.held, p.id) // [MQTT-4.3.3-9]: no PUBREL follows
		}
		if p.qos == 1 || ack.Reason.Failed() {
			in.inflight--
		}
		if !c.ending {
			c.appendAckLocked(&ack)
			appended = true
		}
		c.releaseLocked(p)
	}
	if appended {
		c.kickLocked()
	}
}

func (c *conn) appendAckLocked(ack *packet.Ack) {
	if ack.Props.Empty() {
		b := c.outLocked()
		b.data = packet.AppendAck(b.data, c.version, ack)
		return
	}
	c.appendFittingLocked(func(dst []byte) []byte { return packet.AppendAck(dst, c.version, ack) },
		func() { ack.Props.Reset() })
}

// onAck takes PUBACK, for what was delivered, and PUBREL, for what was published at QoS 2.
func (c *conn) onAck(frame []byte) error {
	var p packet.Ack
	if err := p.Decode(c.version, frame); err != nil {
		return err
	}
	switch p.Type {
	case packet.PUBACK:
		if c.session.Ack(p.PacketID) {
			c.g.stats.acked.Add(1)
		}
		return nil
	case packet.PUBREL:
		c.onRelease(p.PacketID)
		return nil
	}
	// Nothing is delivered at QoS 2.
	return refuse(packet.ProtocolError, p.Type.String()+" for nothing that was delivered at QoS 2")
}

func (c *conn) onRelease(id uint16) {
	in := c.publishing()
	c.mu.Lock()
	defer c.mu.Unlock()
	ack := packet.Ack{Type: packet.PUBCOMP, PacketID: id}
	switch sent, held := in.held[id]; {
	case held && sent:
		delete(in.held, id)
		in.inflight--
	case c.version == packet.V5:
		// 4.3.3: also for what an earlier connection published; see docs/mqtt.md.
		ack.Reason = packet.PacketIDNotFound
	}
	if !c.ending {
		c.appendAckLocked(&ack)
		c.kickLocked()
	}
}
