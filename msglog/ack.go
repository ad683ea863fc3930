package msglog

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ack is JetStream's answer to one publish.
type ack struct {
	id  uint64 // the group that it is for
	seq uint64
	err error
}

// onAck runs on the connection's goroutine for the inbox.
func (c *committer) onAck(m *nats.Msg) {
	a := parseAck(m.Data)
	if m.Header.Get("Status") == "503" {
		a.err = nats.ErrNoResponders
	}
	id, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 10, 64)
	if err != nil {
		return
	}
	a.id = id
	select {
	case c.acks <- a:
	case <-c.ctx.Done():
	}
}

// parseAck reads `{"stream":"IM","domain":"d","seq":12}` without the cost of a general
// parser; whatever looks different goes to that one.
func parseAck(data []byte) ack {
	const field = `"seq":`
	s := data
	if n := len(s); n > 0 && s[n-1] == '}' {
		s = s[:n-1]
		for len(s) > 0 && s[len(s)-1] == ' ' {
			s = s[:len(s)-1]
		}
		end := len(s)
		for end > 0 && s[end-1] >= '0' && s[end-1] <= '9' {
			end--
		}
		num, head := s[end:], s[:end]
		for len(head) > 0 && head[len(head)-1] == ' ' {
			head = head[:len(head)-1]
		}
		if len(num) > 0 && len(num) < 20 && strings.HasSuffix(string(head), field) && strings.HasPrefix(string(head), `{"stream":`) {
			var seq uint64
			for _, d := range num {
				seq = seq*10 + uint64(d-'0')
			}
			return ack{seq: seq}
		}
	}
	var r struct {
		Error *jetstream.APIError `json:"error"`
		Seq   uint64              `json:"seq"`
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return ack{err: fmt.Errorf("acknowledgement: %w", err)}
	}
	if r.Error != nil {
		return ack{err: r.Error}
	}
	if r.Seq == 0 {
		return ack{err: fmt.Errorf("acknowledgement without a position")}
	}
	return ack{seq: r.Seq}
}
