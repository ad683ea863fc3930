//go:build unix

package msglog

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/slimchat/slimchat/cluster"
	"github.com/slimchat/slimchat/im"
)

// BenchmarkConversationSubjects gives the figures of docs/decisions/0005: what a pair of
// people costs that ever talked, and what reading by sender costs when the sender is the
// last token of the subject. It makes a million subjects, 10 peers for each of 100,000.
func BenchmarkConversationSubjects(b *testing.B) {
	e := start(b, b.TempDir(), func(o *Options) { o.Durability = DurabilityProcess })
	const users, peers = 100_000, 10
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	slots := make(chan struct{}, 4000)
	for i := range users * peers {
		slots <- struct{}{}
		from, to := i%users, (i%users+1+(i/users)*997)%users
		rec := message(im.User(fmt.Sprintf("user%06d", from)), im.User(fmt.Sprintf("user%06d", to)), "m", false)
		if err := e.log.Append(context.Background(), rec, func(uint64, error) { <-slots }); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
	e.log.recent = newRecent(e.log.Position(), recentAddresses)
	runtime.GC()
	runtime.ReadMemStats(&after)
	heap := float64(after.HeapAlloc-before.HeapAlloc) / (users * peers)
	pos := e.log.Position()
	sender := im.EncodeToken("user/user000500")
	one := func(b *testing.B, req getRequest) {
		n := 0
		for b.Loop() {
			n = 0
			if _, err := e.log.get(context.Background(), StreamName, []getRequest{req}, func(int, rawEntry) { n++ }); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(n), "entries")
		b.ReportMetric(heap, "heap-B/subject")
	}
	for _, c := range []struct {
		name string
		req  getRequest
	}{
		{"inbox/next-from-start", getRequest{nextFor: "im.user.user000500.*", seq: 1}},
		{"inbox/next-100k-back", getRequest{nextFor: "im.user.user000500.*", seq: pos - 100_000}},
		{"inbox/last-of-each-peer", getRequest{multiLast: []string{"im.user.user000500.*"}}},
		{"by-sender/next-from-start", getRequest{nextFor: "im.user.*." + sender, seq: 1}},
		{"by-sender/next-100k-back", getRequest{nextFor: "im.user.*." + sender, seq: pos - 100_000}},
		{"by-sender/nothing-new-50k-back", getRequest{nextFor: "im.user.*." + im.EncodeToken("user/nobody"), seq: pos - 50_000}},
		{"by-sender/nothing-new-from-start", getRequest{nextFor: "im.user.*." + im.EncodeToken("user/nobody"), seq: pos - 900_000}},
		{"by-sender/last-of-each-peer", getRequest{multiLast: []string{"im.user.*." + sender}}},
	} {
		b.Run(c.name, func(b *testing.B) { one(b, c.req) })
	}
}

// BenchmarkConversationByInbox finds 50 messages of one peer in an inbox of 100,000, by
// its two subjects and by walking back through the inbox as one would have to if the
// sender were not in the subject.
func BenchmarkConversationByInbox(b *testing.B) {
	e := start(b, b.TempDir(), func(o *Options) { o.Durability = DurabilityProcess; o.PerAddress = 1_000_000 })
	var recs []im.Record
	for i := range 200 {
		recs = append(recs, message(im.User(fmt.Sprint("peer", i)), alice, fmt.Sprint(i), false))
	}
	fill(b, e, recs, 100_000)
	b.Run("two-subjects", func(b *testing.B) {
		for b.Loop() {
			got, _, err := e.log.History(context.Background(), HistoryQuery{Me: alice, With: im.User("peer7")})
			if err != nil || len(got) != 50 {
				b.Fatal(len(got), err)
			}
		}
	})
	b.Run("whole-inbox", func(b *testing.B) {
		for b.Loop() {
			n := 0
			_, err := e.log.walkBack(context.Background(), e.log.readers, []string{im.SubjectFilter(alice)}, 0, e.log.Position(), 200, func(r rawEntry) bool {
				if entry, err := r.entry(); err == nil && entry.From.ID == "peer7" {
					n++
				}
				return n < 50
			})
			if err != nil || n != 50 {
				b.Fatal(n, err)
			}
		}
	})
}

// BenchmarkOtherCommits measures the ways of writing that docs/decisions/0002 compares
// with ours: an acknowledgement for each message, with the server syncing or not, and
// atomic batches.
func BenchmarkOtherCommits(b *testing.B) {
	for _, syncAlways := range []bool{false, true} {
		node, err := cluster.Start(context.Background(), cluster.Options{DataDir: b.TempDir(), Domain: testDomain, SyncAlways: syncAlways})
		if err != nil {
			b.Fatal(err)
		}
		l, err := Open(context.Background(), Options{Server: node, DataDir: node.DataDir(), Durability: DurabilityProcess})
		if err != nil {
			b.Fatal(err)
		}
		recs := benchRecords(1000, false)
		for _, inflight := range []int{1, 10, 200, 800, 3200} {
			b.Run(fmt.Sprintf("ack-for-each/syncalways=%v/inflight=%d", syncAlways, inflight), func(b *testing.B) {
				nc, err := node.Connect("bench")
				if err != nil {
					b.Fatal(err)
				}
				defer nc.Close()
				slots := make(chan struct{}, inflight)
				inbox := nats.NewInbox()
				if _, err := nc.Subscribe(inbox, func(m *nats.Msg) {
					if a := parseAck(m.Data); a.err != nil {
						b.Error(a.err)
					}
					<-slots
				}); err != nil {
					b.Fatal(err)
				}
				cpu := cpuTime()
				for i := range b.N {
					slots <- struct{}{}
					r := &recs[i%len(recs)]
					if err := nc.PublishRequest(r.Subject, inbox, r.Data); err != nil {
						b.Fatal(err)
					}
				}
				for range inflight {
					slots <- struct{}{}
				}
				b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/msg")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			})
		}
		for _, size := range []int{10, 100, 500} {
			b.Run(fmt.Sprintf("atomic-batch/syncalways=%v/size=%d", syncAlways, size), func(b *testing.B) {
				for i := 0; i < b.N; i += size {
					id := nats.NewInbox()[7:]
					for k := range size {
						r := &recs[(i+k)%len(recs)]
						m := &nats.Msg{Subject: r.Subject, Data: r.Data, Header: nats.Header{
							"Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {fmt.Sprint(k + 1)}}}
						if k < size-1 {
							err = l.nc.PublishMsg(m)
						} else {
							m.Header["Nats-Batch-Commit"] = []string{"1"}
							var reply *nats.Msg
							if reply, err = l.nc.RequestMsg(m, 10*time.Second); err == nil {
								err = parseBatchAck(reply.Data)
							}
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			})
		}
		if err := l.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
		if err := node.Stop(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func parseBatchAck(data []byte) error {
	if !bytes.Contains(data, []byte(`"batch":`)) {
		return fmt.Errorf("not the acknowledgement of a batch: %s", data)
	}
	return nil
}
