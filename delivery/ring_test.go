package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/slimchat/slimchat/im"
)

func entry(seq uint64, to im.Address, size int) *im.Entry {
	return &im.Entry{Seq: seq, To: to, Envelope: im.Envelope{Body: make([]byte, size)}}
}

// TestRingAgainstSlice reads random pages and compares them with a walk over everything
// that was ever added; positions may have holes.
func TestRingAgainstSlice(t *testing.T) {
	addrs := []im.Address{im.User("a"), im.User("b"), im.Node("c"), im.Client("a", "x")}
	rapid.Check(t, func(t *rapid.T) {
		r := newRing(rapid.IntRange(500, 20_000).Draw(t, "bytes"), 0)
		var all []*im.Entry
		seq := uint64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			var batch []*im.Entry
			for range rapid.IntRange(1, 40).Draw(t, "batch") {
				seq += uint64(rapid.IntRange(1, 3).Draw(t, "gap"))
				batch = append(batch, entry(seq, rapid.SampledFrom(addrs).Draw(t, "addr"), 10))
			}
			all = append(all, batch...)
			r.add(batch)
			if r.bytes > r.maxBytes {
				t.Fatalf("%d bytes of %d", r.bytes, r.maxBytes)
			}
			want := addrs[:rapid.IntRange(1, len(addrs)).Draw(t, "addrs")]
			after := uint64(rapid.IntRange(0, int(seq)).Draw(t, "after"))
			upTo := after + uint64(rapid.IntRange(0, int(seq-after)).Draw(t, "span"))
			limit := rapid.IntRange(1, 30).Draw(t, "limit")
			got, next, ok := r.read(want, after, upTo, limit)
			if !ok {
				if after >= r.floor {
					t.Fatalf("refused %d with floor %d", after, r.floor)
				}
				continue
			}
			var expect []*im.Entry
			expectNext := upTo
			for _, e := range all {
				for _, a := range want {
					if e.To == a && e.Seq > after && e.Seq <= upTo && len(expect) < limit {
						expect = append(expect, e)
					}
				}
			}
			if len(expect) == limit {
				expectNext = expect[limit-1].Seq
			}
			if len(got) != len(expect) || next != expectNext {
				t.Fatalf("%d entries up to %d, want %d up to %d", len(got), next, len(expect), expectNext)
			}
			for i := range got {
				if got[i] != expect[i] {
					t.Fatalf("entry %d is %d, want %d", i, got[i].Seq, expect[i].Seq)
				}
			}
		}
	})
}

// TestRingCountsWhatEntriesHold: properties share memory with what was read for an entry,
// so all of that counts, however small the body is.
func TestRingCountsWhatEntriesHold(t *testing.T) {
	env := im.Envelope{From: im.User("a"), ID: "1", Props: im.Properties{Correlation: string(make([]byte, 60_000))}, Body: []byte("{}")}
	e, err := im.DecodeEntry(1, im.Subject(im.User("b"), im.User("a")), env.Append(nil))
	require.NoError(t, err)
	require.Greater(t, e.Size(), 60_000)
	r := newRing(1<<20, 0)
	for range 100 {
		r.add([]*im.Entry{e})
	}
	require.Less(t, len(r.order)-r.head, 20)
}

func TestRingForgetsAddressesWithTheirEntries(t *testing.T) {
	r := newRing(100*entry(1, im.User("a"), 10).Size(), 0)
	for i := range 50_000 {
		r.add([]*im.Entry{entry(uint64(i+1), im.User(string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676%26))), 10)})
	}
	require.Len(t, r.byAddr, 100)
	require.LessOrEqual(t, cap(r.order), 8192, "the order of what is gone is not kept")
}
