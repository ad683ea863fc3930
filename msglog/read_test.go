package msglog

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/slimchat/slimchat/im"
)

// TestReadAgainstModel reads random sets of addresses from random positions, in pages of
// random size, and compares with a walk over everything that was appended.
func TestReadAgainstModel(t *testing.T) {
	e := start(t, t.TempDir(), func(o *Options) { o.Durability = DurabilityProcess })
	addrs := []im.Address{im.Client("u0", "phone"), im.Node("n.1")}
	for i := range 12 {
		addrs = append(addrs, im.User(fmt.Sprint("u", i)), im.Room(fmt.Sprint("r", i)))
	}
	quiet := im.User("quiet")
	var recs []im.Record
	// Some addresses get much, some little, and some only in a part of the log.
	for i := range 6000 {
		to := addrs[(i*i+i/7)%(2+i%len(addrs))%len(addrs)]
		if i > 2000 && i < 2600 {
			to = addrs[3]
		}
		recs = append(recs, message(im.User(fmt.Sprint("from", i%5)), to, fmt.Sprint(i), i%11 == 0))
	}
	e.appendAll(recs)
	raw, err := e.log.scan(t.Context(), 0, e.log.Position())
	require.NoError(t, err)
	model := make([]*im.Entry, len(raw))
	for i, r := range raw {
		model[i], err = r.entry()
		require.NoError(t, err)
	}
	pos := e.log.Position()
	addrs = append(addrs, quiet, im.User("from1"), im.User("from2"))

	rapid.Check(t, func(rt *rapid.T) {
		set := rapid.SliceOfNDistinct(rapid.SampledFrom(addrs), 1, len(addrs), rapid.ID).Draw(rt, "addrs")
		after := rapid.Uint64Range(0, pos).Draw(rt, "after")
		upTo := rapid.Uint64Range(after, pos+10).Draw(rt, "upTo")
		msgs := rapid.IntRange(1, 700).Draw(rt, "maxMsgs")
		bytes := rapid.IntRange(1, 100_000).Draw(rt, "maxBytes")
		// As after a restart, as always, or with an index that reaches half back.
		floor := rapid.SampledFrom([]uint64{0, pos / 2, pos}).Draw(rt, "floor")
		index := newRecent(floor, 1000)
		for _, r := range raw {
			if r.seq > floor {
				index.add(r.subject, r.seq)
			}
		}
		e.log.recent = index

		var want, got []uint64
		for _, m := range model {
			if m.Seq > after && m.Seq <= upTo && slices.Contains(set, m.To) {
				want = append(want, m.Seq)
			}
		}
		for at, pages := after, 0; at < min(upTo, pos); pages++ {
			if pages > 20 {
				return // pages of one entry: enough has been seen
			}
			entries, next, err := e.log.Read(t.Context(), set, at, upTo, msgs, bytes)
			if err != nil {
				rt.Fatal(err)
			}
			if next <= at || next > upTo {
				rt.Fatalf("next is %d after %d, up to %d", next, at, upTo)
			}
			if len(entries) > msgs {
				rt.Fatalf("%d entries, at most %d", len(entries), msgs)
			}
			for _, e := range entries {
				if e.Seq <= at || e.Seq > next {
					rt.Fatalf("entry %d is not in (%d, %d]", e.Seq, at, next)
				}
				got = append(got, e.Seq)
			}
			at = next
			have := want[:0:0]
			for _, s := range want {
				if s <= at {
					have = append(have, s)
				}
			}
			if !slices.Equal(have, got) {
				rt.Fatalf("up to %d: got %v, want %v", at, got, have)
			}
		}
	})
}

func TestReadNothing(t *testing.T) {
	e := start(t, t.TempDir(), nil)
	e.append(message(alice, bob, "m", false))
	for _, c := range []struct {
		addrs       []im.Address
		after, upTo uint64
		next        uint64
	}{
		{nil, 0, 1, 1},
		{[]im.Address{carol}, 0, 1, 1},
		{[]im.Address{bob}, 1, 1, 1},
		{[]im.Address{bob}, 1, 9, 1},
		{[]im.Address{bob}, 5, 9, 5},
	} {
		entries, next, err := e.log.Read(t.Context(), c.addrs, c.after, c.upTo, 10, 1000)
		require.NoError(t, err)
		require.Empty(t, entries)
		require.Equal(t, c.next, next)
	}
}

func TestRecentRotates(t *testing.T) {
	r := newRecent(10, 100)
	for i := range 350 {
		r.add(im.Subject(im.User(fmt.Sprint(i)), alice), uint64(11+i))
	}
	require.Greater(t, r.floor, uint64(10))
	all := []im.Address{im.User("349"), im.User("5"), im.User("never")}
	require.Len(t, r.filter(all, 10), 3, "too long ago to tell")
	require.Equal(t, all[:1], r.filter(all, r.floor))
	require.Empty(t, r.filter(all, 360))
}

func TestRetentionPerSubject(t *testing.T) {
	e := start(t, t.TempDir(), func(o *Options) { o.PerAddress = 5 })
	for i := range 9 {
		e.append(message(alice, bob, fmt.Sprint(i), false))
	}
	got, next, err := e.log.Read(t.Context(), []im.Address{bob}, 0, 9, 100, 1<<20)
	require.NoError(t, err)
	require.EqualValues(t, 9, next)
	require.Equal(t, []string{"4", "5", "6", "7", "8"}, ids(got))
}
