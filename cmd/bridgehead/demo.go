package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/spf13/cobra"

	"bridgehead/cmd/bridgehead/demo"
	"bridgehead/config"
	"bridgehead/server"
)

func newDemo() *cobra.Command {
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show all of it at work: built-in backends of every kind, a local CA, and a page to try them",
		Long: `Start a chat that speaks WebSocket, a TCP service of lines and an HTTP application that pushes, put the bridge in front of
them with certificates of a local authority, and serve a page to try them. It needs no file, listens on this machine alone,
leaves nothing behind, and ends with Ctrl-C.`,
		Example: "  bridgehead demo\n  bridgehead demo --log info      with a line per socket",
		Args:    noArguments,
	}
	level := c.Flags().String("log", "warn", "what to log: debug, info, warn or error")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var l slog.Level
		if err := l.UnmarshalText([]byte(*level)); err != nil {
			return fail(exitUsage, fmt.Errorf("--log %q is none of debug, info, warn, error", *level))
		}
		return runDemo(cmd, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: l})))
	}
	return c
}

func runDemo(cmd *cobra.Command, log *slog.Logger) error {
	// The backends outlive the bridge: only with somebody behind them do its sockets close in good order.
	ctx, end := context.WithCancel(context.WithoutCancel(cmd.Context()))
	backends, err := demo.Start(ctx, log)
	if err != nil {
		end()
		return fail(exitFailed, err)
	}
	defer backends.Wait()
	defer end()
	return serveDemo(cmd, backends, log)
}

// serveDemo runs the bridge in front of the backends, on other ports if those that were found free are taken by now: two demos
// that start at once find the same ones.
func serveDemo(cmd *cobra.Command, backends *demo.Backends, log *slog.Logger) error {
	err := bridgeDemo(cmd, backends, log)
	if errors.Is(err, syscall.EADDRINUSE) {
		backends.AnyPorts()
		err = bridgeDemo(cmd, backends, log)
	}
	return err
}

func bridgeDemo(cmd *cobra.Command, backends *demo.Backends, log *slog.Logger) error {
	none := func(string) (string, bool) { return "", false } // what is in the environment is not meant for the demo
	cfg, _, err := config.Parse("demo.yaml", []byte(backends.Config()), none)
	if err != nil {
		return fail(exitFailed, err)
	}
	return serve(cmd.Context(), cfg, log, server.Source{}, func(s *server.Server) {
		root, _ := s.Root()
		address := func(listener string) string { return s.Addr(listener).String() }
		fmt.Fprint(cmd.OutOrStdout(), backends.Guide(address, root))
	})
}
