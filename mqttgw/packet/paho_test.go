package packet_test

import (
	"bytes"
	"testing"

	paho5 "github.com/eclipse/paho.golang/packets"
	paho3 "github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// What we write Paho reads, and what Paho then writes we read as the same packet.
func TestPahoReadsAndWrites(t *testing.T) {
	t.Run("3.1.1", func(t *testing.T) {
		for _, s := range samples(packet.V311) {
			p, err := paho3.ReadPacket(bytes.NewReader(s.frame))
			if err != nil {
				t.Errorf("%s: Paho cannot read it: %v", s.name, err)
				continue
			}
			var out bytes.Buffer
			if err := p.Write(&out); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			if got, err := reencode(packet.V311, out.Bytes()); err != nil || !bytes.Equal(got, s.frame) {
				t.Errorf("%s: %v\n got %x\nwant %x", s.name, err, got, s.frame)
			}
		}
	})
	t.Run("5.0", func(t *testing.T) {
		for _, s := range samples(packet.V5) {
			if s.name == "disconnect" {
				continue // Paho v0.23 cannot read a DISCONNECT without a body, which 3.14.2.1 allows
			}
			p, err := paho5.ReadPacket(bytes.NewReader(s.frame))
			if err != nil {
				t.Errorf("%s: Paho cannot read it: %v", s.name, err)
				continue
			}
			if s.name == "connect" {
				checkPahoWill(t, p.Content.(*paho5.Connect))
				continue // Paho v0.23 writes only some of the will's properties back
			}
			var out bytes.Buffer
			if _, err := p.WriteTo(&out); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			if got, err := reencode(packet.V5, out.Bytes()); err != nil || !bytes.Equal(got, s.frame) {
				t.Errorf("%s: %v\n got %x\nwant %x", s.name, err, got, s.frame)
			}
		}
	})
}

func checkPahoWill(t *testing.T, c *paho5.Connect) {
	t.Helper()
	w := c.WillProperties
	if c.WillTopic != "$IM/user/bob" || string(c.WillMessage) != "gone" || c.WillQOS != 1 || !c.WillRetain ||
		w.WillDelayInterval == nil || *w.WillDelayInterval != 5 || w.ContentType != "application/json" ||
		len(w.User) != 2 || w.MessageExpiry == nil || *w.MessageExpiry != 7 {
		t.Errorf("Paho read the will as %+v %+v", c, w)
	}
	if c.Username != "alice" || !bytes.Equal(c.Password, []byte{0, 1, 2, 255}) || c.ClientID != "phone" ||
		c.Properties.ReceiveMaximum == nil || *c.Properties.ReceiveMaximum != 20 {
		t.Errorf("Paho read %+v", c)
	}
}

// Field by field in one direction that does not pass through our encoder.
func TestFieldsAsPahoWroteThem(t *testing.T) {
	pub := paho5.NewControlPacket(paho5.PUBLISH)
	content := pub.Content.(*paho5.Publish)
	content.Topic, content.PacketID, content.QoS, content.Payload = "a/b", 77, 1, []byte("hi")
	expiry := uint32(30)
	content.Properties.MessageExpiry = &expiry
	content.Properties.ContentType = "text/plain"
	content.Properties.User = []paho5.User{{Key: "k", Value: "v"}}
	pub.Flags = 2
	var out bytes.Buffer
	if _, err := pub.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	var p packet.Publish
	if err := p.Decode(packet.V5, out.Bytes()); err != nil {
		t.Fatal(err)
	}
	if string(p.Topic) != "a/b" || p.PacketID != 77 || p.QoS != 1 || string(p.Payload) != "hi" ||
		p.Props.Uint(packet.MessageExpiry, 0) != 30 || string(p.Props.Bytes(packet.ContentType)) != "text/plain" ||
		len(p.Props.User) != 1 || string(p.Props.User[0].Key) != "k" || string(p.Props.User[0].Value) != "v" {
		t.Errorf("decoded %+v", p)
	}

	conn := paho3.NewControlPacket(paho3.Connect).(*paho3.ConnectPacket)
	conn.ProtocolName, conn.ProtocolVersion = "MQTT", 4
	conn.CleanSession, conn.Keepalive, conn.ClientIdentifier = true, 30, "c"
	conn.UsernameFlag, conn.Username, conn.PasswordFlag, conn.Password = true, "u", true, []byte("p")
	out.Reset()
	if err := conn.Write(&out); err != nil {
		t.Fatal(err)
	}
	var c packet.Connect
	if err := c.Decode(out.Bytes()); err != nil {
		t.Fatal(err)
	}
	if c.Version != packet.V311 || !c.CleanStart || c.KeepAlive != 30 || string(c.ClientID) != "c" ||
		!c.HasUsername || string(c.Username) != "u" || !c.HasPassword || string(c.Password) != "p" || c.Will {
		t.Errorf("decoded %+v", c)
	}
}
