package httpapi

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
)

// The codes that only HTTP has.
const (
	codeTokenMissing im.Code = "token_missing"
	codeMethod       im.Code = "method_not_allowed"
	codeMediaType    im.Code = "unsupported_media_type"
	codeBadRequest   im.Code = "bad_request"
)

const statusOfUnknownCodes = http.StatusBadRequest

// statuses maps each code to its HTTP status, here and nowhere else.
var statuses = map[im.Code]int{
	im.CodeMalformed:      http.StatusBadRequest,
	im.CodeInvalid:        http.StatusBadRequest,
	im.CodeInvalidAddress: http.StatusBadRequest,
	im.CodeWrongTo:        http.StatusBadRequest,
	im.CodeTooLarge:       http.StatusRequestEntityTooLarge,
	im.CodeForgedFrom:     http.StatusForbidden,
	im.CodeForbidden:      http.StatusForbidden,
	im.CodeNotMember:      http.StatusForbidden,
	im.CodeNotFound:       http.StatusNotFound,
	im.CodeUnknownDomain:  http.StatusNotFound,
	im.CodeConflict:       http.StatusConflict,
	im.CodeRateLimited:    http.StatusTooManyRequests,
	im.CodeUnavailable:    http.StatusServiceUnavailable,
	im.CodeUnsupported:    http.StatusNotImplemented,
	im.CodeInternal:       http.StatusInternalServerError,

	account.CodeNameTaken:          http.StatusConflict,
	account.CodeTooManyClients:     http.StatusConflict,
	account.CodeInvalidCredentials: http.StatusUnauthorized,
	account.CodeDisabled:           http.StatusForbidden,
	account.CodeClosed:             http.StatusForbidden,

	token.CodeInvalid: http.StatusUnauthorized,
	token.CodeExpired: http.StatusUnauthorized,
	token.CodeRevoked: http.StatusUnauthorized,

	codeTokenMissing: http.StatusUnauthorized,
	codeMethod:       http.StatusMethodNotAllowed,
	codeMediaType:    http.StatusUnsupportedMediaType,
	codeBadRequest:   http.StatusBadRequest,
}

// errorBody is the one shape of an error (wire.md section 6).
type errorBody struct {
	Code    im.Code `json:"code"`
	Message string  `json:"message"`
	Field   string  `json:"field"`
}

// showError is echo's error handler: every error of every path ends here.
func (a *API) showError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	e := a.presentable(err, c)
	status, ok := statuses[e.Code]
	if !ok {
		status = statusOfUnknownCodes
	}
	header := c.Response().Header()
	var retry *account.TooManyError
	switch {
	case errors.As(err, &retry):
		seconds := max(1, int(math.Ceil(retry.After.Seconds())))
		header.Set(echo.HeaderRetryAfter, strconv.Itoa(seconds))
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		header.Set(echo.HeaderRetryAfter, "1")
	case status == http.StatusUnauthorized && e.Code != account.CodeInvalidCredentials:
		header.Set(echo.HeaderWWWAuthenticate, challenge(e.Code))
	}
	switch {
	case status == http.StatusInternalServerError:
		a.Log.Error("a request failed", "method", c.Request().Method, "route", c.Path(), "request", requestID(c), "error", err)
	case status == http.StatusServiceUnavailable && retry == nil: // a login storm does not fill the log
		a.Log.Warn("a request could not be served", "method", c.Request().Method, "route", c.Path(), "request", requestID(c), "error", err)
	}
	if c.Request().Method == http.MethodHead {
		err = c.NoContent(status)
	} else {
		err = c.JSON(status, map[string]errorBody{"error": {e.Code, e.Message, e.Field}})
	}
	if err != nil {
		a.Log.Debug("an error could not be answered", "request", requestID(c), "error", err)
	}
}

// challenge is the answer to a request without a valid token (RFC 6750 section 3).
func challenge(code im.Code) string {
	if code == codeTokenMissing {
		return "Bearer"
	}
	return `Bearer error="invalid_token"`
}

func (a *API) presentable(err error, c echo.Context) *im.Error {
	var (
		known    *im.Error
		tooLarge *http.MaxBytesError
		fromEcho *echo.HTTPError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &tooLarge):
		return im.Errorf(im.CodeTooLarge, "", "the body is larger than %d bytes", tooLarge.Limit)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return im.Errorf(im.CodeUnavailable, "", "the request took too long")
	case errors.As(err, &fromEcho):
		return ofEcho(fromEcho, c)
	}
	return im.AsError(err)
}

// ofEcho words the errors that the framework itself makes.
func ofEcho(e *echo.HTTPError, c echo.Context) *im.Error {
	switch e.Code {
	case http.StatusNotFound:
		return im.Errorf(im.CodeNotFound, "", "there is nothing at this path")
	case http.StatusMethodNotAllowed:
		return im.Errorf(codeMethod, "", "%s is not possible here", c.Request().Method)
	case http.StatusRequestEntityTooLarge:
		return im.Errorf(im.CodeTooLarge, "", "the body is too large")
	case http.StatusUnsupportedMediaType:
		return errMediaType
	}
	if e.Code >= http.StatusInternalServerError {
		return im.AsError(nil)
	}
	return im.Errorf(codeBadRequest, "", "%s", http.StatusText(e.Code))
}

var errMediaType = im.Errorf(codeMediaType, "", "the body must be JSON: send Content-Type: application/json")
