package delivery

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/slimchat/slimchat/im"
)

// memLog is a log in memory for the property tests, which need thousands of short lives
// of an engine. The real log has its own tests, and cmd/slimchat runs both together.
type memLog struct {
	mu      sync.Mutex
	entries []*im.Entry
	grown   chan struct{}
	records map[im.SessionKey][]byte
	reads   int
}

func newMemLog() *memLog {
	return &memLog{grown: make(chan struct{}), records: map[im.SessionKey][]byte{}}
}

func (m *memLog) append(to, from im.Address, client, id string, flags uint8) *im.Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := &im.Entry{Seq: uint64(len(m.entries) + 1), To: to, Envelope: im.Envelope{
		From: from, Client: client, ID: id, Flags: flags, Body: []byte(`{"id":"` + id + `"}`)}}
	m.entries = append(m.entries, e)
	close(m.grown)
	m.grown = make(chan struct{})
	return e
}

func (m *memLog) Position() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.entries))
}

func (m *memLog) PositionAt(context.Context, time.Time) (uint64, error) { return 0, nil }

func (m *memLog) Tail(ctx context.Context, after uint64, fn func([]*im.Entry)) error {
	for {
		m.mu.Lock()
		batch, grown := m.entries[after:], m.grown
		m.mu.Unlock()
		if len(batch) > 0 {
			batch = batch[:min(len(batch), 7)]
			fn(batch)
			after = batch[len(batch)-1].Seq
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-grown:
		}
	}
}

func (m *memLog) Read(_ context.Context, addrs []im.Address, after, upTo uint64, maxMsgs, _ int) ([]*im.Entry, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	var out []*im.Entry
	for _, e := range m.entries[after:min(upTo, uint64(len(m.entries)))] {
		for _, a := range addrs {
			if e.To == a {
				out = append(out, e)
			}
		}
		if len(out) == maxMsgs {
			return out, e.Seq, nil
		}
	}
	return out, upTo, nil
}

func (m *memLog) LoadSession(_ context.Context, key im.SessionKey) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records[key], nil
}

func (m *memLog) ListSessions(_ context.Context, owner im.Address) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]byte{}
	for k, v := range m.records {
		if k.Owner == owner {
			out[k.Client] = v
		}
	}
	return out, nil
}

func (m *memLog) StoreSessions(_ context.Context, records map[im.SessionKey][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.records, records)
	for k, v := range records {
		if v == nil {
			delete(m.records, k)
		}
	}
	return nil
}
