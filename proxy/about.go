package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
)

// An about is the log of one connection: each line says which, and whose. It does so when a line is written: what [slog.Logger.With]
// writes beforehand would be kept for every socket, most of which say nothing while they live.
type about struct {
	slog.Handler

	conn   string
	client netip.Addr
}

func (a about) attrs() []slog.Attr {
	return []slog.Attr{slog.String("conn", a.conn), slog.String("client", a.client.String())}
}

// Handle is slog.Handler's.
func (a about) Handle(ctx context.Context, r slog.Record) error {
	line := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	line.AddAttrs(a.attrs()...)
	r.Attrs(func(attr slog.Attr) bool {
		line.AddAttrs(attr)
		return true
	})
	return a.Handler.Handle(ctx, line)
}

// WithAttrs is slog.Handler's.
func (a about) WithAttrs(attrs []slog.Attr) slog.Handler {
	return a.Handler.WithAttrs(slices.Concat(a.attrs(), attrs))
}

// WithGroup is slog.Handler's.
func (a about) WithGroup(name string) slog.Handler {
	return a.Handler.WithAttrs(a.attrs()).WithGroup(name)
}
