package packet

// Disconnect is a DISCONNECT packet (section 3.14). In 3.1.1 only clients send it, and it
// has no contents.
type Disconnect struct {
	Reason Reason
	Props  Properties
}

// Decode reads one whole packet of version v.
func (p *Disconnect) Decode(v Version, frame []byte) error {
	c, err := open(frame, DISCONNECT)
	if err != nil {
		return err
	}
	p.Reason = Success
	p.Props.Reset()
	if v == V5 && len(c.b) > 0 {
		p.Reason = Reason(c.u8())
		if p.Reason != Success && p.Reason != DisconnectWithWill && !p.Reason.Failed() {
			return protocolError("[MQTT-3.14.2-1]", "a reason code that DISCONNECT does not have")
		}
		if len(c.b) > 0 {
			p.Props.decode(&c, DISCONNECT)
		}
	}
	return c.done()
}

// AppendDisconnect appends the packet in version v.
func AppendDisconnect(dst []byte, v Version, p *Disconnect) []byte {
	first := byte(DISCONNECT) << 4
	switch {
	case v != V5 || p.Reason == Success && p.Props.Empty():
		return append(dst, first, 0)
	case p.Props.Empty():
		return append(dst, first, 1, byte(p.Reason))
	}
	dst, start := begin(dst, first)
	dst = append(dst, byte(p.Reason))
	dst = p.Props.append(dst, p.Props.size())
	return end(dst, start)
}

// Auth is an AUTH packet (section 3.15), which only 5.0 has.
type Auth struct {
	Reason Reason
	Props  Properties
}

// Decode reads one whole packet.
func (p *Auth) Decode(frame []byte) error {
	c, err := open(frame, AUTH)
	if err != nil {
		return err
	}
	p.Reason = Success
	p.Props.Reset()
	if len(c.b) > 0 {
		p.Reason = Reason(c.u8())
		p.Props.decode(&c, AUTH)
		switch p.Reason {
		case Success, ContinueAuthentication, ReAuthenticate:
		default:
			c.fail(protocolError("[MQTT-3.15.2-1]", "a reason code that AUTH does not have"))
		}
	}
	return c.done()
}

// AppendAuth appends the packet.
func AppendAuth(dst []byte, p *Auth) []byte {
	if p.Reason == Success && p.Props.Empty() {
		return append(dst, byte(AUTH)<<4, 0)
	}
	dst, start := begin(dst, byte(AUTH)<<4)
	dst = append(dst, byte(p.Reason))
	dst = p.Props.append(dst, p.Props.size())
	return end(dst, start)
}

// CheckPing checks a PINGREQ or PINGRESP, which have no contents (sections 3.12, 3.13).
func CheckPing(frame []byte) error {
	if len(frame) != 2 || frame[1] != 0 {
		return malformed("3.12.1", "a ping with contents")
	}
	return checkFirstByte(frame[0])
}

// AppendPingreq appends a PINGREQ.
func AppendPingreq(dst []byte) []byte { return append(dst, byte(PINGREQ)<<4, 0) }

// AppendPingresp appends a PINGRESP.
func AppendPingresp(dst []byte) []byte { return append(dst, byte(PINGRESP)<<4, 0) }
