package e2e

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestServerStartsStopsAndStartsAgain(t *testing.T) {
	s := startServer(t)
	require.Equal(t, http.StatusOK, s.call("", http.MethodGet, "/healthz", nil, nil))
	require.Equal(t, http.StatusOK, s.call("", http.MethodGet, "/readyz", nil, nil))
	alice := s.account("alice", "phone")
	s.register("bob")
	first := s.post(alice, map[string]any{"to": "user/bob", "id": "m1", "type": "chat", "content": map[string]any{"type": "text", "data": "hi"}})
	s.restart()
	s.kill()
	s.start()
	got := s.history(alice, "with", "user/bob")
	require.Equal(t, []string{"m1"}, ids(got.Items))
	require.Equal(t, first.Seq, got.Items[0].Seq)
}

func TestSecondProcessOnTheSameDataIsRefused(t *testing.T) {
	s := startServer(t)
	second := newServer(t, withData(s.data))
	// The first one's listen.json must not be mistaken for the second one's.
	require.ErrorContains(t, second.tryStart(), "it ended: exit status 1")
	require.Equal(t, http.StatusOK, s.call("", http.MethodGet, "/readyz", nil, nil))
}
