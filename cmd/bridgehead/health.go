package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bridgehead/admin"
)

// healthTimeout is less than what orchestrators wait for a check.
const healthTimeout = 3 * time.Second

func newHealth() *cobra.Command {
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask the running program how it is",
		Long: `Ask the program that runs with this configuration whether it is alive, by its admin listener. For a container's HEALTHCHECK.
Exit code 0 is yes, 1 is no.`,
		Example: "  bridgehead health -c config.yaml\n  bridgehead health --ready       and whether it takes clients",
		Args:    noArguments,
	}
	path := configFlag(c)
	ready := c.Flags().Bool("ready", false, "ask whether it takes clients")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load(*path, io.Discard)
		if err != nil {
			return err
		}
		question := "/healthz"
		if *ready {
			question = "/readyz"
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
		defer cancel()
		answer, err := ask(ctx, cfg.Admin.Address, question)
		if err != nil {
			return fail(exitFailed, fmt.Errorf("%w; does it run, with this configuration?", err))
		}
		fmt.Fprintln(cmd.OutOrStdout(), answer)
		return nil
	}
	return c
}

// ask gets a short text from an admin listener. Any status but 200 is an error.
func ask(ctx context.Context, address, path string) (string, error) {
	client, base := admin.Client(address)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", address, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", address, err)
	}
	text := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %d: %s", address, resp.StatusCode, text)
	}
	return text, nil
}
