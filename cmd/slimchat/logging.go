package main

import (
	"io"
	"log/slog"

	"github.com/slimchat/slimchat/cmd/slimchat/config"
)

// newLogger makes the log that the configuration asks for.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic(err) // config allows only levels that slog knows
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == config.FormatText || c.Format == config.FormatAuto && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
