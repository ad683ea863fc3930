package packet_test

import (
	"bytes"
	"testing"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// reencode decodes one frame into fresh structs and encodes it again. Two frames that say
// the same give the same bytes, for the order of properties becomes that of their ids.
func reencode(v packet.Version, frame []byte) ([]byte, error) {
	if _, err := packet.Frame(frame, 0); err != nil {
		return nil, err
	}
	switch packet.TypeOf(frame[0]) {
	case packet.CONNECT:
		var p packet.Connect
		err := p.Decode(frame)
		return packet.AppendConnect(nil, &p), err
	case packet.CONNACK:
		var p packet.Connack
		err := p.Decode(v, frame)
		return packet.AppendConnack(nil, v, &p), err
	case packet.PUBLISH:
		var p packet.Publish
		err := p.Decode(v, frame)
		return packet.AppendPublish(nil, v, &p), err
	case packet.SUBSCRIBE:
		var p packet.Subscribe
		err := p.Decode(v, frame)
		return packet.AppendSubscribe(nil, v, &p), err
	case packet.UNSUBSCRIBE:
		var p packet.Unsubscribe
		err := p.Decode(v, frame)
		return packet.AppendUnsubscribe(nil, v, &p), err
	case packet.SUBACK, packet.UNSUBACK:
		var p packet.SubAnswer
		err := p.Decode(v, frame)
		return packet.AppendSubAnswer(nil, v, &p), err
	case packet.PINGREQ:
		return packet.AppendPingreq(nil), packet.CheckPing(frame)
	case packet.PINGRESP:
		return packet.AppendPingresp(nil), packet.CheckPing(frame)
	case packet.DISCONNECT:
		var p packet.Disconnect
		err := p.Decode(v, frame)
		return packet.AppendDisconnect(nil, v, &p), err
	case packet.AUTH:
		var p packet.Auth
		err := p.Decode(frame)
		return packet.AppendAuth(nil, &p), err
	default:
		var p packet.Ack
		err := p.Decode(v, frame)
		return packet.AppendAck(nil, v, &p), err
	}
}

type sample struct {
	name  string
	frame []byte
}

// samples are packets with everything in them that the version has.
func samples(v packet.Version) []sample {
	five := v == packet.V5
	user := func(p *packet.Properties) {
		if five {
			p.AddUser([]byte("k"), []byte("v"))
			p.AddUser([]byte("k"), []byte("schön"))
		}
	}
	reason := func(p *packet.Properties) {
		user(p)
		if five {
			p.SetBytes(packet.ReasonString, []byte("because"))
		}
	}
	var list []sample
	add := func(name string, frame []byte) { list = append(list, sample{name, frame}) }

	connect := fullConnect(v)
	user(&connect.Props)
	user(&connect.WillProps)
	add("connect", packet.AppendConnect(nil, connect))
	add("connect/min", packet.AppendConnect(nil, &packet.Connect{Version: v, CleanStart: true}))

	connack := &packet.Connack{SessionPresent: true}
	if five {
		fillConnack(&connack.Props)
		reason(&connack.Props)
	}
	add("connack", packet.AppendConnack(nil, v, connack))
	add("connack/refused", packet.AppendConnack(nil, v, &packet.Connack{Code: map[bool]uint8{true: 0x87, false: 5}[five]}))

	for _, size := range []int{0, 1, 200, 20_000} {
		p := &packet.Publish{Dup: true, QoS: 2, Retain: true, Topic: []byte("$IM/user/bob"), PacketID: 513,
			Payload: bytes.Repeat([]byte("x"), size)}
		if five {
			p.Props = fullPublishProps()
			user(&p.Props)
		}
		add("publish/qos2", packet.AppendPublish(nil, v, p))
	}
	add("publish/qos0", packet.AppendPublish(nil, v, &packet.Publish{Topic: []byte("a/b"), Payload: []byte("hi")}))

	for t := packet.PUBACK; t <= packet.PUBCOMP; t++ {
		ack := &packet.Ack{Type: t, PacketID: 9}
		add(t.String(), packet.AppendAck(nil, v, ack))
		if five {
			ack.Reason = packet.QuotaExceeded
			if t >= packet.PUBREL {
				ack.Reason = packet.PacketIDNotFound
			}
			add(t.String()+"/reason", packet.AppendAck(nil, v, ack))
			reason(&ack.Props)
			add(t.String()+"/props", packet.AppendAck(nil, v, ack))
		}
	}
	list = append(list, subscribeSamples(v, user, reason)...)
	add("pingreq", packet.AppendPingreq(nil))
	add("pingresp", packet.AppendPingresp(nil))
	add("disconnect", packet.AppendDisconnect(nil, v, &packet.Disconnect{}))
	if five {
		d := &packet.Disconnect{Reason: packet.DisconnectWithWill}
		add("disconnect/reason", packet.AppendDisconnect(nil, v, d))
		reason(&d.Props)
		d.Props.SetUint(packet.SessionExpiry, 60)
		add("disconnect/props", packet.AppendDisconnect(nil, v, d))
		add("auth/min", packet.AppendAuth(nil, &packet.Auth{}))
		a := &packet.Auth{Reason: packet.ContinueAuthentication}
		a.Props.SetBytes(packet.AuthMethod, []byte("SCRAM"))
		a.Props.SetBytes(packet.AuthData, []byte{0, 1, 2})
		reason(&a.Props)
		add("auth", packet.AppendAuth(nil, a))
	}
	return list
}

func subscribeSamples(v packet.Version, user, reason func(*packet.Properties)) []sample {
	sub := &packet.Subscribe{PacketID: 7, Filters: []packet.Subscription{
		{Filter: []byte("$IM/#"), QoS: 1}, {Filter: []byte("+/b"), QoS: 2}}}
	codes := []byte{1, 0x80}
	if v == packet.V5 {
		sub.Filters[1].NoLocal, sub.Filters[1].RetainAsPublished, sub.Filters[1].RetainHandling = true, true, 2
		sub.Props.SubscriptionIDs = []uint32{300}
		codes = []byte{1, 0x87}
	}
	user(&sub.Props)
	unsub := &packet.Unsubscribe{PacketID: 8, Filters: [][]byte{[]byte("$IM/#"), []byte("x")}}
	user(&unsub.Props)
	suback := &packet.SubAnswer{Type: packet.SUBACK, PacketID: 7, Codes: codes}
	reason(&suback.Props)
	unsuback := &packet.SubAnswer{Type: packet.UNSUBACK, PacketID: 8, Codes: []byte{0, 0x11}}
	reason(&unsuback.Props)
	return []sample{
		{"subscribe", packet.AppendSubscribe(nil, v, sub)},
		{"unsubscribe", packet.AppendUnsubscribe(nil, v, unsub)},
		{"suback", packet.AppendSubAnswer(nil, v, suback)},
		{"unsuback", packet.AppendSubAnswer(nil, v, unsuback)},
	}
}

func fullConnect(v packet.Version) *packet.Connect {
	p := &packet.Connect{
		Version: v, CleanStart: true, KeepAlive: 60, ClientID: []byte("phone"),
		Will: true, WillQoS: 1, WillRetain: true, WillTopic: []byte("$IM/user/bob"), WillPayload: []byte("gone"),
		HasUsername: true, Username: []byte("alice"), HasPassword: true, Password: []byte{0, 1, 2, 255},
	}
	if v != packet.V5 {
		return p
	}
	p.Props.SetUint(packet.SessionExpiry, 3600)
	p.Props.SetUint(packet.ReceiveMaximum, 20)
	p.Props.SetUint(packet.MaximumPacketSize, 100_000)
	p.Props.SetUint(packet.TopicAliasMaximum, 5)
	p.Props.SetUint(packet.RequestResponseInfo, 1)
	p.Props.SetUint(packet.RequestProblemInfo, 0)
	p.Props.SetBytes(packet.AuthMethod, []byte("SCRAM"))
	p.Props.SetBytes(packet.AuthData, []byte{1, 2, 3})
	p.WillProps.SetUint(packet.WillDelay, 5)
	p.WillProps.SetUint(packet.PayloadFormat, 1)
	p.WillProps.SetUint(packet.MessageExpiry, 7)
	p.WillProps.SetBytes(packet.ContentType, []byte("application/json"))
	p.WillProps.SetBytes(packet.ResponseTopic, []byte("re"))
	p.WillProps.SetBytes(packet.CorrelationData, []byte{9})
	return p
}

func fillConnack(p *packet.Properties) {
	p.SetUint(packet.SessionExpiry, 3600)
	p.SetUint(packet.ReceiveMaximum, 100)
	p.SetUint(packet.MaximumQoS, 1)
	p.SetUint(packet.RetainAvailable, 0)
	p.SetUint(packet.MaximumPacketSize, 70_000)
	p.SetBytes(packet.AssignedClientID, []byte("phone"))
	p.SetUint(packet.TopicAliasMaximum, 16)
	p.SetUint(packet.WildcardSubAvailable, 1)
	p.SetUint(packet.SubIDAvailable, 0)
	p.SetUint(packet.SharedSubAvailable, 0)
	p.SetUint(packet.ServerKeepAlive, 300)
	p.SetBytes(packet.ResponseInfo, []byte("ri"))
	p.SetBytes(packet.ServerReference, []byte("other"))
	p.SetBytes(packet.AuthMethod, []byte("SCRAM"))
	p.SetBytes(packet.AuthData, []byte{4})
}

func fullPublishProps() (p packet.Properties) {
	p.SetUint(packet.PayloadFormat, 1)
	p.SetUint(packet.MessageExpiry, 60)
	p.SetUint(packet.TopicAlias, 3)
	p.SetBytes(packet.ContentType, []byte("application/json"))
	p.SetBytes(packet.ResponseTopic, []byte("$IM/user/alice"))
	p.SetBytes(packet.CorrelationData, []byte{1, 0, 2})
	return p
}

func TestSamplesAreFixedPoints(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		for _, s := range samples(v) {
			got, err := reencode(v, s.frame)
			if err != nil || !bytes.Equal(got, s.frame) {
				t.Errorf("%s %s: %v\n got %x\nwant %x", v, s.name, err, got, s.frame)
			}
		}
	}
}

// No part of a packet may be missing, and nothing may follow it.
func TestTruncatedAndExtended(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		for _, s := range samples(v) {
			if len(s.frame) > 400 {
				continue
			}
			for n := range len(s.frame) {
				if need, err := packet.Frame(s.frame[:n], 0); err != nil || need <= n {
					t.Fatalf("%s %s: %d of %d bytes: Frame = %d, %v", v, s.name, n, len(s.frame), need, err)
				}
				if n > 0 {
					if _, err := reencode(v, s.frame[:n]); err == nil {
						t.Errorf("%s %s: %d of %d bytes were decoded", v, s.name, n, len(s.frame))
					}
				}
			}
			if need, err := packet.Frame(s.frame, len(s.frame)); err != nil || need != len(s.frame) {
				t.Errorf("%s %s: Frame = %d, %v", v, s.name, need, err)
			}
			if _, err := reencode(v, append(bytes.Clone(s.frame), 0)); err == nil {
				t.Errorf("%s %s: a byte too many was accepted", v, s.name)
			}
		}
	}
}
