package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/slimchat/slimchat/im"
)

const checkTimeout = 3 * time.Second

func (a *API) health(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
}

// ready answers 200 when everything can serve, or 503 naming what cannot. The reasons are
// in the log, not in the answer, which anybody may ask for.
func (a *API) ready(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), checkTimeout)
	defer cancel()
	checks := append([]Check{{Name: "database", Run: a.Accounts.Store.Ping}}, a.Ready...)
	results, failed := make(map[string]string, len(checks)), ""
	for _, check := range checks {
		results[check.Name] = "ok"
		if err := check.Run(ctx); err != nil {
			results[check.Name] = "unavailable"
			if failed != "" {
				failed += ", "
			}
			failed += check.Name
			a.noteReadiness(check.Name, err)
			continue
		}
		a.noteReadiness(check.Name, nil)
	}
	if failed == "" {
		return c.JSON(http.StatusOK, map[string]any{"status": "ready", "checks": results})
	}
	c.Response().Header().Set(echo.HeaderRetryAfter, "1")
	return c.JSON(http.StatusServiceUnavailable, map[string]any{
		"error":  errorBody{im.CodeUnavailable, "not ready: " + failed, ""},
		"checks": results,
	})
}

// noteReadiness logs when a check begins to fail and when it is well again: probes come every
// few seconds, and an outage must not fill the log.
func (a *API) noteReadiness(check string, err error) {
	a.unreadyMu.Lock()
	before := a.unready[check]
	a.unready[check] = err != nil
	a.unreadyMu.Unlock()
	switch {
	case err != nil && !before:
		a.Log.Warn("not ready", "check", check, "error", err)
	case err == nil && before:
		a.Log.Info("ready again", "check", check)
	}
}
