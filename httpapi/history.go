package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/slimchat/slimchat/im"
)

// HistoryQuery asks for a part of a conversation. Its fields are those of the message log's
// query, so that one converts into the other.
type HistoryQuery struct {
	Me, With im.Address // the two ends
	// Before and After bound the positions, both exclusive; 0 leaves that end open. With
	// After alone the answer has the entries that follow it, otherwise the newest.
	Before, After uint64
	Limit         int
	Match         func(*im.Entry) bool // keep only these
	MaxScan       int                  // look at so many at most
}

// History reads conversations from the log.
type History interface {
	// History returns entries newest first, without the copies that senders keep. more is
	// the next Before (or After, when only that was given), 0 when there is nothing further.
	History(ctx context.Context, q HistoryQuery) (entries []*im.Entry, more uint64, err error)
	// Find looks for a message among the last limit that sender sent to an address; nil
	// when it is not there.
	Find(ctx context.Context, sender im.Address, id string, to im.Address, limit int) (*im.Entry, error)
}

// Limits of one request for history.
const (
	historyUsual = 50
	historyMost  = 200
	historyScan  = 4000 // messages looked at when filters hide most of them
	findDepth    = 1000 // messages of each side searched for an id
)

// historyRequest is a checked request.
type historyRequest struct {
	HistoryQuery
	forward bool   // towards the newer
	around  uint64 // if not 0: this position, and what is on either side
}

// history answers a page of a conversation, newest first. `next` continues in the direction
// of the request; because of the filters a page may have fewer items than asked for, even
// none, and still a next.
func (a *API) history(c echo.Context) error {
	ctx := c.Request().Context()
	release, err := a.reads.acquire(ctx, caller(c).Subject)
	if err != nil {
		return err
	}
	defer release()
	h, err := a.historyRequest(c)
	if err != nil {
		return err
	}
	if h.around > 0 {
		return a.historyAround(ctx, c, h)
	}
	items, more, err := a.History.History(ctx, h.HistoryQuery)
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, encodeHistory(items, cursor(h.forward, more)))
}

// historyAround answers with the message itself and as many on either side; next goes on to
// the older ones.
func (a *API) historyAround(ctx context.Context, c echo.Context, h historyRequest) error {
	var newer []*im.Entry
	if h.Limit > 1 {
		q := h.HistoryQuery
		q.After, q.Limit = h.around, h.Limit/2
		var err error
		if newer, _, err = a.History.History(ctx, q); err != nil {
			return err
		}
	}
	q := h.HistoryQuery
	q.Before, q.Limit = h.around+1, h.Limit-len(newer)
	older, more, err := a.History.History(ctx, q)
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, encodeHistory(append(newer, older...), cursor(false, more)))
}

// cursor is the text of `next`: a direction and a position.
func cursor(forward bool, more uint64) string {
	switch {
	case more == 0:
		return ""
	case forward:
		return "a" + strconv.FormatUint(more, 10)
	default:
		return "b" + strconv.FormatUint(more, 10)
	}
}

func (a *API) historyRequest(c echo.Context) (historyRequest, error) {
	q := readQuery(c, "with", "before", "after", "around", "cursor", "thread", "from", "type", "limit")
	h := historyRequest{HistoryQuery: HistoryQuery{
		Me: caller(c).Subject, Limit: q.limit(historyUsual, historyMost), MaxScan: historyScan,
	}}
	h.With = a.addressParam(q, "with")
	if q.values.Get("with") == "" {
		q.fail("with", "is required")
	}
	filter := historyFilter{
		from: a.addressParam(q, "from"), thread: q.values.Get("thread"), typ: q.values.Get("type"),
		now: time.Now().UnixMilli(),
	}
	h.Match = filter.passes
	if q.err != nil {
		return h, q.err
	}
	switch {
	case h.With.Domain != "":
		return h, im.Errorf(im.CodeUnknownDomain, "with", "%q is no peer of this domain", h.With.Domain)
	case h.With.Kind == im.KindRoom:
		return h, im.Errorf(im.CodeNotMember, "with", "you are not a member of this room")
	case h.With.Kind == im.KindClient:
		return h, im.Errorf(im.CodeInvalid, "with", "is a client: conversations are with its user")
	}
	return h, a.position(c.Request().Context(), q, &h)
}

func (a *API) addressParam(q *query, name string) im.Address {
	text := q.values.Get(name)
	if text == "" {
		return im.Address{}
	}
	address, err := im.ParseAddress(text)
	if err != nil {
		q.fail(name, "is not an address")
	}
	return address.Local(a.Domain)
}

// position reads where to start: at most one of before, after, around and cursor.
func (a *API) position(ctx context.Context, q *query, h *historyRequest) error {
	given := ""
	for _, name := range []string{"before", "after", "around", "cursor"} {
		if q.values.Get(name) == "" {
			continue
		}
		if given != "" {
			return im.Errorf(im.CodeInvalid, name, "cannot be combined with %s", given)
		}
		given = name
	}
	if given == "" {
		return nil
	}
	seq, err := a.positionOf(ctx, h, given, q.values.Get(given))
	if err != nil {
		return err
	}
	switch given {
	case "before":
		h.Before = seq
	case "after":
		h.After, h.forward = seq, true
	case "around":
		h.around = seq
	}
	return nil
}

// positionOf reads a position, which is a number, or the id of a message. An id of digits
// alone is taken for a position.
func (a *API) positionOf(ctx context.Context, h *historyRequest, name, text string) (uint64, error) {
	if name == "cursor" {
		seq, err := strconv.ParseUint(text[1:], 10, 64)
		switch {
		case err != nil || seq == 0 || text[0] != 'a' && text[0] != 'b':
			return 0, im.Errorf(im.CodeInvalid, name, "is not the next of an earlier answer")
		case text[0] == 'a':
			h.After, h.forward = seq, true
		default:
			h.Before = seq
		}
		return seq, nil
	}
	if seq, err := strconv.ParseUint(text, 10, 63); err == nil {
		if seq == 0 {
			return 0, im.Errorf(im.CodeInvalid, name, "must be 1 or more: positions start there")
		}
		return seq, nil
	}
	if len(text) > im.MaxIDBytes {
		return 0, im.Errorf(im.CodeInvalid, name, "is neither a position nor a message id")
	}
	sent, err := a.History.Find(ctx, h.Me, text, h.With, findDepth)
	if err != nil {
		return 0, err
	}
	got, err := a.History.Find(ctx, h.With, text, h.Me, findDepth)
	switch {
	case err != nil:
		return 0, err
	case sent == nil && got == nil:
		return 0, im.Errorf(im.CodeNotFound, name, "there is no such message in this conversation")
	case sent == nil || got != nil && got.Seq > sent.Seq:
		return got.Seq, nil
	}
	return sent.Seq, nil
}

// historyFilter is what a request wants to see of a conversation; zero values let all pass.
type historyFilter struct {
	from        im.Address
	thread, typ string
	now         int64 // Unix milliseconds; what has expired is left out
}

func (f historyFilter) passes(e *im.Entry) bool {
	if e.Expires != 0 && e.Expires <= f.now || !f.from.IsZero() && f.from != e.From {
		return false
	}
	if f.thread == "" && f.typ == "" {
		return true
	}
	var fields struct {
		Thread string `json:"thread"`
		Type   string `json:"type"`
	}
	if err := json.Unmarshal(e.Body, &fields); err != nil {
		return false
	}
	return (f.thread == "" || f.thread == fields.Thread) && (f.typ == "" || f.typ == fields.Type)
}

// encodeHistory writes the messages byte for byte as they were delivered, each with its
// position. A stamped body is an object that ends in the field ts.
func encodeHistory(items []*im.Entry, next string) []byte {
	var out bytes.Buffer
	out.WriteString(`{"items":[`)
	for i, e := range items {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(bytes.TrimSuffix(e.Body, []byte("}")))
		out.WriteString(`,"seq":`)
		out.WriteString(strconv.FormatUint(e.Seq, 10))
		out.WriteByte('}')
	}
	out.WriteString(`],"next":"` + next + `"}`)
	return out.Bytes()
}
