package httpapi

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
)

// Keys of echo.Context.
const (
	keyClaims    = "claims"
	keyRequestID = "request"
)

// observe gives the request an id and logs its end.
func (a *API) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := c.Request().Header.Get(echo.HeaderXRequestID)
		if !goodRequestID(id) {
			id = rand.Text()[:16]
		}
		c.Set(keyRequestID, id)
		header := c.Response().Header()
		header.Set(echo.HeaderXRequestID, id)
		header.Set(echo.HeaderXContentTypeOptions, "nosniff")
		header.Set(echo.HeaderCacheControl, "no-store")
		start := time.Now()
		err := next(c)
		if err != nil {
			c.Error(err)
		}
		a.Log.Debug("request", "method", c.Request().Method, "route", c.Path(), "status", c.Response().Status,
			"duration", time.Since(start), "remote", c.RealIP(), "request", id)
		return nil
	}
}

func goodRequestID(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-_.", r)
	})
}

func requestID(c echo.Context) string {
	id, _ := c.Get(keyRequestID).(string)
	return id
}

// bound limits the time and the body of a request.
func (a *API) bound(next echo.HandlerFunc) echo.HandlerFunc {
	limit := int64(max(maxBody, a.PayloadLimit))
	return func(c echo.Context) error {
		r := c.Request()
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = http.MaxBytesReader(c.Response(), r.Body, limit)
		c.SetRequest(r)
		return next(c)
	}
}

// authenticated lets a request pass that has a valid token.
func (a *API) authenticated(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		scheme, raw, _ := strings.Cut(c.Request().Header.Get(echo.HeaderAuthorization), " ")
		if !strings.EqualFold(scheme, "Bearer") || raw == "" {
			return im.Errorf(codeTokenMissing, "", "this needs the header Authorization: Bearer {token}")
		}
		claims, err := a.Tokens.Verify(c.Request().Context(), strings.TrimSpace(raw))
		if err != nil {
			return err
		}
		c.Set(keyClaims, claims)
		return next(c)
	}
}

// caller is who the request's token speaks for.
func caller(c echo.Context) token.Claims {
	claims, _ := c.Get(keyClaims).(token.Claims)
	return claims
}

// Remote is the address that the request comes from: the socket's peer, or what a trusted
// proxy says that its peer was. It is the zero Addr when the peer has no address.
func (a *API) Remote(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	peer, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	peer = peer.Unmap()
	// Proxies append: the last entry was written by our peer, the one before by the peer of
	// that, and each is to be believed only as long as the writer is trusted.
	hops := strings.Split(strings.Join(r.Header.Values(echo.HeaderXForwardedFor), ","), ",")
	for i := len(hops) - 1; i >= 0 && a.trusted(peer); i-- {
		before, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		peer = before.Unmap()
	}
	return peer
}

func (a *API) trusted(addr netip.Addr) bool {
	for _, p := range a.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
