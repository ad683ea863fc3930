package packet

import "bytes"

// Connect is a CONNECT packet (section 3.1).
type Connect struct {
	Version     Version
	CleanStart  bool   // Clean Session in 3.1.1
	KeepAlive   uint16 // seconds, 0: none
	Props       Properties
	ClientID    []byte
	Will        bool
	WillQoS     uint8
	WillRetain  bool
	WillProps   Properties
	WillTopic   []byte
	WillPayload []byte
	HasUsername bool
	Username    []byte
	HasPassword bool
	Password    []byte
}

const (
	connectReserved = 1 << iota
	connectClean
	connectWill
	_
	_
	connectWillRetain
	connectPassword
	connectUsername
)

// Decode reads one whole packet. When the protocol name or level is not one that this
// package speaks, the error has the reason UnsupportedVersion and Version is what the
// packet stated; nothing else is read then.
func (p *Connect) Decode(frame []byte) error {
	c, err := open(frame, CONNECT)
	if err != nil {
		return err
	}
	p.reset()
	name := c.binary()
	p.Version = Version(c.u8())
	if c.err != nil {
		return c.err
	}
	if !bytes.Equal(name, protocolName) || p.Version != V311 && p.Version != V5 {
		return &Error{UnsupportedVersion, "[MQTT-3.1.2-2]", unsupportedNameOrLevel}
	}
	flags := c.u8()
	if err := p.setFlags(flags); err != nil {
		return err
	}
	p.KeepAlive = c.u16()
	if p.Version == V5 {
		p.Props.decode(&c, CONNECT)
		if p.Props.Has(AuthData) && !p.Props.Has(AuthMethod) {
			c.fail(protocolError("3.1.2.11.10", "authentication data without a method"))
		}
	}
	p.ClientID = c.str()
	if p.Will {
		if p.Version == V5 {
			p.WillProps.decode(&c, will)
		}
		p.WillTopic = c.str()
		p.WillPayload = c.binary()
		if c.err == nil {
			c.checkTopic(p.WillTopic)
		}
	}
	if p.HasUsername {
		p.Username = c.str()
	}
	if p.HasPassword {
		p.Password = c.binary()
	}
	return c.done()
}

var protocolName = []byte("MQTT")

func (p *Connect) reset() {
	p.Props.Reset()
	p.WillProps.Reset()
	*p = Connect{Props: p.Props, WillProps: p.WillProps}
}

func (p *Connect) setFlags(flags byte) error {
	p.CleanStart = flags&connectClean != 0
	p.Will = flags&connectWill != 0
	p.WillQoS = flags >> 3 & 3
	p.WillRetain = flags&connectWillRetain != 0
	p.HasPassword = flags&connectPassword != 0
	p.HasUsername = flags&connectUsername != 0
	switch {
	case flags&connectReserved != 0:
		return malformed("[MQTT-3.1.2-3]", "the reserved connect flag is set")
	case p.WillQoS == 3:
		return malformed("[MQTT-3.1.2-12]", "will QoS 3")
	case !p.Will && (p.WillQoS != 0 || p.WillRetain):
		return malformed("[MQTT-3.1.2-11]", "will flags without a will")
	case p.Version == V311 && p.HasPassword && !p.HasUsername:
		return malformed("3.1.1 [MQTT-3.1.2-22]", "a password without a user name")
	}
	return nil
}

// AppendConnect appends the packet in p.Version.
func AppendConnect(dst []byte, p *Connect) []byte {
	dst, start := begin(dst, byte(CONNECT)<<4)
	dst = appendString(dst, protocolName)
	var flags byte
	for _, f := range [...]struct {
		on  bool
		bit byte
	}{
		{p.CleanStart, connectClean},
		{p.Will, connectWill | p.WillQoS<<3},
		{p.Will && p.WillRetain, connectWillRetain},
		{p.HasPassword, connectPassword},
		{p.HasUsername, connectUsername},
	} {
		if f.on {
			flags |= f.bit
		}
	}
	dst = append(dst, byte(p.Version), flags, byte(p.KeepAlive>>8), byte(p.KeepAlive))
	if p.Version == V5 {
		dst = p.Props.append(dst, p.Props.size())
	}
	dst = appendString(dst, p.ClientID)
	if p.Will {
		if p.Version == V5 {
			dst = p.WillProps.append(dst, p.WillProps.size())
		}
		dst = appendString(dst, p.WillTopic)
		dst = appendString(dst, p.WillPayload)
	}
	if p.HasUsername {
		dst = appendString(dst, p.Username)
	}
	if p.HasPassword {
		dst = appendString(dst, p.Password)
	}
	return end(dst, start)
}

// Connack is a CONNACK packet (section 3.2).
type Connack struct {
	SessionPresent bool
	Code           uint8 // a Reason in 5.0, a return code 0 to 5 in 3.1.1
	Props          Properties
}

// Decode reads one whole packet of version v.
func (p *Connack) Decode(v Version, frame []byte) error {
	c, err := open(frame, CONNACK)
	if err != nil {
		return err
	}
	p.Props.Reset()
	flags := c.u8()
	p.SessionPresent, p.Code = flags == 1, c.u8()
	switch {
	case flags > 1:
		return malformed("[MQTT-3.2.2-1]", "reserved acknowledge flags are set")
	case p.SessionPresent && p.Code != 0:
		return protocolError("[MQTT-3.2.2-6]", "session present with an error")
	case v == V311 && p.Code > highestReturnCode311, v == V5 && p.Code > 0 && !Reason(p.Code).Failed():
		return malformed("[MQTT-3.2.2-8]", "a code that CONNACK does not have")
	}
	if v == V5 {
		p.Props.decode(&c, CONNACK)
	}
	return c.done()
}

// AppendConnack appends the packet in version v.
func AppendConnack(dst []byte, v Version, p *Connack) []byte {
	dst, start := begin(dst, byte(CONNACK)<<4)
	present := byte(0)
	if p.SessionPresent {
		present = 1
	}
	dst = append(dst, present, p.Code)
	if v == V5 {
		dst = p.Props.append(dst, p.Props.size())
	}
	return end(dst, start)
}
