package main

import (
	"fmt"
	"log/slog"

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
		Args:    cobra.NoArgs,
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
	backends, err := demo.Start(cmd.Context(), log)
	if err != nil {
		return fail(exitFailed, err)
	}
	defer backends.Wait()
	none := func(string) (string, bool) { return "", false } // what is in the environment is not meant for the demo
	cfg, _, err := config.Parse("demo.yaml", []byte(backends.Config()), none)
	if err != nil {
		return fail(exitFailed, err)
	}
	return serve(cmd.Context(), cfg, log, func(s *server.Server) {
		root, _ := s.Root()
		fmt.Fprint(cmd.OutOrStdout(), backends.Guide(s.Addr("https").String(), s.Addr("http").String(), root))
	})
}
