package packet_test

import (
	"io"
	"testing"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// chunks reads data a few bytes at a time.
type chunks struct {
	data []byte
	step int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.data[:min(c.step, len(c.data))])
	c.data = c.data[n:]
	return n, nil
}

// chatPublish is a message of usual size; with is true for 5.0 properties.
func chatPublish(with bool) *packet.Publish {
	p := &packet.Publish{QoS: 1, Topic: []byte("$IM/user/bob"), PacketID: 77, Payload: make([]byte, 200)}
	if with {
		p.Props.SetUint(packet.MessageExpiry, 60)
		p.Props.AddUser([]byte("seq"), []byte("123456789"))
	}
	return p
}

var versions = []struct {
	name string
	v    packet.Version
	with bool
}{{"3.1.1", packet.V311, false}, {"5.0", packet.V5, false}, {"5.0-properties", packet.V5, true}}

func BenchmarkPublishDecode(b *testing.B) {
	for _, c := range versions {
		b.Run(c.name, func(b *testing.B) {
			frame := packet.AppendPublish(nil, c.v, chatPublish(c.with))
			var p packet.Publish
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Decode(c.v, frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPublishEncode(b *testing.B) {
	for _, c := range versions {
		b.Run(c.name, func(b *testing.B) {
			p, buf := chatPublish(c.with), make([]byte, 0, 1024)
			b.ReportAllocs()
			for b.Loop() {
				buf = packet.AppendPublish(buf[:0], c.v, p)
			}
		})
		b.Run("template-"+c.name, func(b *testing.B) {
			t, buf := packet.NewTemplate(c.v, chatPublish(c.with)), make([]byte, 0, 1024)
			b.ReportAllocs()
			for b.Loop() {
				buf = t.Append(buf[:0], 77, false)
			}
		})
	}
}

func BenchmarkPuback(b *testing.B) {
	frame := packet.AppendAck(nil, packet.V5, &packet.Ack{Type: packet.PUBACK, PacketID: 9})
	b.Run("decode", func(b *testing.B) {
		var p packet.Ack
		b.ReportAllocs()
		for b.Loop() {
			if err := p.Decode(packet.V5, frame); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		p, buf := packet.Ack{Type: packet.PUBACK, PacketID: 9}, make([]byte, 0, 64)
		b.ReportAllocs()
		for b.Loop() {
			buf = packet.AppendAck(buf[:0], packet.V5, &p)
		}
	})
}

func BenchmarkConnectDecode(b *testing.B) {
	frame := packet.AppendConnect(nil, fullConnect(packet.V5))
	var p packet.Connect
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Decode(frame); err != nil {
			b.Fatal(err)
		}
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 1024)
	for _, c := range versions {
		p := chatPublish(c.with)
		frame := packet.AppendPublish(nil, c.v, p)
		var q packet.Publish
		if n := testing.AllocsPerRun(100, func() {
			if err := q.Decode(c.v, frame); err != nil {
				t.Fatal(err)
			}
			buf = packet.AppendPublish(buf[:0], c.v, p)
		}); n != 0 {
			t.Errorf("PUBLISH %s: %v allocations", c.name, n)
		}
	}
	ack := packet.Ack{Type: packet.PUBACK, PacketID: 9}
	frame := packet.AppendAck(nil, packet.V5, &ack)
	if n := testing.AllocsPerRun(100, func() {
		if err := ack.Decode(packet.V5, frame); err != nil {
			t.Fatal(err)
		}
		buf = packet.AppendAck(buf[:0], packet.V5, &ack)
	}); n != 0 {
		t.Errorf("PUBACK: %v allocations", n)
	}
}
