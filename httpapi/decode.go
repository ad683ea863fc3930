package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/slimchat/slimchat/im"
)

// readBody reads a JSON body up to limit bytes.
func readBody(c echo.Context, limit int64) ([]byte, error) {
	if kind := c.Request().Header.Get(echo.HeaderContentType); kind != "" {
		media, _, err := mime.ParseMediaType(kind)
		if err != nil || media != echo.MIMEApplicationJSON {
			return nil, errMediaType
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, err
	case err != nil:
		return nil, im.Errorf(im.CodeMalformed, "", "the body could not be read to its end")
	case len(body) == 0:
		return nil, im.Errorf(im.CodeMalformed, "", "the body is empty, want a JSON object")
	case !utf8.Valid(body):
		return nil, im.Errorf(im.CodeMalformed, "", "the body is not UTF-8")
	}
	return body, nil
}

// decode reads the request's JSON object into dst. Fields that dst does not have are refused
// by name, because a misspelt option that is ignored is found out too late.
func decode(c echo.Context, dst any) error {
	body, err := readBody(c, maxBody)
	if err != nil {
		return err
	}
	return decodeObject(body, dst)
}

func decodeObject(body []byte, dst any) error {
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return im.Errorf(im.CodeMalformed, "", "the body is not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		return jsonError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return im.Errorf(im.CodeMalformed, "", "something follows the JSON object")
	}
	return nil
}

func jsonError(err error) *im.Error {
	var (
		kind   *json.UnmarshalTypeError
		syntax *json.SyntaxError
	)
	switch {
	case errors.As(err, &kind):
		return im.Errorf(im.CodeInvalid, kind.Field, "is a %s, want %s", kind.Value, jsonKind(kind.Type.Kind().String()))
	case errors.As(err, &syntax):
		return im.Errorf(im.CodeMalformed, "", "the body is not JSON, at byte %d", syntax.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return im.Errorf(im.CodeMalformed, "", "the JSON ends too early")
	}
	// encoding/json has no type for this one.
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if field, err := strconv.Unquote(name); err == nil {
			return im.Errorf(im.CodeInvalid, field, "is not a field of this request")
		}
	}
	return im.Errorf(im.CodeMalformed, "", "the body is not what this request takes")
}

func jsonKind(kind string) string {
	switch kind {
	case "string":
		return "a string"
	case "struct", "map":
		return "an object"
	default:
		return "another type"
	}
}

// pathParam is a parameter of the path, unescaped.
func pathParam(c echo.Context, name string) (string, error) {
	value := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return value, nil // was unescaped with the whole path
	}
	value, err := url.PathUnescape(value)
	if err != nil {
		return "", im.Errorf(im.CodeInvalid, name, "is not a well-formed part of a path")
	}
	return value, nil
}

// query reads the parameters of a request and remembers the first that is wrong.
type query struct {
	values url.Values
	err    error
}

func readQuery(c echo.Context, allowed ...string) *query {
	values, err := url.ParseQuery(c.Request().URL.RawQuery)
	q := &query{values: values}
	if err != nil {
		q.err = im.Errorf(im.CodeMalformed, "", "the query cannot be parsed")
		return q
	}
	for name, list := range values {
		switch {
		case !slices.Contains(allowed, name):
			q.fail(name, "is not a parameter of this request")
		case len(list) > 1:
			q.fail(name, "is given twice")
		case !utf8.ValidString(list[0]):
			q.fail(name, "is not UTF-8")
		}
	}
	return q
}

func (q *query) fail(name, format string, args ...any) {
	if q.err == nil {
		q.err = im.Errorf(im.CodeInvalid, name, "%s", fmt.Sprintf(format, args...))
	}
}

// limit is a page size between 1 and most.
func (q *query) limit(usual, most int) int {
	text := q.values.Get("limit")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		q.fail("limit", "must be a number between 1 and %d", most)
		return usual
	}
	return n
}
