package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// device is a real client of some make that is connected as one login.
type device interface {
	// subscribe asks for a filter at QoS 1 and returns the code of SUBACK.
	subscribe(filter string) byte
	// publish sends a message and waits for the end of its acknowledgement.
	publish(qos byte, topic, payload string) outcome
	// disconnect says goodbye and waits until the connection is closed.
	disconnect()
	// drop closes the network connection without a word.
	drop()
	// got is what the server sent.
	got() *arrivals
}

// outcome is how the server answered a publish: in 3.1.1 the code is always 0.
type outcome struct {
	Code   byte
	Reason string
}

// dialing says how a device connects.
type dialing struct {
	login
	URL    string // empty: the listener that this make uses
	Clean  bool
	Expiry uint32 // of the session in seconds, 5.0 only
	Alive  uint16 // keep-alive in seconds; 0: 30
	Will   *testament
}

// testament is a Last Will.
type testament struct {
	Topic, Payload string
	QoS            byte
}

// connack is how the server answered a CONNECT.
type connack struct {
	Code     byte
	Present  bool
	Assigned string // Assigned Client Identifier
	Reason   string // Reason String
}

// delivered is one PUBLISH that a device got.
type delivered struct {
	message
	Topic string
	QoS   byte
	Dup   bool
	User  [][2]string // user properties, in order
	Body  string
}

// user is the value of a user property, empty when there is none.
func (d delivered) user(key string) string {
	for _, pair := range d.User {
		if pair[0] == key {
			return pair[1]
		}
	}
	return ""
}

// refused is what an error event says (wire.md section 4).
type refused struct{ ID, Code, Message, To string }

// arrivals collects what a device gets, on whatever goroutine its library calls it.
type arrivals struct {
	t        testing.TB
	who      login
	messages chan delivered
	bye      atomic.Int32  // the reason of the server's DISCONNECT, -1 for none
	byeText  atomic.Value  // its reason string
	closed   chan struct{} // closed with the connection
	shut     atomic.Bool
}

func newArrivals(t testing.TB, who login) *arrivals {
	a := &arrivals{t: t, who: who, messages: make(chan delivered, 1<<16), closed: make(chan struct{})}
	a.bye.Store(-1)
	a.byeText.Store("")
	return a
}

func (a *arrivals) got() *arrivals { return a }

func (a *arrivals) add(d delivered) {
	if err := json.Unmarshal([]byte(d.Body), &d.message); err != nil {
		a.t.Errorf("%s got what is no message: %s", a.who.Client, d.Body)
	}
	a.messages <- d
}

func (a *arrivals) disconnected(code byte, reason string) {
	a.byeText.Store(reason)
	a.bye.Store(int32(code))
}

func (a *arrivals) end() {
	if a.shut.CompareAndSwap(false, true) {
		close(a.closed)
	}
}

// next waits for the next message.
func (a *arrivals) next() delivered {
	a.t.Helper()
	select {
	case d := <-a.messages:
		return d
	case <-time.After(patience):
		a.t.Fatalf("%s of %s waits in vain for a message", a.who.Client, a.who.User)
		return delivered{}
	}
}

// take waits for messages with these ids, in this order and no other between them, and returns the last one.
func (a *arrivals) take(ids ...string) (last delivered) {
	a.t.Helper()
	for _, id := range ids {
		last = a.next()
		for id != last.ID && strings.HasPrefix(last.ID, markerPrefix) {
			// The connection before this one ended before the client had acknowledged its last marker.
			last = a.next()
		}
		require.Equal(a.t, id, last.ID, "%s of %s got %s", a.who.Client, a.who.User, last.Body)
	}
	return last
}

// refusal waits for an error event.
func (a *arrivals) refusal() refused {
	a.t.Helper()
	d := a.next()
	require.Equal(a.t, "event", d.Type, d.Body)
	require.Equal(a.t, "error", d.Content.Type, d.Body)
	require.Equal(a.t, "node/e2e", d.From)
	require.Equal(a.t, a.who.address(), d.To)
	var r refused
	require.NoError(a.t, json.Unmarshal(d.Content.Data, &r))
	return r
}

// gone waits until the connection is closed and returns the reason that the server gave, -1 for none.
func (a *arrivals) gone() int {
	a.t.Helper()
	select {
	case <-a.closed:
		return int(a.bye.Load())
	case <-time.After(patience):
		a.t.Fatalf("the connection of %s of %s stays open", a.who.Client, a.who.User)
		return 0
	}
}

// alive makes sure that the server has not ended the connection.
func (a *arrivals) alive() bool {
	select {
	case <-a.closed:
		return false
	default:
		return true
	}
}

const markerPrefix = "marker-"

var markers atomic.Int64

// nothingMore proves that the device got nothing since its last message and that nothing is under way to it: a message to
// this client alone, sent now, comes next, because the log has one order. The device must be subscribed to its own address.
func (s *server) nothingMore(devices ...device) {
	s.t.Helper()
	for _, d := range devices {
		who := d.got().who
		id := fmt.Sprint(markerPrefix, markers.Add(1))
		s.post(who, map[string]any{
			"id": id, "to": who.address() + "/client/" + who.Client, "type": "chat", "content": map[string]any{"type": "text", "data": ""},
		})
		d.got().take(id)
	}
}

// noticesGoing waits until the server has seen that a client has left.
func (s *server) noticesGoing(l login) {
	s.t.Helper()
	eventually(s.t, func() bool {
		var list struct {
			Items []struct {
				ClientID string
				Online   bool
			}
		}
		require.Equal(s.t, http.StatusOK, s.call(l.Token, http.MethodGet, "/clients?limit=1000", nil, &list))
		for _, c := range list.Items {
			if c.ClientID == l.Client {
				return !c.Online
			}
		}
		return true
	}, "%s of %s stays online", l.Client, l.User)
}

// in is the server for a subtest, which its failures are told to.
func (s *server) in(t *testing.T) *server {
	c := *s
	c.t = t
	return &c
}

// maker makes devices with one real client library.
type maker struct {
	name    string
	v5      bool
	connect func(s *server, how dialing) (device, connack) // nil device when refused
}

// makers are all that can hold a connection and both send and receive on it. mosquitto's programs, which do one of them each,
// have tests of their own.
func makers(t *testing.T) []maker {
	list := []maker{
		{name: "paho-3.1.1", connect: connectPaho3},
		{name: "paho-5.0", v5: true, connect: connectPaho5},
	}
	node := newNode(t)
	return append(list,
		maker{name: "mqttjs-3.1.1-websocket", connect: func(s *server, how dialing) (device, connack) { return node.connect(s, 4, how) }},
		maker{name: "mqttjs-5.0-websocket", v5: true, connect: func(s *server, how dialing) (device, connack) { return node.connect(s, 5, how) }},
	)
}

// online connects a device that must be taken, subscribes it to everything of its own, and ends it with the test.
func (m maker) online(s *server, how dialing) device {
	s.t.Helper()
	d, _ := m.reconnect(s, how)
	require.EqualValues(s.t, 1, d.subscribe("$IM/#"), "SUBACK")
	return d
}

// reconnect connects a device that must be taken and leaves its subscriptions as the server remembers them.
func (m maker) reconnect(s *server, how dialing) (device, connack) {
	s.t.Helper()
	d, ack := m.connect(s, how)
	require.Zero(s.t, ack.Code, "CONNACK %s", ack.Reason)
	s.t.Cleanup(d.drop)
	return d, ack
}
