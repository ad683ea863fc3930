package packet_test

import (
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

func TestRefused(t *testing.T) {
	const v3, v5 = packet.V311, packet.V5
	cases := []struct {
		name   string
		v      packet.Version
		hex    string
		reason packet.Reason
	}{
		{"reserved type", v5, "00 00", 0x81},
		{"puback flags", v5, "41 02 0001", 0x81},
		{"pubrel flags", v5, "60 02 0001", 0x81},
		{"subscribe flags", v3, "80 06 0001 0001 61 00", 0x81},
		{"long remaining length", v5, "30 8080808001", 0x81},
		{"padded remaining length", v5, "30 8000", 0x81},
		{"qos 3", v3, "36 05 0001 61 0001", 0x81},
		{"dup at qos 0", v3, "38 03 0001 61", 0x81},
		{"packet id 0", v3, "32 05 0001 61 0000", 0x82},
		{"puback id 0", v5, "40 02 0000", 0x82},
		{"empty topic", v3, "30 02 0000", 0x81},
		{"no topic, no alias", v5, "30 03 0000 00", 0x82},
		{"alias 0", v5, "30 06 0000 03 23 0000", 0x94},
		{"wildcard in topic", v3, "30 05 0003 612f23", 0x81},
		{"plus in topic", v5, "30 04 0001 2b 00", 0x81},
		{"NUL in topic", v3, "30 03 0001 00", 0x81},
		{"surrogate in topic", v3, "30 05 0003 eda080", 0x81},
		{"half a character", v3, "30 03 0001 c3", 0x81},
		{"topic over the end", v3, "30 03 0005 61", 0x81},
		{"property over the end", v5, "30 05 0001 61 05 01", 0x81},
		{"unknown property", v5, "30 06 0001 61 02 7e 00", 0x81},
		{"property of another packet", v5, "30 06 0001 61 02 24 00", 0x81},
		{"property twice", v5, "30 08 0001 61 04 0100 0101", 0x82},
		{"payload format 2", v5, "30 06 0001 61 02 0102", 0x82},
		{"wildcard in response topic", v5, "30 08 0001 61 04 08 0001 23", 0x82},
		{"subscribe without filter", v3, "82 02 0001", 0x82},
		{"subscribe with empty filter", v3, "82 05 0001 0000 00", 0x81},
		{"subscribe qos 3", v3, "82 06 0001 0001 61 03", 0x81},
		{"subscribe reserved bits", v3, "82 06 0001 0001 61 04", 0x81},
		{"subscribe reserved bits", v5, "82 07 0001 00 0001 61 40", 0x81},
		{"subscribe retain handling 3", v5, "82 07 0001 00 0001 61 30", 0x82},
		{"subscription id 0", v5, "82 09 0001 02 0b00 0001 61 00", 0x82},
		{"subscription id twice", v5, "82 0b 0001 04 0b010b02 0001 61 00", 0x82},
		{"unsubscribe without filter", v5, "a2 03 0001 00", 0x82},
		{"ping with contents", v3, "c0 01 00", 0x81},
		{"disconnect with contents", v3, "e0 01 00", 0x81},
		{"disconnect reason", v5, "e0 01 07", 0x82},
		{"puback reason", v5, "40 03 0001 7f", 0x82},
		{"pubrel reason", v5, "62 03 0001 87", 0x82},
		{"auth reason", v5, "f0 02 01 00", 0x82},
		{"auth data alone", v5, "10 11 0004 4d515454 05 02 0000 04 16 0001 61 0000", 0x82},
		{"suback code", v3, "90 03 0001 03", 0x81},
		{"connack flags", v3, "20 02 02 00", 0x81},
		{"connack present and refused", v3, "20 02 01 05", 0x82},
		{"protocol name", v3, "10 0e 0006 4d514973 6470 03 02 0000 0000", 0x84},
		{"protocol level", v3, "10 0c 0004 4d515454 06 02 0000 0000", 0x84},
		{"connect reserved flag", v3, "10 0c 0004 4d515454 04 03 0000 0000", 0x81},
		{"will qos without will", v3, "10 0c 0004 4d515454 04 0a 0000 0000", 0x81},
		{"will qos 3", v3, "10 0c 0004 4d515454 04 1e 0000 0000", 0x81},
		{"password without user name", v3, "10 0f 0004 4d515454 04 42 0000 0000 000161", 0x81},
		{"will topic with wildcard", v3, "10 11 0004 4d515454 04 06 0000 0000 000123 0000", 0x81},
		{"receive maximum 0", v5, "10 10 0004 4d515454 05 02 0000 03 210000 0000", 0x82},
	}
	for _, c := range cases {
		frame, err := hex.DecodeString(strings.ReplaceAll(c.hex, " ", ""))
		if err != nil {
			t.Fatal(c.name, err)
		}
		_, err = reencode(c.v, frame)
		var pe *packet.Error
		if !errors.As(err, &pe) || pe.Reason != c.reason {
			t.Errorf("%s (%s): %v, want reason 0x%02X", c.name, c.v, err, uint8(c.reason))
		} else if need, ferr := packet.Frame(frame, 0); ferr == nil && need != len(frame) {
			t.Errorf("%s: the test's frame is %d bytes and says %d", c.name, len(frame), need)
		}
	}
}

// The size is refused from the header alone.
func TestFrameRefusesSizeBeforeTheBody(t *testing.T) {
	_, err := packet.Frame([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, 1<<20)
	var pe *packet.Error
	if !errors.As(err, &pe) || pe.Reason != packet.PacketTooLarge {
		t.Fatalf("err = %v", err)
	}
}

func TestUserPropertiesAreBounded(t *testing.T) {
	p := &packet.Publish{Topic: []byte("a")}
	for range packet.MaxUserProperties {
		p.Props.AddUser(nil, nil)
	}
	var q packet.Publish
	if err := q.Decode(packet.V5, packet.AppendPublish(nil, packet.V5, p)); err != nil {
		t.Fatal(err)
	}
	p.Props.AddUser(nil, nil)
	err := q.Decode(packet.V5, packet.AppendPublish(nil, packet.V5, p))
	var pe *packet.Error
	if !errors.As(err, &pe) || pe.Reason != packet.QuotaExceeded {
		t.Fatalf("err = %v", err)
	}
}

// A struct that is used again shows nothing of the packet before.
func TestReuseLeavesNothingBehind(t *testing.T) {
	full := &packet.Publish{QoS: 1, Dup: true, Topic: []byte("a"), PacketID: 5, Props: fullPublishProps(), Payload: []byte("x")}
	full.Props.AddUser([]byte("k"), []byte("v"))
	var p packet.Publish
	if err := p.Decode(packet.V5, packet.AppendPublish(nil, packet.V5, full)); err != nil {
		t.Fatal(err)
	}
	if err := p.Decode(packet.V5, []byte{0x30, 4, 0, 1, 'b', 0}); err != nil {
		t.Fatal(err)
	}
	if p.Dup || p.QoS != 0 || p.PacketID != 0 || !p.Props.Empty() || len(p.Payload) != 0 || p.Props.Has(packet.TopicAlias) {
		t.Errorf("left over: %+v", p)
	}
	var c packet.Connect
	if err := c.Decode(packet.AppendConnect(nil, fullConnect(packet.V5))); err != nil {
		t.Fatal(err)
	}
	if err := c.Decode(packet.AppendConnect(nil, &packet.Connect{Version: packet.V311})); err != nil {
		t.Fatal(err)
	}
	if c.Will || c.HasUsername || c.WillTopic != nil || !c.Props.Empty() || !c.WillProps.Empty() {
		t.Errorf("left over: %+v", c)
	}
}

func TestTemplate(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		for qos := range uint8(2) {
			p := &packet.Publish{QoS: qos, Topic: []byte("$IM/room/r"), Payload: make([]byte, 300)}
			if v == packet.V5 {
				p.Props = fullPublishProps()
			}
			tmpl := packet.NewTemplate(v, p)
			for _, dup := range []bool{false, true} {
				if p.Dup = dup; qos > 0 {
					p.PacketID = 4660
				}
				want := packet.AppendPublish([]byte("before"), v, p)
				got := tmpl.Append([]byte("before"), 4660, dup)
				if string(got) != string(want) || tmpl.Size() != len(want)-6 {
					t.Errorf("%s QoS %d:\n got %x\nwant %x", v, qos, got, want)
				}
			}
		}
	}
}

func TestOverlongStringIsCut(t *testing.T) {
	long := strings.Repeat("ä", 40_000)
	d := packet.Disconnect{Reason: packet.ServerBusy}
	d.Props.SetBytes(packet.ReasonString, []byte(long))
	var got packet.Disconnect
	if err := got.Decode(packet.V5, packet.AppendDisconnect(nil, packet.V5, &d)); err != nil {
		t.Fatal(err)
	}
	if s := got.Props.Bytes(packet.ReasonString); len(s) != 65534 {
		t.Errorf("%d bytes are left", len(s))
	}
}

func TestReader(t *testing.T) {
	var stream []byte
	list := samples(packet.V5)
	for _, s := range list {
		stream = append(stream, s.frame...)
	}
	sources := map[string]io.Reader{
		"whole":     strings.NewReader(string(stream)),
		"bytewise":  iotest.OneByteReader(strings.NewReader(string(stream))),
		"data+EOF":  iotest.DataErrReader(strings.NewReader(string(stream))),
		"half-wise": iotest.HalfReader(strings.NewReader(string(stream))),
	}
	for name, src := range sources {
		r := packet.NewReader(src, 1<<20)
		for _, s := range list {
			frame, err := r.Next()
			if err != nil || string(frame) != string(s.frame) {
				t.Fatalf("%s: %s: %v", name, s.name, err)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
	r := packet.NewReader(strings.NewReader("\x30\x05ab"), 0)
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut stream: %v", err)
	}
}
