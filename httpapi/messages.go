package httpapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/router"
)

// outcome is what the router says of one publish.
type outcome struct {
	receipt router.Receipt
	err     error
}

// headerMessageID tells the id that was made for a message without one, whatever became of it.
const headerMessageID = "X-Message-Id"

// send publishes a message as the caller (wire.md section 3; the id may be left out). It
// answers once the message is in the log.
func (a *API) send(c echo.Context) error {
	body, err := readBody(c, int64(a.PayloadLimit))
	if err != nil {
		return err
	}
	draft, err := im.ParseMessage(body, true)
	if err != nil {
		return err
	}
	if draft.To == "" {
		return im.Errorf(im.CodeInvalid, "to", "is required")
	}
	to, err := im.ParseAddress(draft.To)
	if err != nil {
		return err
	}
	made := ""
	if draft.ID == "" {
		// Made here and not further in, so that we know it also when no answer comes.
		made = rand.Text()
		if body, err = withID(body, made); err != nil {
			return err
		}
		c.Response().Header().Set(headerMessageID, made)
	}
	ctx := c.Request().Context()
	done := make(chan outcome, 1) // never blocks the router, also when nobody waits any more
	a.Publisher.Publish(ctx, caller(c).Principal(),
		router.Publish{To: to, Payload: body, QoS: 1},
		func(r router.Receipt, err error) { done <- outcome{r, err} })
	got, err := await(ctx, done)
	if err != nil {
		return namingID(err, made)
	}
	return c.JSON(http.StatusAccepted, struct {
		ID  string `json:"id"`
		TS  int64  `json:"ts"`
		Seq uint64 `json:"seq"`
	}{got.ID, got.TS, got.Seq})
}

// withID gives a message that has no id this one.
func withID(body []byte, id string) ([]byte, error) {
	inside, ok := bytes.CutPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{"))
	if !ok { // cannot be: it was parsed
		return nil, im.Errorf(im.CodeMalformed, "", "the body is not a JSON object")
	}
	out := append([]byte(`{"id":"`+id+`",`), inside...)
	if _, err := im.ParseMessage(out, false); err != nil {
		return nil, im.Errorf(im.CodeInvalid, "id", "is empty: give one, or leave it out")
	}
	return out, nil
}

// namingID adds the id that we made to an error after which the message may be in the log
// all the same: sent again with it, it is recognised.
func namingID(err error, made string) error {
	e := im.AsError(err)
	if made == "" || e.Code != im.CodeUnavailable {
		return err
	}
	return &im.Error{Code: e.Code, Field: e.Field, Message: e.Message + "; its id is " + made, Err: err}
}

func await(ctx context.Context, done <-chan outcome) (router.Receipt, error) {
	select {
	case o := <-done:
		return o.receipt, o.err
	case <-ctx.Done():
		return router.Receipt{}, &im.Error{
			Code:    im.CodeUnavailable,
			Message: "the log did not answer in time: send the message again with the same id",
			Err:     ctx.Err(),
		}
	}
}
