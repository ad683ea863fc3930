package packet

import (
	"bytes"
	"math/bits"
)

// PropertyID identifies a property (section 2.2.2.2).
type PropertyID uint8

// The properties of MQTT 5.0.
const (
	PayloadFormat        PropertyID = 0x01
	MessageExpiry        PropertyID = 0x02 // seconds
	ContentType          PropertyID = 0x03
	ResponseTopic        PropertyID = 0x08
	CorrelationData      PropertyID = 0x09
	SubscriptionID       PropertyID = 0x0B // in Properties.SubscriptionIDs
	SessionExpiry        PropertyID = 0x11 // seconds, 0xFFFFFFFF: never
	AssignedClientID     PropertyID = 0x12
	ServerKeepAlive      PropertyID = 0x13 // seconds
	AuthMethod           PropertyID = 0x15
	AuthData             PropertyID = 0x16
	RequestProblemInfo   PropertyID = 0x17
	WillDelay            PropertyID = 0x18 // seconds
	RequestResponseInfo  PropertyID = 0x19
	ResponseInfo         PropertyID = 0x1A
	ServerReference      PropertyID = 0x1C
	ReasonString         PropertyID = 0x1F
	ReceiveMaximum       PropertyID = 0x21
	TopicAliasMaximum    PropertyID = 0x22
	TopicAlias           PropertyID = 0x23
	MaximumQoS           PropertyID = 0x24
	RetainAvailable      PropertyID = 0x25
	User                 PropertyID = 0x26 // in Properties.User
	MaximumPacketSize    PropertyID = 0x27 // bytes
	WildcardSubAvailable PropertyID = 0x28
	SubIDAvailable       PropertyID = 0x29
	SharedSubAvailable   PropertyID = 0x2A
	propertyIDs                     = 0x2B
)

type propertyKind uint8

const (
	unknownKind propertyKind = iota
	flagKind                 // a byte, 0 or 1
	u16Kind
	u32Kind
	stringKind
	binaryKind
	subIDKind
	userKind
)

// will stands for the will properties of CONNECT, which are a set of their own.
const will Type = 0

func on(types ...Type) (set uint16) {
	for _, t := range types {
		set |= 1 << t
	}
	return set
}

type propertyRule struct {
	kind    propertyKind
	slot    uint8  // in Properties.num or Properties.str
	nonZero bool   // zero is a protocol error
	on      uint16 // the packets that may carry it
}

var answers = on(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)

var propertyRules = [propertyIDs]propertyRule{
	PayloadFormat:        {flagKind, 0, false, on(PUBLISH, will)},
	MessageExpiry:        {u32Kind, 1, false, on(PUBLISH, will)},
	ContentType:          {stringKind, 0, false, on(PUBLISH, will)},
	ResponseTopic:        {stringKind, 1, false, on(PUBLISH, will)},
	CorrelationData:      {binaryKind, 2, false, on(PUBLISH, will)},
	SubscriptionID:       {subIDKind, 0, true, on(PUBLISH, SUBSCRIBE)},
	SessionExpiry:        {u32Kind, 2, false, on(CONNECT, CONNACK, DISCONNECT)},
	AssignedClientID:     {stringKind, 3, false, on(CONNACK)},
	ServerKeepAlive:      {u16Kind, 3, false, on(CONNACK)},
	AuthMethod:           {stringKind, 4, false, on(CONNECT, CONNACK, AUTH)},
	AuthData:             {binaryKind, 5, false, on(CONNECT, CONNACK, AUTH)},
	RequestProblemInfo:   {flagKind, 4, false, on(CONNECT)},
	WillDelay:            {u32Kind, 5, false, on(will)},
	RequestResponseInfo:  {flagKind, 6, false, on(CONNECT)},
	ResponseInfo:         {stringKind, 6, false, on(CONNACK)},
	ServerReference:      {stringKind, 7, false, on(CONNACK, DISCONNECT)},
	ReasonString:         {stringKind, 8, false, answers},
	ReceiveMaximum:       {u16Kind, 7, true, on(CONNECT, CONNACK)},
	TopicAliasMaximum:    {u16Kind, 8, false, on(CONNECT, CONNACK)},
	TopicAlias:           {u16Kind, 9, true, on(PUBLISH)},
	MaximumQoS:           {flagKind, 10, false, on(CONNACK)},
	RetainAvailable:      {flagKind, 11, false, on(CONNACK)},
	User:                 {userKind, 0, false, answers | on(will, CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE)},
	MaximumPacketSize:    {u32Kind, 12, true, on(CONNECT, CONNACK)},
	WildcardSubAvailable: {flagKind, 13, false, on(CONNACK)},
	SubIDAvailable:       {flagKind, 14, false, on(CONNACK)},
	SharedSubAvailable:   {flagKind, 15, false, on(CONNACK)},
}

// UserProperty is a name and value of the application's.
type UserProperty struct{ Key, Value []byte }

// Properties holds the properties of one packet. The zero value is an empty set. In
// packets of MQTT 3.1.1 it is empty when decoded and ignored when encoded.
type Properties struct {
	set uint64 // by PropertyID; SubscriptionID and User are told by their slices
	num [16]uint32
	str [9][]byte

	SubscriptionIDs []uint32
	User            []UserProperty
}

// Reset empties p and keeps its memory.
func (p *Properties) Reset() {
	p.set = 0
	p.SubscriptionIDs = p.SubscriptionIDs[:0]
	p.User = p.User[:0]
}

// Has tells whether the property is present.
func (p *Properties) Has(id PropertyID) bool {
	switch id {
	case SubscriptionID:
		return len(p.SubscriptionIDs) > 0
	case User:
		return len(p.User) > 0
	}
	return p.set&(1<<id) != 0
}

// Empty tells whether p holds no property at all.
func (p *Properties) Empty() bool {
	return p.set == 0 && len(p.User) == 0 && len(p.SubscriptionIDs) == 0
}

// Uint returns the value of a numeric property, or def when it is absent.
func (p *Properties) Uint(id PropertyID, def uint32) uint32 {
	if p.set&(1<<id) == 0 {
		return def
	}
	return p.num[propertyRules[id].slot]
}

// Bytes returns the value of a string or binary property, nil when it is absent.
func (p *Properties) Bytes(id PropertyID) []byte {
	if p.set&(1<<id) == 0 {
		return nil
	}
	return p.str[propertyRules[id].slot]
}

// SetUint sets a numeric property. It must be one of the flags and integers.
func (p *Properties) SetUint(id PropertyID, v uint32) {
	p.num[propertyRules[id].slot] = v
	p.set |= 1 << id
}

// SetBytes sets a string or binary property; v is kept, not copied.
func (p *Properties) SetBytes(id PropertyID, v []byte) {
	p.str[propertyRules[id].slot] = v
	p.set |= 1 << id
}

// AddUser adds a user property; the slices are kept, not copied.
func (p *Properties) AddUser(key, value []byte) {
	p.User = append(p.User, UserProperty{key, value})
}

// decode reads the property length and the properties that a packet of type t may have.
func (p *Properties) decode(c *cursor, t Type) {
	p.Reset()
	n := c.varint()
	if n > len(c.b) {
		c.short()
		return
	}
	if n == 0 {
		return
	}
	in := cursor{b: c.b[:n]}
	c.b = c.b[n:]
	for len(in.b) > 0 {
		id := PropertyID(in.u8()) // all identifiers have one byte
		if id >= propertyIDs || propertyRules[id].on&(1<<t) == 0 {
			c.fail(malformed("2.2.2.2", "a property that this packet may not have"))
			return
		}
		p.decodeOne(&in, t, id)
	}
	if in.err != nil {
		c.fail(in.err)
	}
}

func (p *Properties) decodeOne(in *cursor, t Type, id PropertyID) {
	rule := &propertyRules[id]
	if p.set&(1<<id) != 0 {
		in.fail(protocolError("2.2.2.2", "a property occurs twice"))
		return
	}
	var v uint32
	switch rule.kind {
	case flagKind:
		if v = uint32(in.u8()); v > 1 {
			in.fail(protocolError("2.2.2.2", "a flag property is neither 0 nor 1"))
		}
	case u16Kind:
		v = uint32(in.u16())
	case u32Kind:
		v = in.u32()
	case subIDKind:
		p.decodeSubID(in, t)
		return
	case userKind:
		if len(p.User) == MaxUserProperties {
			in.fail(&Error{QuotaExceeded, "3.3.2.3.7", "too many user properties"})
			return
		}
		key := in.str()
		p.User = append(p.User, UserProperty{key, in.str()})
		return
	default:
		p.decodeBytes(in, id)
		return
	}
	if rule.nonZero && v == 0 && in.err == nil {
		if id == TopicAlias {
			in.fail(&Error{InvalidTopicAlias, "[MQTT-3.3.2-8]", "topic alias 0"})
			return
		}
		in.fail(protocolError("2.2.2.2", "a property is zero that may not be"))
	}
	p.num[rule.slot] = v
	p.set |= 1 << id
}

func (p *Properties) decodeBytes(in *cursor, id PropertyID) {
	var v []byte
	if propertyRules[id].kind == binaryKind {
		v = in.binary()
	} else {
		v = in.str()
	}
	if id == ResponseTopic && in.err == nil {
		if len(v) == 0 || bytes.ContainsAny(v, "+#") {
			in.fail(protocolError("[MQTT-3.3.2-14]", "the response topic is empty or has wildcards"))
		}
	}
	p.str[propertyRules[id].slot] = v
	p.set |= 1 << id
}

func (p *Properties) decodeSubID(in *cursor, t Type) {
	v := in.varint()
	switch {
	case in.err != nil:
		return
	case v == 0:
		in.fail(protocolError("3.8.2.1.2", "subscription identifier 0"))
	case t == SUBSCRIBE && len(p.SubscriptionIDs) > 0:
		in.fail(protocolError("3.8.2.1.2", "a property occurs twice"))
	case len(p.SubscriptionIDs) == MaxUserProperties:
		in.fail(&Error{QuotaExceeded, "3.3.2.3.8", "too many subscription identifiers"})
	default:
		p.SubscriptionIDs = append(p.SubscriptionIDs, uint32(v))
	}
}

// size is the number of bytes of the properties without their length.
func (p *Properties) size() int {
	n := 0
	for set := p.set; set != 0; set &= set - 1 {
		rule := &propertyRules[bits.TrailingZeros64(set)]
		switch rule.kind {
		case flagKind:
			n += 2
		case u16Kind:
			n += 3
		case u32Kind:
			n += 5
		default:
			n += 3 + len(cut(p.str[rule.slot]))
		}
	}
	for _, id := range p.SubscriptionIDs {
		n += 1 + varintLen(int(id))
	}
	for i := range p.User {
		n += 5 + len(cut(p.User[i].Key)) + len(cut(p.User[i].Value))
	}
	return n
}

// append writes the property length, which size has computed, and the properties.
func (p *Properties) append(dst []byte, size int) []byte {
	dst = appendVarint(dst, size)
	for set := p.set; set != 0; set &= set - 1 {
		id := bits.TrailingZeros64(set)
		rule := &propertyRules[id]
		dst = append(dst, byte(id))
		switch v := p.num[rule.slot]; rule.kind {
		case flagKind:
			dst = append(dst, byte(v))
		case u16Kind:
			dst = append(dst, byte(v>>8), byte(v))
		case u32Kind:
			dst = append(dst, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
		default:
			dst = appendString(dst, p.str[rule.slot])
		}
	}
	for _, id := range p.SubscriptionIDs {
		dst = append(dst, byte(SubscriptionID))
		dst = appendVarint(dst, int(id))
	}
	for i := range p.User {
		dst = append(dst, byte(User))
		dst = appendString(dst, p.User[i].Key)
		dst = appendString(dst, p.User[i].Value)
	}
	return dst
}
