package router_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/router"
)

// instantLog acknowledges at once: what is measured is the router alone.
type instantLog struct{ seq uint64 }

func (l *instantLog) Append(_ context.Context, _ im.Record, done func(uint64, error)) error {
	l.seq++
	done(l.seq, nil)
	return nil
}
func (l *instantLog) Get(context.Context, uint64) (*im.Entry, error) { return nil, nil }
func (l *instantLog) FindUpTo(context.Context, im.Address, string, im.Address, uint64, int) (*im.Entry, error) {
	return nil, nil
}

// BenchmarkPublish is the router's own share of a message: checks, stamp, envelope and
// dedupe, without the log.
func BenchmarkPublish(b *testing.B) {
	for _, clients := range []int{1, 2} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			dir := &people{exists: map[im.Address]bool{im.User("bob"): true}, clients: map[string]int{"alice": clients}}
			r := router.New(router.Options{Domain: "here.org", Log: &instantLog{}, Directory: dir,
				Window: delivery.NewWindow(1e12, 2_000_000), PublishRate: 1 << 30, PublishBurst: 1 << 30})
			pad := make([]byte, 120)
			for i := range pad {
				pad[i] = 'x'
			}
			payload := []byte(`{"id":"0000000000","type":"chat","content":{"type":"text","data":"` + string(pad) + `"}}`)
			done := func(_ router.Receipt, err error) {
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for i := range b.N {
				copy(payload[7:], fmt.Appendf(nil, "%010d", i))
				r.Publish(b.Context(), alice, router.Publish{To: im.User("bob"), Payload: payload, QoS: 1}, done)
			}
		})
	}
}
