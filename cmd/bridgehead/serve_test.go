package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"bridgehead/config"
	"bridgehead/server"
)

// parse reads a configuration with an admin listener on a port of the system's choice.
func parse(t *testing.T, listener string) *config.Config {
	t.Helper()
	c, _, err := config.Parse(t.TempDir()+"/config.yaml", []byte(`
state: ./state
listeners: [{name: plain, address: "`+listener+`"}]
routes: [{websocket: {to: "ws://127.0.0.1:1"}}]
admin: {address: "127.0.0.1:0"}
`), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var plain, operators string
	err := serve(ctx, parse(t, "127.0.0.1:0"), slog.New(slog.DiscardHandler), server.Source{}, func(s *server.Server) {
		plain, operators = s.Addr("plain").String(), s.Addr("admin").String()
		for _, path := range []string{"/healthz", "/readyz"} {
			if text, err := ask(ctx, operators, path); err != nil || text == "" {
				t.Errorf("%s: %q, %v", path, text, err)
			}
		}
		if _, err := ask(ctx, operators, "/none"); err == nil || !strings.Contains(err.Error(), operators+" answers 404") {
			t.Errorf("a call that is not there: %v", err)
		}
		cancel()
	})
	if err != nil {
		t.Errorf("it ended with %v", err)
	}
	for _, address := range []string{plain, operators} {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s still listens", address)
		}
	}
	if _, err := ask(t.Context(), operators, "/healthz"); err == nil || !strings.HasPrefix(err.Error(), "ask "+operators+": ") {
		t.Errorf("a program that is gone: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestServeTellsWhatIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = serve(t.Context(), parse(t, taken.Addr().String()), slog.New(slog.DiscardHandler), server.Source{}, func(*server.Server) { t.Error("it has started") })
	failed, ok := errors.AsType[*failure](err)
	if !ok || failed.code != exitFailed || !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), "listener plain: ") {
		t.Errorf("it ended with %v", err)
	}
}

func TestTheLogIsAsConfigured(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		options config.Log
		want    string
	}{
		{config.Log{Format: "text", Level: "info"}, "level=INFO msg=told route=r\n"},
		{config.Log{Format: "json", Level: "info"}, `"level":"INFO","msg":"told","route":"r"}` + "\n"},
		{config.Log{Format: "text", Level: "warn"}, ""},
		{config.Log{Format: "json", Level: "debug"}, `"msg":"told","route":"r"}` + "\n"},
	} {
		var out bytes.Buffer
		log, _ := newLog(c.options, &out)
		log.Info("told", "route", "r")
		if got := out.String(); !strings.HasSuffix(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%+v: %q, want %q", c.options, got, c.want)
		}
		if got, want := log.Enabled(t.Context(), slog.LevelDebug), c.options.Level == "debug"; got != want {
			t.Errorf("%+v: debug lines are told: %v", c.options, got)
		}
	}
}

func TestOldRuntimesAreWarnedOf(t *testing.T) {
	t.Parallel()
	for built, warned := range map[string]bool{
		"go1.26.8": true, "go1.26": true, "go1.25.12": true, soundRuntime: false, "go1.26.10": false, "go1.27": false, "go1.27.4": false,
		"go1.30.1": false,
	} {
		var out bytes.Buffer
		warnOfRuntime(slog.New(slog.NewTextHandler(&out, nil)), built)
		if got := strings.Contains(out.String(), "level=WARN") && strings.Contains(out.String(), built); got != warned {
			t.Errorf("built with %s: %q", built, out.String())
		}
	}
}
