package tls

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZap is a logger for certmagic that writes to log. What it does in the course of things is told as debug, since the outcome is
// told by us, and nothing as an error: it tries again.
func newZap(log *slog.Logger) *zap.Logger { return zap.New(&zapCore{log.Handler()}) }

// A zapCore is a zapcore.Core on top of a slog.Handler.
type zapCore struct{ handler slog.Handler }

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelWarn
	case l == zapcore.WarnLevel:
		return slog.LevelInfo
	case l == zapcore.InfoLevel:
		return slog.LevelDebug
	}
	return slog.LevelDebug - 4 // of handshakes and of the protocol, byte by byte
}

// Enabled is zapcore.LevelEnabler's.
func (c *zapCore) Enabled(l zapcore.Level) bool {
	return c.handler.Enabled(context.Background(), slogLevel(l))
}

// With is zapcore.Core's.
func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{c.handler.WithAttrs(attrs(fields))}
}

// Check is zapcore.Core's.
func (c *zapCore) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write is zapcore.Core's.
func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, slogLevel(e.Level), "ACME: "+e.Message, 0)
	r.AddAttrs(attrs(fields)...)
	return c.handler.Handle(context.Background(), r)
}

// Sync is zapcore.Core's.
func (c *zapCore) Sync() error { return nil }

// attrs are the fields as slog has them.
func attrs(fields []zapcore.Field) []slog.Attr {
	encoded := zapcore.NewMapObjectEncoder()
	all := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		f.AddTo(encoded)
		if value, ok := encoded.Fields[f.Key]; ok {
			all = append(all, slog.Any(f.Key, value))
		}
	}
	return all
}
