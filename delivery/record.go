package delivery

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/slimchat/slimchat/im"
)

// NeverExpires is the session expiry of MQTT 5.0 section 3.1.2.11.2 for "for ever".
const NeverExpires = 0xFFFFFFFF

// record is a client's durable state, as the sessions bucket keeps it.
type record struct {
	// Cursor is the position up to which the client has acknowledged everything at each
	// of its addresses that is not in Lagging.
	Cursor uint64 `json:"c"`
	// Handed is the position up to which it had been handed everything at those same
	// addresses. What lies between Cursor and Handed and is not in InFlight has been
	// acknowledged.
	Handed uint64 `json:"h,omitempty"`
	// Lagging holds addresses with a position of their own, because no subscription
	// covered them or they were still being caught up.
	Lagging map[string]uint64 `json:"l,omitempty"`
	// InFlight are the unacknowledged messages and their packet ids.
	InFlight []inFlightRecord `json:"i,omitempty"`

	Subs   []subRecord `json:"s,omitempty"`
	Expiry uint32      `json:"x,omitempty"` // seconds that Subs outlive the connection
	Epoch  string      `json:"e,omitempty"` // of the engine that wrote it
	Gone   int64       `json:"g,omitempty"` // Unix seconds of the disconnect; 0 while connected
}

type inFlightRecord struct {
	Seq uint64 `json:"n"`
	ID  uint16 `json:"p"`
}

type subRecord struct {
	Filter  string `json:"f"`
	QoS     byte   `json:"q"`
	NoLocal bool   `json:"n,omitempty"`
}

func (r *record) encode() ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode session record: %w", err)
	}
	return b, nil
}

func (e *Engine) decodeRecord(b []byte) (record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("decode session record: %w", err)
	}
	if r.Epoch != e.epoch {
		r.clamp(e.begun)
	}
	return r, nil
}

// expired tells whether the subscriptions are past their time at now.
func (r *record) expired(now time.Time) bool {
	if r.Expiry == 0 { // they never outlive the connection, not even one that a crash ended
		return true
	}
	if r.Gone == 0 || r.Expiry == NeverExpires {
		return false
	}
	return now.Unix() >= r.Gone+int64(r.Expiry)
}

// clamp takes back positions after end, where the log ended when this process began. A
// log that lost its end with the power (durability: process) gives those positions anew.
func (r *record) clamp(end uint64) {
	r.Cursor, r.Handed = min(r.Cursor, end), min(r.Handed, end)
	for a, pos := range r.Lagging {
		r.Lagging[a] = min(pos, end)
	}
	r.InFlight = slices.DeleteFunc(r.InFlight, func(f inFlightRecord) bool { return f.Seq > end })
}

// resumes tells whether Handed and InFlight speak of address.
func (r *record) resumes(a im.Address) bool {
	_, lagging := r.Lagging[a.String()]
	return r.Handed > 0 && !lagging
}

// position is how far the client has acknowledged what stands at address.
func (r *record) position(a im.Address) uint64 {
	if pos, ok := r.Lagging[a.String()]; ok {
		return pos
	}
	return r.Cursor
}
