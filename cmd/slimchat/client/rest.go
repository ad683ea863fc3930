// Package client is SlimChat seen from outside: its REST service and its MQTT listener, as the verbs that talk to a running
// server use them (chat, send, bench).
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// requestTimeout bounds one REST request, from dialling to the last byte of the answer.
const requestTimeout = 30 * time.Second

// maxAnswer bounds the bytes of an answer that are read.
const maxAnswer = 8 << 20

// REST talks to one server. It is safe for concurrent use.
type REST struct {
	base  string
	http  *http.Client
	token string
}

// NewREST returns a client of the server at base, such as http://localhost:8080. connections bounds how many connections it
// keeps open.
func NewREST(base string, connections int) (*REST, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is not a server's address: want http://host:port or https://host", base)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	return &REST{base: strings.TrimSuffix(u.String(), "/"), http: &http.Client{Transport: transport, Timeout: requestTimeout}}, nil
}

// WithToken returns a client of the same server that speaks for the token's user.
func (r *REST) WithToken(token string) *REST {
	c := *r
	c.token = token
	return &c
}

// Close ends idle connections.
func (r *REST) Close() { r.http.CloseIdleConnections() }

// Error is a server's refusal (wire.md section 6).
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field"`
}

// Error implements error.
func (e *Error) Error() string {
	text := e.Message
	if text == "" {
		text = http.StatusText(e.Status)
	}
	if e.Field != "" {
		text = e.Field + ": " + text
	}
	return fmt.Sprintf("%s (%d %s)", text, e.Status, e.Code)
}

// Login is a server's answer to a login.
type Login struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
	User      struct {
		UID string `json:"uid"`
	} `json:"user"`
	Client struct {
		ID string `json:"clientid"`
	} `json:"client"`
	Domain string `json:"domain"`
	MQTT   struct {
		TCP string `json:"tcp"`
		TLS string `json:"tls"`
		WS  string `json:"ws"`
	} `json:"mqtt"`
}

// Device describes the client that logs in. ID may be empty: the server makes one up.
type Device struct {
	Type string `json:"type"`
	App  string `json:"appid"`
	Dev  string `json:"deviceid"`
	ID   string `json:"clientid,omitempty"`
}

// Register makes an account.
func (r *REST) Register(ctx context.Context, username, password string) error {
	return r.do(ctx, http.MethodPost, "/register", map[string]any{"username": username, "password": password}, nil)
}

// Login logs a client of username in.
func (r *REST) Login(ctx context.Context, username, password string, device Device) (*Login, error) {
	var login Login
	err := r.do(ctx, http.MethodPost, "/login", map[string]any{"username": username, "password": password, "client": device}, &login)
	if err != nil {
		return nil, err
	}
	return &login, nil
}

// Logout ends the token's login.
func (r *REST) Logout(ctx context.Context) error {
	return r.do(ctx, http.MethodPost, "/logout", nil, nil)
}

// Sent is a server's promise that a message is in the log.
type Sent struct {
	ID  string `json:"id"`
	TS  int64  `json:"ts"`
	Seq uint64 `json:"seq"`
}

// Send sends a message, whose fields are those of wire.md section 3.
func (r *REST) Send(ctx context.Context, message map[string]any) (*Sent, error) {
	var sent Sent
	if err := r.do(ctx, http.MethodPost, "/messages", message, &sent); err != nil {
		return nil, err
	}
	return &sent, nil
}

// Message is a message as delivered (wire.md section 3).
type Message struct {
	ID      string `json:"id"`
	From    string `json:"from"`
	Client  string `json:"client"`
	To      string `json:"to"`
	Type    string `json:"type"`
	Thread  string `json:"thread"`
	Content struct {
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	} `json:"content"`
	TS int64 `json:"ts"`
}

// Text is what a person reads of the message: the text, or a note of what else it is.
func (m *Message) Text() string {
	var text string
	if m.Content.Type == "text" && json.Unmarshal(m.Content.Data, &text) == nil {
		return text
	}
	return fmt.Sprintf("[%s] %s", m.Content.Type, m.Content.Data)
}

// History returns up to limit messages of the conversation with peer, an address, newest first.
func (r *REST) History(ctx context.Context, peer string, limit int) ([]Message, error) {
	var page struct {
		Items []Message `json:"items"`
	}
	query := url.Values{"with": {peer}, "limit": {strconv.Itoa(limit)}}
	if err := r.do(ctx, http.MethodGet, "/messages?"+query.Encode(), nil, &page); err != nil {
		return nil, err
	}
	return page.Items, nil
}

// do makes one request: body and answer are JSON, nil for none. A refusal is an *Error.
func (r *REST) do(ctx context.Context, method, path string, body, answer any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, r.base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if r.token != "" {
		request.Header.Set("Authorization", "Bearer "+r.token)
	}
	response, err := r.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if response.StatusCode >= 300 {
		var refusal struct {
			Error Error `json:"error"`
		}
		_ = json.Unmarshal(got, &refusal) // an answer of another shape is told by its status
		refusal.Error.Status = response.StatusCode
		return &refusal.Error
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(got, answer); err != nil {
		return fmt.Errorf("%s %s: the answer is not what a SlimChat server says: %w", method, path, err)
	}
	return nil
}
