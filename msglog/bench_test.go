package msglog

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slimchat/slimchat/im"
)

// BenchmarkCommit keeps a number of appends in flight. Run it with TMPDIR on the disk to
// be measured.
func BenchmarkCommit(b *testing.B) {
	for _, d := range []Durability{DurabilityDisk, DurabilityProcess} {
		for _, copied := range []bool{false, true} {
			for _, inflight := range []int{1, 10, 200, 800, 3200} {
				b.Run(fmt.Sprintf("%s/copy=%v/inflight=%d", d, copied, inflight), func(b *testing.B) {
					benchCommit(b, d, copied, inflight)
				})
			}
		}
	}
}

func benchCommit(b *testing.B, d Durability, copied bool, inflight int) {
	e := start(b, b.TempDir(), func(o *Options) { o.Durability = d })
	recs := benchRecords(1000, copied)
	slots := make(chan struct{}, inflight)
	var latency atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		slots <- struct{}{}
		begin := time.Now()
		err := e.log.Append(context.Background(), recs[i%len(recs)], func(_ uint64, err error) {
			if err != nil {
				b.Error(err)
			}
			latency.Add(int64(time.Since(begin)))
			<-slots
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for range inflight {
		slots <- struct{}{}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(latency.Load())/float64(b.N)/1e3, "µs/commit")
	st := e.log.Stats()
	b.ReportMetric(float64(st.Records)/float64(max(st.Syncs, 1)), "msg/sync")
	b.ReportMetric(float64(st.SyncTime.Microseconds())/float64(max(st.Syncs, 1)), "µs/sync")
	e.stop()
}

// benchRecords are messages of about 200 bytes between n pairs of users.
func benchRecords(n int, copied bool) []im.Record {
	recs := make([]im.Record, n)
	for i := range recs {
		from, to := im.User(fmt.Sprintf("user%06d", i)), im.User(fmt.Sprintf("user%06d", (i+1)%n))
		recs[i] = message(from, to, fmt.Sprintf("message-%d", i), copied)
	}
	return recs
}
