package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"bridgehead/admin"
	"bridgehead/config"
	"bridgehead/server"
)

func newReload() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Make the running program read its configuration again",
		Long: `Make the program that runs with this configuration read it again, by its admin listener, and print what has changed. Sockets of
routes that did not change are not touched; limits, sizes, timeouts, origins, headers and secrets that changed hold at once, also
for open sockets; those of routes that are gone or lead elsewhere are closed with 1012, spread over the time that "drain" gives.

A configuration with a mistake changes nothing: the mistakes are printed, and the exit code is 2.`,
		Example: `  bridgehead reload -c /etc/bridgehead/config.yaml
  bridgehead reload --dry-run      what would change`,
		Args: noArguments,
	}
	path := configFlag(c)
	dryRun := c.Flags().Bool("dry-run", false, "print what would change, and change nothing")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load(*path, io.Discard) // the running program tells the warnings
		if err != nil {
			return err
		}
		diff, err := askReload(cmd, cfg, *dryRun)
		if err != nil {
			return err
		}
		_, err = io.WriteString(cmd.OutOrStdout(), diff.String())
		return fail(exitFailed, err)
	}
	return c
}

// askReload asks the program that runs with a configuration to read it again.
func askReload(cmd *cobra.Command, cfg *config.Config, dryRun bool) (*server.Diff, error) {
	client, base := admin.Client(cfg.Admin.Address)
	r, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, fmt.Sprintf("%s/v1/reload?dry_run=%t", base, dryRun), nil)
	if err != nil {
		return nil, fail(exitFailed, err)
	}
	for _, t := range cfg.Admin.Tokens {
		if slices.Contains(t.May, "admin") {
			r.Header.Set("Authorization", "Bearer "+t.Token.Reveal())
			break
		}
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, fail(exitFailed, fmt.Errorf("ask %s: %w; does it run, with this configuration? "+
			"If `admin` is what has changed, send it the signal HUP instead", cfg.Admin.Address, err))
	}
	defer resp.Body.Close()
	return readDiff(resp)
}

// readDiff reads what the program answers.
func readDiff(resp *http.Response) (*server.Diff, error) {
	var answer struct {
		server.Diff
		Error string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fail(exitFailed, fmt.Errorf("read the answer, %s: %w", resp.Status, err))
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return &answer.Diff, nil
	case http.StatusUnprocessableEntity:
		return nil, fail(exitUsage, errors.New(answer.Error))
	}
	return nil, fail(exitFailed, errors.New(answer.Error))
}
