package mqttgw_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
	"github.com/slimchat/slimchat/msglog"
)

// BenchmarkOneToOne sends 200-byte messages at QoS 1 from one half of the devices to the
// other through real sockets and the real log, as many in flight as the name says.
func BenchmarkOneToOne(b *testing.B) {
	for _, durability := range []msglog.Durability{msglog.DurabilityDisk, msglog.DurabilityProcess} {
		for _, load := range []struct{ pairs, window int }{{1, 1}, {10, 1}, {200, 1}, {200, 4}, {200, 16}} {
			for _, v := range bothVersions {
				name := fmt.Sprintf("%s/inflight=%d/%s", durability, load.pairs*load.window, v)
				b.Run(name, func(b *testing.B) {
					benchOneToOne(b, durability, v, load.pairs, load.window)
				})
			}
		}
	}
}

func benchOneToOne(b *testing.B, durability msglog.Durability, v packet.Version, pairs, window int) {
	s := newStack(b, func(o *setup) { o.log.Durability = durability })
	senders, receivers := make([]*device, pairs), make([]*device, pairs)
	for i := range pairs {
		senders[i] = s.connect(v, fmt.Sprintf("userfrom%d", i), "c")
		receivers[i] = s.connect(v, fmt.Sprintf("userto%d", i), "c")
		receivers[i].subscribe("$IM/#")
		require.NoError(b, senders[i].nc.SetDeadline(time.Time{}))
		require.NoError(b, receivers[i].nc.SetDeadline(time.Time{}))
	}
	before := s.gw.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range pairs {
		count := b.N/pairs + 1
		wg.Go(func() { benchSend(b, senders[i], fmt.Sprintf("$IM/user/userto%d", i), count, window) })
		wg.Go(func() { benchReceive(b, receivers[i], count) })
	}
	wg.Wait()
	b.StopTimer()
	after := s.gw.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(after.Writes-before.Writes)/float64(after.Delivered-before.Delivered), "writes/msg")
}

func benchSend(b *testing.B, d *device, topic string, count, window int) {
	p := packet.Publish{QoS: 1, Topic: []byte(topic)}
	pad := make([]byte, 100)
	for i := range pad {
		pad[i] = 'x'
	}
	var out []byte
	sent, acked := 0, 0
	for acked < count {
		out = out[:0]
		for ; sent < count && sent-acked < window; sent++ {
			p.PacketID = uint16(sent%60000) + 1
			p.Payload = append(p.Payload[:0], `{"id":"`...)
			p.Payload = strconv.AppendInt(p.Payload, int64(sent), 10)
			p.Payload = append(p.Payload, `","type":"chat","content":{"type":"text","data":"`...)
			p.Payload = append(append(p.Payload, pad...), `"}}`...)
			out = packet.AppendPublish(out, d.v, &p)
		}
		if len(out) > 0 {
			if _, err := d.nc.Write(out); err != nil {
				b.Error(err)
				return
			}
		}
		for {
			if _, err := d.r.Next(); err != nil {
				b.Error(err)
				return
			}
			acked++
			if !d.r.Buffered() {
				break
			}
		}
	}
}

func benchReceive(b *testing.B, d *device, count int) {
	var p packet.Publish
	var out []byte
	for got := 0; got < count; {
		out = out[:0]
		for {
			f, err := d.r.Next()
			if err == nil {
				err = p.Decode(d.v, f)
			}
			if err != nil {
				b.Error(err)
				return
			}
			got++
			out = packet.AppendAck(out, d.v, &packet.Ack{Type: packet.PUBACK, PacketID: p.PacketID})
			if !d.r.Buffered() {
				break
			}
		}
		if _, err := d.nc.Write(out); err != nil {
			b.Error(err)
			return
		}
	}
}

// BenchmarkConnect connects, subscribes and disconnects devices, eight at a time.
func BenchmarkConnect(b *testing.B) {
	for _, v := range bothVersions {
		b.Run(v.String(), func(b *testing.B) {
			s := newStack(b, nil)
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					for i := w; i < b.N; i += 8 {
						d := s.dial(v)
						require.Zero(b, d.hello(hello(v, fmt.Sprintf("user%d", i%5000), "c")).Code)
						d.subscribe("$IM/#")
						d.write(packet.AppendDisconnect(nil, v, &packet.Disconnect{}))
						_ = d.nc.Close()
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "connects/s")
		})
	}
}
