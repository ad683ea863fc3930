package delivery

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/im"
)

// TestWhatAForgottenClientAcknowledgedIsNotRepeated: a user with one phone logs out and in
// again, and gets what it has not had, not everything from the beginning.
func TestWhatAForgottenClientAcknowledgedIsNotRepeated(t *testing.T) {
	e, m := startEngine(t, Options{})
	key := im.SessionKey{Owner: im.User("alice"), Client: "c1"}
	gone := func(context.Context) (bool, error) { return true, nil }
	for round := range 3 {
		s, r, _ := attach(t, e, "alice", "c1", AttachOptions{Expiry: NeverExpires})
		s.Subscribe(t.Context(), []Subscription{filter(t, "$IM/#")})
		send(m, im.User("alice"), 5)
		for i, p := range r.wait(t, 5) {
			require.EqualValues(t, 5*round+i+1, p.Entry.Seq)
			require.True(t, s.Ack(p.PacketID))
		}
		require.NoError(t, e.Forget(t.Context(), key, gone))
		if round == 1 { // the next one finds it written down, not waiting to be
			require.NoError(t, e.flush(t.Context(), true))
		}
		require.NoError(t, e.Forget(t.Context(), key, gone), "twice is as good as once")
	}
	stop(t, e)
}

// TestRecordsStaySmall: no choice of filters makes a record that cannot be written.
func TestRecordsStaySmall(t *testing.T) {
	e, m := startEngine(t, Options{})
	for _, expiry := range []uint32{0, NeverExpires} {
		s, _, _ := attach(t, e, "alice", fmt.Sprint("c", expiry), AttachOptions{Expiry: expiry})
		refused := 0
		for i := range maxSubscriptions + 10 {
			for _, text := range []string{fmt.Sprintf("$IM/+/%d%s", i, strings.Repeat("<", 100)), fmt.Sprintf("$IM/+/%d\x01%s", i, strings.Repeat("x", 900))} {
				if s.Subscribe(t.Context(), []Subscription{filter(t, text)})[0].Err != nil {
					refused++
				}
			}
		}
		require.Greater(t, refused, maxSubscriptions)
		s.mu.Lock()
		rec := s.recordLocked()
		s.mu.Unlock()
		data, err := rec.encode()
		require.NoError(t, err)
		require.Less(t, len(data), 8*maxSubscriptionBytes)
		if expiry == 0 {
			require.Empty(t, rec.Subs, "what ends with the connection is not written")
		}
		s.Detach(t.Context(), expiry)
	}
	require.NoError(t, e.flush(t.Context(), true))
	require.Len(t, m.records, 2)
	stop(t, e)
}
