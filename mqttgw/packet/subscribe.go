package packet

// Subscription is one filter of a SUBSCRIBE with its options (section 3.8.3.1).
type Subscription struct {
	Filter            []byte
	QoS               uint8
	NoLocal           bool  // 5.0
	RetainAsPublished bool  // 5.0
	RetainHandling    uint8 // 5.0: 0 to 2
}

// Subscribe is a SUBSCRIBE packet (section 3.8). Whether the filters are well formed is
// for the receiver to judge, which answers each of them by itself.
type Subscribe struct {
	PacketID uint16
	Props    Properties
	Filters  []Subscription
}

// Decode reads one whole packet of version v.
func (p *Subscribe) Decode(v Version, frame []byte) error {
	c, err := open(frame, SUBSCRIBE)
	if err != nil {
		return err
	}
	p.Filters = p.Filters[:0]
	p.Props.Reset()
	p.PacketID = c.id()
	if v == V5 {
		p.Props.decode(&c, SUBSCRIBE)
	}
	if c.err == nil && len(c.b) == 0 {
		return protocolError("[MQTT-3.8.3-2]", "SUBSCRIBE without a filter")
	}
	for len(c.b) > 0 {
		s := Subscription{Filter: c.filter(len(p.Filters))}
		options := c.u8()
		s.QoS = options & 3
		if v == V5 {
			s.NoLocal, s.RetainAsPublished, s.RetainHandling = options&4 != 0, options&8 != 0, options>>4&3
		}
		switch {
		case c.err != nil:
		case s.QoS > highestGrantedQoS:
			c.fail(malformed("3.8.3.1", "subscription with QoS 3"))
		case v == V5 && options&0xC0 != 0, v == V311 && options&0xFC != 0:
			c.fail(malformed("[MQTT-3.8.3-5]", "reserved subscription options are set"))
		case s.RetainHandling > highestRetainHandling:
			c.fail(protocolError("3.8.3.1", "retain handling 3"))
		}
		p.Filters = append(p.Filters, s)
	}
	return c.done()
}

// filter reads a topic filter, the nth of its packet.
func (c *cursor) filter(n int) []byte {
	f := c.str()
	switch {
	case c.err != nil:
	case len(f) == 0:
		c.fail(malformed("[MQTT-4.7.3-1]", "an empty topic filter"))
	case n == MaxFilters:
		c.fail(&Error{QuotaExceeded, "", "too many filters in one packet"})
	}
	return f
}

// AppendSubscribe appends the packet in version v.
func AppendSubscribe(dst []byte, v Version, p *Subscribe) []byte {
	dst, start := begin(dst, byte(SUBSCRIBE)<<4|2)
	dst = appendU16(dst, p.PacketID)
	if v == V5 {
		dst = p.Props.append(dst, p.Props.size())
	}
	for i := range p.Filters {
		s := &p.Filters[i]
		options := s.QoS
		if v == V5 {
			options |= s.RetainHandling << 4
			if s.NoLocal {
				options |= 4
			}
			if s.RetainAsPublished {
				options |= 8
			}
		}
		dst = append(appendString(dst, s.Filter), options)
	}
	return end(dst, start)
}

// Unsubscribe is an UNSUBSCRIBE packet (section 3.10).
type Unsubscribe struct {
	PacketID uint16
	Props    Properties
	Filters  [][]byte
}

// Decode reads one whole packet of version v.
func (p *Unsubscribe) Decode(v Version, frame []byte) error {
	c, err := open(frame, UNSUBSCRIBE)
	if err != nil {
		return err
	}
	p.Filters = p.Filters[:0]
	p.Props.Reset()
	p.PacketID = c.id()
	if v == V5 {
		p.Props.decode(&c, UNSUBSCRIBE)
	}
	if c.err == nil && len(c.b) == 0 {
		return protocolError("[MQTT-3.10.3-2]", "UNSUBSCRIBE without a filter")
	}
	for len(c.b) > 0 {
		p.Filters = append(p.Filters, c.filter(len(p.Filters)))
	}
	return c.done()
}

// AppendUnsubscribe appends the packet in version v.
func AppendUnsubscribe(dst []byte, v Version, p *Unsubscribe) []byte {
	dst, start := begin(dst, byte(UNSUBSCRIBE)<<4|2)
	dst = appendU16(dst, p.PacketID)
	if v == V5 {
		dst = p.Props.append(dst, p.Props.size())
	}
	for _, f := range p.Filters {
		dst = appendString(dst, f)
	}
	return end(dst, start)
}

// SubAnswer is a SUBACK or UNSUBACK packet (sections 3.9 and 3.11).
type SubAnswer struct {
	Type     Type // SUBACK or UNSUBACK
	PacketID uint16
	Props    Properties
	Codes    []byte // one for each filter; none in an UNSUBACK of 3.1.1
}

// Decode reads one whole packet of version v, which must be one of the two.
func (p *SubAnswer) Decode(v Version, frame []byte) error {
	if len(frame) == 0 {
		return malformed("2.1.1", "an empty frame")
	}
	p.Type = TypeOf(frame[0])
	if p.Type != SUBACK && p.Type != UNSUBACK {
		return protocolError("2.1.2", p.Type.String()+" where SUBACK or UNSUBACK is due")
	}
	c, err := open(frame, p.Type)
	if err != nil {
		return err
	}
	p.Codes = nil
	p.Props.Reset()
	p.PacketID = c.id()
	if v == V5 {
		p.Props.decode(&c, p.Type)
	}
	if c.err != nil || p.Type == UNSUBACK && v == V311 {
		return c.done()
	}
	if len(c.b) == 0 {
		return protocolError("[MQTT-3.8.4-6]", p.Type.String()+" without a code")
	}
	p.Codes = c.b
	for _, code := range p.Codes {
		ok := code <= highestGrantedQoS || v == V5 && Reason(code).Failed() || code == SubscribeFailure311
		if p.Type == UNSUBACK {
			ok = Reason(code) == Success || Reason(code) == NoSubscriptionExisted || Reason(code).Failed()
		}
		if !ok {
			return malformed("[MQTT-3.9.3-2]", "a code that "+p.Type.String()+" does not have")
		}
	}
	return nil
}

// AppendSubAnswer appends the packet in version v.
func AppendSubAnswer(dst []byte, v Version, p *SubAnswer) []byte {
	dst, start := begin(dst, byte(p.Type)<<4)
	dst = appendU16(dst, p.PacketID)
	if v == V5 {
		dst = p.Props.append(dst, p.Props.size())
	}
	if v == V5 || p.Type == SUBACK {
		dst = append(dst, p.Codes...)
	}
	return end(dst, start)
}
