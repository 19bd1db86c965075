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
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"bridgehead/config"
	"bridgehead/internal/systemd"
	"bridgehead/internal/watch"
	"bridgehead/server"
)

func newServe() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve what a configuration says",
		Long: `Serve what a configuration says, until SIGTERM or SIGINT: then no more clients are taken, every socket is closed with 1001
at a moment of its own within the time that "drain" gives, and the program ends with the last of them. A second signal ends it
at once.

SIGHUP, or the command reload, reads the configuration again. A file with a mistake changes nothing.`,
		Example: `  bridgehead serve -c /etc/bridgehead/config.yaml
  bridgehead serve --watch      read the file again whenever it changes`,
		Args: noArguments,
	}
	path := configFlag(c)
	watched := c.Flags().Bool("watch", false, "reload when the file changes")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		file, err := configPath(*path)
		if err != nil {
			return err
		}
		cfg, err := load(file, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		log, level := newLog(cfg.Log, cmd.ErrOrStderr())
		warnOfRuntime(log, runtime.Version())
		wishes, stop, err := reloadWishes(log, file, *watched)
		if err != nil {
			return fail(exitFailed, err)
		}
		source := server.Source{Load: func() (*config.Config, []config.Warning, error) { return config.Load(file) }, Level: level}
		var reloads sync.WaitGroup
		defer reloads.Wait()
		defer stop()
		return serve(cmd.Context(), cfg, log, source, func(s *server.Server) {
			reloads.Go(func() {
				for range wishes {
					_, _ = s.Reload() // it logs how it went
				}
			})
		})
	}
	return c
}

// reloadWishes gives a channel that receives when SIGHUP comes and, if it is watched, when the file has changed. stop closes it.
func reloadWishes(log *slog.Logger, file string, watched bool) (_ <-chan os.Signal, stop func(), err error) {
	wishes := make(chan os.Signal, 1)
	unwatch := func() {}
	if watched {
		changed := func() {
			select {
			case wishes <- syscall.SIGHUP:
			default: // one waits already
			}
		}
		if unwatch, err = watch.Files(log, changed, file); err != nil {
			return nil, nil, err
		}
	}
	signal.Notify(wishes, syscall.SIGHUP)
	return wishes, func() {
		unwatch()
		signal.Stop(wishes)
		close(wishes)
	}, nil
}

// serve runs a configuration until ctx ends, and then drains. source is where reloads come from, if there is any; started, if not nil, is called once the ports are open.
func serve(ctx context.Context, cfg *config.Config, log *slog.Logger, source server.Source, started func(*server.Server)) error {
	s, err := server.New(cfg, programVersion(), log)
	if err != nil {
		return fail(exitFailed, err)
	}
	defer s.Stop()
	s.ReloadFrom(source) // before anybody can ask for it
	s.Start()
	s.ReportTo(systemd.NewManager())
	if started != nil {
		started(s)
	}
	<-ctx.Done()

	again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return fail(exitFailed, s.Drain(again))
}

// newLog logs as the configuration says, from a level on that may be changed.
func newLog(o config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(o.Level)); err != nil {
		panic(err) // the configuration was checked
	}
	options := &slog.HandlerOptions{Level: level}
	if o.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), level
	}
	return slog.New(slog.NewTextHandler(w, options)), level
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
