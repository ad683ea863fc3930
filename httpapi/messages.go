package httpapi

import (
	"context"
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
	ctx := c.Request().Context()
	done := make(chan outcome, 1) // never blocks the router, also when nobody waits any more
	a.Publisher.Publish(ctx, caller(c).Principal(),
		router.Publish{To: to, Payload: body, QoS: 1, IDOptional: true},
		func(r router.Receipt, err error) { done <- outcome{r, err} })
	got, err := await(ctx, done)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusAccepted, struct {
		ID  string `json:"id"`
		TS  int64  `json:"ts"`
		Seq uint64 `json:"seq"`
	}{got.ID, got.TS, got.Seq})
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
