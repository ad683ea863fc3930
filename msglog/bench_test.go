//go:build unix

package msglog

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
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
	cpu := cpuTime()
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
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/msg")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(latency.Load())/float64(b.N)/1e3, "µs/commit")
	st := e.log.Stats()
	b.ReportMetric(float64(st.Records)/float64(max(st.Syncs, 1)), "msg/sync")
	b.ReportMetric(float64(st.SyncTime.Microseconds())/float64(max(st.Syncs, 1)), "µs/sync")
	e.stop()
}

// cpuTime is what this process has used of all processors.
func cpuTime() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
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

// fill appends n messages of the benchmark's users and waits for them.
func fill(b *testing.B, e *env, recs []im.Record, n int) {
	b.Helper()
	slots := make(chan struct{}, 4000)
	for i := range n {
		slots <- struct{}{}
		if err := e.log.Append(context.Background(), recs[i%len(recs)], func(uint64, error) { <-slots }); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
}

// BenchmarkTailBacklog reads a backlog through one tail.
func BenchmarkTailBacklog(b *testing.B) {
	e := start(b, b.TempDir(), func(o *Options) { o.Durability = DurabilityProcess })
	fill(b, e, benchRecords(1000, false), b.N)
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	b.ReportAllocs()
	b.ResetTimer()
	err := e.log.Tail(ctx, 0, func(batch []*im.Entry) {
		if n += len(batch); n >= b.N {
			cancel()
		}
	})
	b.StopTimer()
	if n < b.N {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkCommitAndTail measures from Append to the tail's callback.
func BenchmarkCommitAndTail(b *testing.B) {
	for _, inflight := range []int{1, 200, 3200} {
		b.Run(fmt.Sprintf("inflight=%d", inflight), func(b *testing.B) {
			e := start(b, b.TempDir(), nil)
			recs := benchRecords(1000, false)
			slots := make(chan time.Time, inflight)
			ctx, cancel := context.WithCancel(context.Background())
			var latency time.Duration
			ended := make(chan struct{})
			n := 0
			go func() {
				defer close(ended)
				_ = e.log.Tail(ctx, 0, func(batch []*im.Entry) {
					for range batch {
						latency += time.Since(<-slots)
					}
					if n += len(batch); n >= b.N {
						cancel()
					}
				})
			}()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				slots <- time.Now()
				if err := e.log.Append(ctx, recs[i%len(recs)], func(uint64, error) {}); err != nil {
					b.Fatal(err)
				}
			}
			<-ended
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(float64(latency.Microseconds())/float64(b.N), "µs/delivery")
		})
	}
}

// BenchmarkRead reads in a log of half a million messages among 1,000 inboxes.
func BenchmarkRead(b *testing.B) {
	e := start(b, b.TempDir(), func(o *Options) { o.Durability = DurabilityProcess })
	const msgs, users = 500_000, 1000
	fill(b, e, benchRecords(users, false), msgs)
	pos := e.log.Position()
	addrs := make([]im.Address, users)
	quiet := make([]im.Address, users)
	for i := range addrs {
		addrs[i] = im.User(fmt.Sprintf("user%06d", i))
		quiet[i] = im.Room(fmt.Sprintf("quiet%06d", i))
	}
	forget := func() { e.log.recent = newRecent(pos, recentAddresses) } // as after a restart
	for _, c := range []struct {
		name   string
		addrs  []im.Address
		after  uint64
		limit  int
		forget bool
	}{
		{"1-address/nothing-new", quiet[:1], pos - 20000, 100, false},
		{"1-address/nothing-new/after-restart", quiet[:1], pos - 20000, 100, true},
		{"1-address/page-of-100-near", addrs[:1], pos - 100*users, 100, false},
		{"1-address/page-of-100-far", addrs[:1], 1000, 100, false},
		{"1000-addresses/nothing-new", quiet, pos - 100_000, 100, false},
		{"1000-addresses/nothing-new/after-restart", quiet, pos - 100_000, 100, true},
		{"1000-addresses/nothing-new/short-stretch-after-restart", quiet, pos - 5000, 100, true},
		{"1000-addresses/page-of-100-near", addrs, pos - 10_000, 100, false},
		{"1000-addresses/page-of-100-far", addrs, 1000, 100, false},
		{"100-addresses/page-of-100-near", addrs[:100], pos - 10_000, 100, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			before := e.log.recent
			if c.forget {
				forget()
			}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				entries, _, err := e.log.Read(context.Background(), c.addrs, c.after, pos, c.limit, 1<<20)
				if err != nil {
					b.Fatal(err)
				}
				n = len(entries)
			}
			e.log.recent = before
			b.ReportMetric(float64(n), "entries")
		})
	}
}

// BenchmarkReadBacklog reads an inbox of 100,000 messages from 100 peers page by page.
func BenchmarkReadBacklog(b *testing.B) {
	e := start(b, b.TempDir(), func(o *Options) { o.Durability = DurabilityProcess })
	var recs []im.Record
	for i := range 100 {
		recs = append(recs, message(im.User(fmt.Sprint("peer", i)), im.User("reader"), fmt.Sprint(i), false))
	}
	const msgs = 100_000
	fill(b, e, recs, msgs)
	pos := e.log.Position()
	addrs := []im.Address{im.User("reader")}
	for _, c := range []struct {
		name string
		read func(p *page) error
	}{
		{"batches", func(p *page) error { return e.log.readBatch(context.Background(), im.SubjectFilter(addrs[0]), pos, p) }},
		{"singles", func(p *page) error { return e.log.readHeads(context.Background(), addrs, pos, p) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			at := uint64(0)
			for b.Loop() {
				if at >= pos {
					at = 0
				}
				p := page{l: e.log, maxMsgs: 100, maxBytes: 1 << 20, next: at}
				if err := c.read(&p); err != nil {
					b.Fatal(err)
				}
				n += len(p.entries)
				at = p.next
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkHistory asks for 50 messages of one conversation in a log of a million.
func BenchmarkHistory(b *testing.B) {
	e := start(b, b.TempDir(), func(o *Options) { o.Durability = DurabilityProcess; o.PerAddress = 1_000_000 })
	users := benchRecords(2000, false)
	var recs []im.Record
	room := im.Room("busy")
	for i := range 2_000 { // the room has half of everything
		recs = append(recs, users[i], message(im.User(fmt.Sprint("member", i%100)), room, fmt.Sprint("room", i), false))
	}
	old := message(alice, bob, "old", false) // and two people spoke rarely, long ago
	const msgs = 1_000_000
	fill(b, e, recs[:4000], 100)
	for range 60 {
		fill(b, e, []im.Record{old}, 1)
		fill(b, e, recs, 1000)
	}
	fill(b, e, recs, msgs-60_000)
	pos := e.log.Position()
	for _, c := range []struct {
		name string
		q    HistoryQuery
	}{
		{"busy-room/newest", HistoryQuery{With: room}},
		{"busy-room/middle", HistoryQuery{With: room, Before: pos / 2}},
		{"one-of-4000/newest", HistoryQuery{Me: im.User("user000001"), With: im.User("user000002")}},
		{"one-of-4000/middle", HistoryQuery{Me: im.User("user000001"), With: im.User("user000002"), Before: pos / 2}},
		{"rare-and-old/newest", HistoryQuery{Me: alice, With: bob}},
		{"never", HistoryQuery{Me: alice, With: carol}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				got, _, err := e.log.History(context.Background(), c.q)
				if err != nil {
					b.Fatal(err)
				}
				n = len(got)
			}
			b.ReportMetric(float64(n), "entries")
		})
	}
	b.Run("find", func(b *testing.B) {
		for b.Loop() {
			if _, err := e.log.Find(context.Background(), im.User("user000001"), "none", im.User("user000002"), 100); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSessions(b *testing.B) {
	e := start(b, b.TempDir(), nil)
	record := make([]byte, 200)
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("store-%d", n), func(b *testing.B) {
			records := make(map[im.SessionKey][]byte, n)
			for i := range n {
				records[im.SessionKey{Owner: im.User(fmt.Sprint("u", i)), Client: "c"}] = record
			}
			for b.Loop() {
				if err := e.log.StoreSessions(context.Background(), records); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
	b.Run("load", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := e.log.LoadSession(context.Background(), im.SessionKey{Owner: im.User("u0"), Client: "c"}); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
