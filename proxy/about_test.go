package proxy

import (
	"bytes"
	"log/slog"
	"net/netip"
	"testing"
)

// Lines are as those of a logger that was given the attributes beforehand.
func TestAbout(t *testing.T) {
	t.Parallel()
	var got, want bytes.Buffer
	base := func(to *bytes.Buffer) *slog.Logger {
		return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})).With("route", "r")
	}
	lines := func(log *slog.Logger) {
		log.Info("none")
		log.Debug("not enabled", "a", 1)
		log.Warn("many", "a", 1, "b", 2, "c", 3, "d", 4, "e", 5, "f", 6, "g", 7)
		log.With("a", 1).Info("with", "b", 2)
		log.WithGroup("g").With("a", 1).Info("group", "b", 2)
		log.With("a", 1).WithGroup("g").Info("both", "b", 2)
	}
	lines(slog.New(about{base(&got).Handler(), "c_n_1", netip.MustParseAddr("192.0.2.1")}))
	lines(base(&want).With("conn", "c_n_1", "client", "192.0.2.1"))
	if got.String() != want.String() {
		t.Errorf("got\n%swant\n%s", &got, &want)
	}
}
