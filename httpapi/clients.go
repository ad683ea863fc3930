package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
)

// shownClient is a client as its owner sees it.
type shownClient struct {
	Type     string    `json:"type"`
	AppID    string    `json:"appid"`
	DeviceID string    `json:"deviceid"`
	ClientID string    `json:"clientid"`
	Ticket   string    `json:"ticket"`
	LastSeen timestamp `json:"last_seen"`
	Online   bool      `json:"online"`
}

func (a *API) showClient(owner im.Address, m models.Client) shownClient {
	return shownClient{
		m.Type, m.AppID, m.DeviceID, m.ClientID, m.Ticket, timestamp(m.LastSeen),
		a.Accounts.Sessions.IsOnline(owner, m.ClientID),
	}
}

// page is the shape of a list; Next is empty on the last page.
type page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next"`
}

// listClients lists the caller's clients in the order of their ids, which is also the cursor.
func (a *API) listClients(c echo.Context) error {
	q := readQuery(c, "limit", "cursor")
	limit, after := q.limit(100, models.MaxPage), q.values.Get("cursor")
	if q.err != nil {
		return q.err
	}
	owner := caller(c).Subject
	clients, err := a.Accounts.Clients(c.Request().Context(), owner)
	if err != nil {
		return err
	}
	sort.Slice(clients, func(i, j int) bool { return clients[i].ClientID < clients[j].ClientID })
	out := page[shownClient]{Items: []shownClient{}}
	for _, m := range clients {
		if m.ClientID <= after {
			continue
		}
		if len(out.Items) == limit {
			out.Next = out.Items[limit-1].ClientID
			break
		}
		out.Items = append(out.Items, a.showClient(owner, m))
	}
	return tagged(c, out)
}

func (a *API) signOut(c echo.Context) error {
	client, err := pathParam(c, "clientid")
	if err != nil {
		return err
	}
	if err := a.Accounts.SignOut(c.Request().Context(), caller(c).Subject, client); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// tagged answers with JSON and its ETag, or 304 when the caller has it already (RFC 9110
// section 13.1.2).
func tagged(c echo.Context, body any) error {
	var text bytes.Buffer
	if err := json.NewEncoder(&text).Encode(body); err != nil {
		return fmt.Errorf("httpapi: encode: %w", err)
	}
	sum := sha256.Sum256(text.Bytes())
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	header := c.Response().Header()
	header.Set("ETag", tag)
	header.Set(echo.HeaderCacheControl, "private, no-cache")
	for given := range strings.SplitSeq(c.Request().Header.Get("If-None-Match"), ",") {
		if given = strings.TrimPrefix(strings.TrimSpace(given), "W/"); given == tag || given == "*" {
			return c.NoContent(http.StatusNotModified)
		}
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, text.Bytes())
}
