// Package httpapi is the REST service of wire.md section 6: handlers over the account
// service (httpapi/account), tokens (httpapi/token) and the router. The web framework is
// known to this package alone.
package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/router"
)

// Limits of one request.
const (
	maxBody        = 64 << 10
	maxHeader      = 32 << 10
	requestTimeout = 20 * time.Second // until the answer is ready
	readTimeout    = 30 * time.Second
	writeTimeout   = 60 * time.Second
	idleTimeout    = 2 * time.Minute
)

// Publisher is the entrance to the log; router.Router fulfils it.
type Publisher = router.Publisher

// Endpoints are the URLs that devices connect to; empty for a listener that is off.
type Endpoints struct {
	TCP string `json:"tcp"`
	TLS string `json:"tls"`
	WS  string `json:"ws"`
}

// Check tells whether a part of the process can serve.
type Check struct {
	Name string // as shown by /readyz
	Run  func(ctx context.Context) error
}

// Deps is what the service is made of; Endpoints and what follows it may be left out.
type Deps struct {
	Domain    string
	Accounts  *account.Service
	Tokens    *token.Authority
	Publisher Publisher
	History   History
	Log       *slog.Logger

	// Endpoints gives the MQTT URLs as seen by the one who asks.
	Endpoints      func(r *http.Request) Endpoints
	Ready          []Check        // beside the database, which is always checked
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
	PayloadLimit   int            // of a message in bytes; im.DefaultPayloadLimit

	HistoryReads    int           // requests for history that are served at a time; twice the processors
	HistoryPatience time.Duration // how long others wait for their turn; 10 s
}

// API is the REST service, an http.Handler. Whoever makes it serves it.
type API struct {
	Deps
	echo   *echo.Echo
	mounts map[string]http.Handler
	reads  *readLimit

	unreadyMu sync.Mutex
	unready   map[string]bool // checks of /readyz that failed the last time
}

// New makes the service.
func New(d Deps) (*API, error) {
	if d.Domain == "" || d.Accounts == nil || d.Tokens == nil || d.Publisher == nil || d.History == nil || d.Log == nil {
		return nil, errors.New("httpapi: a part that the service needs is missing")
	}
	if d.Endpoints == nil {
		d.Endpoints = func(*http.Request) Endpoints { return Endpoints{} }
	}
	if d.PayloadLimit == 0 {
		d.PayloadLimit = im.DefaultPayloadLimit
	}
	if d.HistoryReads == 0 {
		d.HistoryReads = 2 * runtime.GOMAXPROCS(0)
	}
	if d.HistoryPatience == 0 {
		d.HistoryPatience = requestTimeout / 2
	}
	a := &API{Deps: d, echo: echo.New(), mounts: make(map[string]http.Handler), unready: make(map[string]bool)}
	a.reads = newReadLimit(d.HistoryReads, d.HistoryPatience)
	a.echo.HideBanner, a.echo.HidePort = true, true
	a.echo.HTTPErrorHandler = a.showError
	a.echo.IPExtractor = func(r *http.Request) string { return a.Remote(r).String() }
	a.echo.Use(a.observe, middleware.RecoverWithConfig(middleware.RecoverConfig{
		LogErrorFunc: func(c echo.Context, err error, stack []byte) error {
			a.Log.Error("a request handler panicked", "route", c.Path(), "request", requestID(c), "error", err, "stack", string(stack))
			return err
		},
	}), crossOrigin(), a.bound)
	a.routes()
	return a, nil
}

// crossOrigin lets pages of any origin call the API. There are no cookies and browsers are
// told to send no credentials, so that a page can do only what its own token allows.
func crossOrigin() echo.MiddlewareFunc {
	return middleware.CORSWithConfig(middleware.CORSConfig{
		AllowOrigins: []string{"*"},
		AllowMethods: []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete},
		AllowHeaders: []string{
			echo.HeaderAuthorization, echo.HeaderContentType, echo.HeaderXRequestID, "If-None-Match",
		},
		ExposeHeaders: []string{"ETag", echo.HeaderRetryAfter, echo.HeaderXRequestID, echo.HeaderLocation, headerMessageID},
		MaxAge:        600,
	})
}

func (a *API) routes() {
	e := a.echo
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		e.Add(method, "/healthz", a.health)
		e.Add(method, "/readyz", a.ready)
	}
	e.POST("/register", a.register)
	e.POST("/login", a.login)

	auth := a.authenticated
	e.POST("/logout", a.logout, auth)
	e.POST("/token/refresh", a.refresh, auth)
	e.GET("/clients", a.listClients, auth)
	e.DELETE("/clients/:clientid", a.signOut, auth)
	e.GET("/users/:uid", a.user, auth)
	e.PATCH("/me", a.updateMe, auth)
	e.DELETE("/me", a.deleteMe, auth)
	e.POST("/me/password", a.changePassword, auth)
	e.POST("/messages", a.send, auth)
	e.GET("/messages", a.history, auth)
}

// Mount serves a path by another handler, outside the limits of the REST service: MQTT over
// WebSocket, for example. Call it before the API serves.
func (a *API) Mount(path string, h http.Handler) { a.mounts[path] = h }

// ServeHTTP implements http.Handler. A path means the same with a slash at its end.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := trimSlash(r.URL.Path)
	if h, ok := a.mounts[path]; ok {
		h.ServeHTTP(w, r)
		return
	}
	if path != r.URL.Path {
		short, u := new(http.Request), *r.URL
		*short = *r
		u.Path, u.RawPath = path, trimSlash(r.URL.RawPath)
		short.URL = &u
		r = short
	}
	a.echo.ServeHTTP(w, r)
}

func trimSlash(path string) string {
	if len(path) > 1 {
		return strings.TrimSuffix(path, "/")
	}
	return path
}

// Server returns an http.Server for the API with its time-outs set. Connections that a
// mounted handler hijacks are not under them.
func (a *API) Server() *http.Server {
	return &http.Server{
		Handler:           a,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(a.Log.Handler(), slog.LevelDebug),
	}
}
