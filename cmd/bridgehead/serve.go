package main

import (
	"context"
	"fmt"
	"go/version"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"bridgehead/config"
	"bridgehead/server"
)

func newServe() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve what a configuration says",
		Long: `Serve what a configuration says, until SIGTERM or SIGINT: then no more clients are taken, every socket is closed with 1001
at a moment of its own within the time that "drain" gives, and the program ends with the last of them. A second signal ends it
at once.`,
		Example: "  bridgehead serve -c /etc/bridgehead/config.yaml",
		Args:    noArguments,
	}
	path := configFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load(*path, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		log := newLog(cfg.Log, cmd.ErrOrStderr())
		warnOfRuntime(log, runtime.Version())
		return serve(cmd.Context(), cfg, log, nil)
	}
	return c
}

// serve runs a configuration until ctx ends, and then drains. started, if not nil, is called once the ports are open.
func serve(ctx context.Context, cfg *config.Config, log *slog.Logger, started func(*server.Server)) error {
	s, err := server.New(cfg, programVersion(), log)
	if err != nil {
		return fail(exitFailed, err)
	}
	defer s.Stop()
	s.Start()
	if started != nil {
		started(s)
	}
	<-ctx.Done()

	again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return fail(exitFailed, s.Drain(again))
}

// newLog logs as the configuration says.
func newLog(o config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.Level)); err != nil {
		panic(err) // the configuration was checked
	}
	options := &slog.HandlerOptions{Level: level}
	if o.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// soundRuntime is the first Go release without the holes that warnOfRuntime names.
const soundRuntime = "go1.26.9"

// warnOfRuntime warns of a build whose net/http has known holes in our path.
func warnOfRuntime(log *slog.Logger, built string) {
	if version.Compare(built, soundRuntime) < 0 {
		log.Warn(fmt.Sprintf("built with %s, whose net/http has known holes: build with %s, go1.27 or later", built, soundRuntime),
			"cves", "CVE-2026-97032 CVE-2026-78669 CVE-2026-56866 CVE-2026-94439")
	}
}
