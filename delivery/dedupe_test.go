package delivery

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
)

func TestWindowRemembersForItsAge(t *testing.T) {
	now := time.Unix(0, 0)
	w := NewWindow(10*time.Minute, 1000)
	w.now, w.opened = func() time.Time { return now }, now
	w.Note(im.User("a"), "1", 5)
	now = now.Add(9 * time.Minute)
	w.Note(im.User("a"), "2", 6)
	now = now.Add(2 * time.Minute)
	w.Note(im.User("a"), "3", 7)
	for id, want := range map[string]uint64{"1": 5, "2": 6, "3": 7} {
		seq, ok := w.Lookup(im.User("a"), id)
		require.True(t, ok, id)
		require.Equal(t, want, seq)
	}
	_, ok := w.Lookup(im.User("b"), "1")
	require.False(t, ok, "ids belong to their sender")
	_, ok = w.Lookup(im.Node("a"), "1")
	require.False(t, ok, "a node is not the user of the same name")
	w.Note(im.User("a"), "1", 9)
	seq, _ := w.Lookup(im.User("a"), "3")
	require.EqualValues(t, 7, seq)
}

func TestWindowIsBounded(t *testing.T) {
	w := NewWindow(time.Hour, 1000)
	for i := range 100_000 {
		w.Note(im.User("a"), fmt.Sprint(i), uint64(i+1))
	}
	require.LessOrEqual(t, len(w.young)+len(w.old), 1000)
	for i := 99_500; i < 100_000; i++ {
		seq, ok := w.Lookup(im.User("a"), fmt.Sprint(i))
		require.True(t, ok)
		require.EqualValues(t, i+1, seq)
	}
}

func TestTailNotesMessagesAndNotCopies(t *testing.T) {
	w := NewWindow(time.Hour, 1000)
	w.noteAll([]*im.Entry{
		{Seq: 1, Envelope: im.Envelope{From: im.User("a"), ID: "x"}},
		{Seq: 2, Envelope: im.Envelope{From: im.User("a"), ID: "x", Flags: im.FlagCopy}},
		{Seq: 3, Envelope: im.Envelope{From: im.User("a"), ID: "x"}},
	})
	seq, ok := w.Lookup(im.User("a"), "x")
	require.True(t, ok)
	require.EqualValues(t, 1, seq, "the first is the message")
}

// Everything after the floor is in the window, whatever has been forgotten.
func TestWindowFloor(t *testing.T) {
	w := NewWindow(time.Hour, 20)
	require.EqualValues(t, uint64(math.MaxUint64), w.Floor(), "nobody fills it")
	w.follow(100)
	require.EqualValues(t, 100, w.Floor())
	for seq := uint64(101); seq <= 200; seq++ {
		if seq%7 == 0 { // the router knows it before the tail does
			w.Note(im.User("a"), fmt.Sprint(seq+3), seq+3)
		}
		w.noteAll([]*im.Entry{{Seq: seq, Envelope: im.Envelope{From: im.User("a"), ID: fmt.Sprint(seq)}}})
		require.Less(t, w.Floor(), seq)
		for s := w.Floor() + 1; s <= seq; s++ {
			_, ok := w.Lookup(im.User("a"), fmt.Sprint(s))
			require.True(t, ok, "floor %d, at %d: %d", w.Floor(), seq, s)
		}
	}
	require.Greater(t, w.Floor(), uint64(170), "it keeps no more than it may")
}
