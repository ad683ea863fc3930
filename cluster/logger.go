package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// serverLog passes the log of nats-server on to slog. Its notices are what a stand-alone
// server would tell its operator at every start; here they are details.
type serverLog struct{ log *slog.Logger }

func (l serverLog) write(level slog.Level, format string, args []any) {
	ctx := context.Background()
	if !l.log.Enabled(ctx, level) {
		return
	}
	l.log.Log(ctx, level, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (l serverLog) Noticef(format string, args ...any) { l.write(slog.LevelDebug, format, args) }
func (l serverLog) Warnf(format string, args ...any)   { l.write(slog.LevelWarn, format, args) }
func (l serverLog) Errorf(format string, args ...any)  { l.write(slog.LevelError, format, args) }

// Fatalf must not end the process: whoever embeds the server decides about that.
func (l serverLog) Fatalf(format string, args ...any) { l.write(slog.LevelError, format, args) }
func (l serverLog) Debugf(format string, args ...any) { l.write(slog.LevelDebug, format, args) }
func (l serverLog) Tracef(format string, args ...any) { l.write(slog.LevelDebug-4, format, args) }
