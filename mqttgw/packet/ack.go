package packet

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP packet (sections 3.4 to 3.7).
type Ack struct {
	Type     Type
	PacketID uint16
	Reason   Reason // 5.0 only
	Props    Properties
}

// Decode reads one whole packet of version v, which must be one of the four.
func (p *Ack) Decode(v Version, frame []byte) error {
	if len(frame) == 0 {
		return malformed("2.1.1", "an empty frame")
	}
	p.Type = TypeOf(frame[0])
	if p.Type < PUBACK || p.Type > PUBCOMP {
		return protocolError("2.1.2", p.Type.String()+" where an acknowledgement is due")
	}
	c, err := open(frame, p.Type)
	if err != nil {
		return err
	}
	p.Reason = Success
	p.Props.Reset()
	p.PacketID = c.id()
	if v == V5 && len(c.b) > 0 {
		p.Reason = Reason(c.u8())
		if !p.validReason() {
			return protocolError("[MQTT-3.4.2-1]", "a reason code that "+p.Type.String()+" does not have")
		}
		if len(c.b) > 0 {
			p.Props.decode(&c, p.Type)
		}
	}
	return c.done()
}

func (p *Ack) validReason() bool {
	if p.Type == PUBREL || p.Type == PUBCOMP {
		return p.Reason == Success || p.Reason == PacketIDNotFound
	}
	switch p.Reason {
	case Success, NoMatchingSubscribers, UnspecifiedError, ImplementationSpecific, NotAuthorized,
		InvalidTopicName, PacketIDInUse, QuotaExceeded, InvalidPayloadFormat:
		return true
	}
	return false
}

// AppendAck appends the packet in version v. It does not allocate.
func AppendAck(dst []byte, v Version, p *Ack) []byte {
	first := byte(p.Type) << 4
	if p.Type == PUBREL {
		first |= 2
	}
	id0, id1 := byte(p.PacketID>>8), byte(p.PacketID)
	switch {
	case v != V5 || p.Reason == Success && p.Props.Empty():
		return append(dst, first, 2, id0, id1)
	case p.Props.Empty():
		return append(dst, first, 3, id0, id1, byte(p.Reason))
	}
	dst, start := begin(dst, first)
	dst = append(dst, id0, id1, byte(p.Reason))
	dst = p.Props.append(dst, p.Props.size())
	return end(dst, start)
}
