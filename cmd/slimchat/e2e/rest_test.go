package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/stretchr/testify/require"
)

// password is everybody's.
const password = "correct horse battery"

// login is what a device got from POST /login, and all it needs to connect.
type login struct {
	User   string // its uid
	Client string // its client identifier
	Token  string
}

// inbox is the topic of what is sent to the user.
func (l login) inbox() string { return "$IM/user/" + l.User }

// own is the topic of what is sent to this client alone.
func (l login) own() string { return l.inbox() + "/client/" + l.Client }

// address is the user's.
func (l login) address() string { return "user/" + l.User }

// refusal is the body of an error.
type refusal struct {
	Error struct{ Code, Message, Field string } `json:"error"`
}

var rest = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}

// secure makes REST requests over TLS from now on.
func (s *server) secure() {
	transport := &http.Transport{TLSClientConfig: trusting(s)}
	s.web, s.rest = "https", &http.Client{Timeout: time.Minute, Transport: transport}
	s.t.Cleanup(transport.CloseIdleConnections)
}

// call makes one REST request and returns its status. token may be empty; body is sent as JSON unless nil, a string as it is;
// the answer is read into answer unless nil.
func (s *server) call(token, method, path string, body, answer any) int {
	s.t.Helper()
	var text []byte
	switch b := body.(type) {
	case nil:
	case string:
		text = []byte(b)
	default:
		var err error
		text, err = json.Marshal(b)
		require.NoError(s.t, err)
	}
	request, err := http.NewRequest(method, s.web+"://"+s.addr.HTTP+path, bytes.NewReader(text))
	require.NoError(s.t, err)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := s.rest.Do(request)
	require.NoError(s.t, err, "%s %s", method, path)
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	require.NoError(s.t, err, "%s %s", method, path)
	if answer != nil {
		require.NoError(s.t, json.Unmarshal(got, answer), "%s %s: %d %s", method, path, response.StatusCode, got)
	}
	return response.StatusCode
}

// register makes an account.
func (s *server) register(user string) {
	s.t.Helper()
	var why refusal
	status := s.call("", http.MethodPost, "/register", map[string]any{"username": user, "password": password}, &why)
	require.Equal(s.t, http.StatusCreated, status, "register %s: %+v", user, why)
}

// login logs a client of a user in; an empty client lets the server choose.
func (s *server) login(user, client string) login {
	s.t.Helper()
	var got struct {
		refusal
		Token  string
		Client struct{ ClientID string }
	}
	status := s.call("", http.MethodPost, "/login", map[string]any{
		"username": user, "password": password,
		"client": map[string]any{"type": "test", "appid": "e2e", "deviceid": client, "clientid": client},
	}, &got)
	require.Equal(s.t, http.StatusOK, status, "login %s: %+v", user, got.refusal)
	require.NotEmpty(s.t, got.Token)
	require.NotEmpty(s.t, got.Client.ClientID)
	return login{User: user, Client: got.Client.ClientID, Token: got.Token}
}

// account registers a user and logs its first client in.
func (s *server) account(user, client string) login {
	s.t.Helper()
	s.register(user)
	return s.login(user, client)
}

// logout ends a login.
func (s *server) logout(l login) {
	s.t.Helper()
	require.Equal(s.t, http.StatusNoContent, s.call(l.Token, http.MethodPost, "/logout", nil, nil))
}

// sent is the answer of POST /messages.
type sent struct {
	ID  string
	TS  int64
	Seq uint64
}

// post sends a message over REST, which must be taken.
func (s *server) post(from login, message map[string]any) sent {
	s.t.Helper()
	var got struct {
		sent
		refusal
	}
	require.Equal(s.t, http.StatusAccepted, s.call(from.Token, http.MethodPost, "/messages", message, &got), "%+v", got.refusal)
	return got.sent
}

// page is an answer of GET /messages.
type page struct {
	Items []message
	Next  string
}

// history asks for a part of a conversation: history(alice, "with", "user/bob", "limit", "10").
func (s *server) history(who login, query ...string) page {
	s.t.Helper()
	values := url.Values{}
	for i := 0; i < len(query); i += 2 {
		values.Set(query[i], query[i+1])
	}
	var got page
	require.Equal(s.t, http.StatusOK, s.call(who.Token, http.MethodGet, "/messages?"+values.Encode(), nil, &got), "%v", query)
	return got
}
