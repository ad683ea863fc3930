package msglog

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
)

func TestTailEndsWithTheLog(t *testing.T) {
	e := start(t, t.TempDir(), nil)
	c, done := newCollector(), make(chan error, 1)
	go func() { done <- e.log.Tail(context.Background(), 0, c.add) }()
	e.append(message(alice, bob, "m", false))
	c.wait(t, 1)
	e.stop()
	require.ErrorIs(t, <-done, ErrClosed)
	require.ErrorIs(t, e.log.Tail(context.Background(), 0, c.add), ErrClosed)
}

func TestTailStartsAnywhere(t *testing.T) {
	e := start(t, t.TempDir(), nil)
	var recs []im.Record
	for i := range 2000 {
		recs = append(recs, message(alice, bob, fmt.Sprint(i), false))
	}
	e.appendAll(recs)
	for _, after := range []uint64{0, 1, 999, 1999} {
		got := e.tail(after).wait(t, 2000-int(after))
		require.Equal(t, after+1, got[0].Seq)
		require.EqualValues(t, 2000, got[len(got)-1].Seq)
	}
}

func TestParseAckReply(t *testing.T) {
	s, c, ok := parseAckReply("$JS.ACK.IM.con.1.22.33.1700000000.44")
	require.True(t, ok)
	require.EqualValues(t, []uint64{22, 33}, []uint64{s, c})
	s, c, ok = parseAckReply("$JS.ACK.dom.hash.IM.con.1.22.33.1700000000.44.tok")
	require.True(t, ok)
	require.EqualValues(t, []uint64{22, 33}, []uint64{s, c})
	for _, bad := range []string{"", "a.b", "$JS.ACK.IM.con.1.x.33.1.44", "$JS.ACK.IM.con.1.0.33.1.44"} {
		_, _, ok := parseAckReply(bad)
		require.False(t, ok, bad)
	}
}
