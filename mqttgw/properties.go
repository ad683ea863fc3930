package mqttgw

import (
	"bytes"
	"time"
	"unsafe"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// expiryOf is the message expiry; 0 for none. An interval of zero seconds is one that
// ends at once.
func expiryOf(p *packet.Properties) time.Duration {
	if !p.Has(packet.MessageExpiry) {
		return 0
	}
	return max(time.Duration(p.Uint(packet.MessageExpiry, 0))*time.Second, time.Millisecond)
}

// propertiesOf copies the properties that travel with a message.
func propertiesOf(p *packet.Properties) im.Properties {
	out := im.Properties{
		ContentType:   string(p.Bytes(packet.ContentType)),
		ResponseTopic: string(p.Bytes(packet.ResponseTopic)),
		Correlation:   string(p.Bytes(packet.CorrelationData)),
		PayloadUTF8:   p.Uint(packet.PayloadFormat, 0) == 1,
	}
	if len(p.User) > 0 {
		out.User = make([]im.Property, 0, len(p.User))
		for _, u := range p.User {
			if bytes.Equal(u.Key, seqKey) {
				continue // the position is the broker's to tell
			}
			out.User = append(out.User, im.Property{Key: string(u.Key), Value: string(u.Value)})
		}
	}
	return out
}

// bytesOf lends the bytes of a string to an encoder, which only reads them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
