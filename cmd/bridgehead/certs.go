package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bridgehead/admin"
	"bridgehead/config"
	"bridgehead/server"
)

// issueTimeout is how long an authority may take for a certificate.
const issueTimeout = 15 * time.Minute

func newCerts() *cobra.Command {
	c := &cobra.Command{
		Use:   "certs",
		Short: "List the certificates, and when they end and are renewed",
		Long: `List the certificates of the program that runs with this configuration, by its admin listener: those of files, and those that are
got from authorities by ACME. Those of the local authority live for a day and are not listed.

Exit code 1 says that some host has no certificate that clients take.`,
		Example: `  bridgehead certs -c /etc/bridgehead/config.yaml
  bridgehead certs --json
  bridgehead certs renew chat.example.com      now, or try again to get the first
  bridgehead certs revoke chat.example.com --reason key_compromise`,
		Args: knownCommand,
	}
	path := configFlag(c)
	asJSON := c.Flags().Bool("json", false, "print all that is known, as JSON")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := askCertificates(cmd, *path)
		if err != nil {
			return err
		}
		if *asJSON {
			text, err := json.MarshalIndent(all, "", "  ")
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
			}
			return fail(exitFailed, err)
		}
		return fail(exitFailed, printCertificates(cmd.OutOrStdout(), all))
	}
	c.AddCommand(newRenew(), newRevoke())
	return c
}

func newRenew() *cobra.Command {
	c := &cobra.Command{
		Use:     "renew HOST",
		Short:   "Get another certificate for a host now",
		Long:    "Have the running program get another certificate in the place of an automatic one, or try again to get the first.",
		Example: "  bridgehead certs renew chat.example.com\n  bridgehead certs renew '*.app.example.com'",
		Args:    oneHost,
	}
	path := configFlag(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return changeCertificate(cmd, *path, "renewed", args[0], "renew")
	}
	return c
}

func newRevoke() *cobra.Command {
	c := &cobra.Command{
		Use:   "revoke HOST",
		Short: "Have a certificate declared invalid, and get another",
		Long: `Have the authority declare an automatic certificate invalid, as when its key may be known to others, and get another with
another key. Open sockets are not touched.`,
		Example: "  bridgehead certs revoke chat.example.com --reason key_compromise",
		Args:    oneHost,
	}
	path := configFlag(c)
	reason := c.Flags().String("reason", "unspecified", "why: unspecified, key_compromise, superseded or cessation")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return changeCertificate(cmd, *path, "revoked and replaced", args[0], "revoke?reason="+url.QueryEscape(*reason))
	}
	return c
}

// oneHost wants the host of a certificate.
func oneHost(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return misused(c, errors.New("name one host, as certs lists it"))
}

// askCertificates asks the running program.
func askCertificates(cmd *cobra.Command, path string) ([]server.Certificate, error) {
	cfg, err := load(path, io.Discard)
	if err != nil {
		return nil, err
	}
	resp, err := callAdmin(cmd, cfg, http.MethodGet, "/v1/certificates", "read")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Certificates []server.Certificate `json:"certificates"`
		Error        string               `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fail(exitFailed, fmt.Errorf("read the answer, %s: %w", resp.Status, err))
	}
	if answer.Error != "" {
		return nil, fail(exitFailed, errors.New(answer.Error))
	}
	return answer.Certificates, nil
}

// printCertificates prints a line for each. The error says that some are missing.
func printCertificates(w io.Writer, all []server.Certificate) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no certificates from files or authorities")
		return err
	}
	missing := 0
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "HOST\tSOURCE\tISSUER\tENDS\tRENEWAL\tLAST ERROR")
	for _, c := range all {
		if c.Missing() && c.Source != "on_demand" {
			missing++
		}
		problem := cmp.Or(c.Error, "-")
		if !c.Next.IsZero() {
			problem += ", next attempt " + moment(c.Next)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(c.Subject, c.File), c.Source, cmp.Or(c.Issuer, "-"), moment(c.Until), moment(c.Renewal), problem)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if missing > 0 {
		return fmt.Errorf("hosts without a certificate that clients take: %d", missing)
	}
	return nil
}

// moment prints a time, and - for none.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04 MST")
}

// changeCertificate has the running program do something to a certificate.
func changeCertificate(cmd *cobra.Command, path, done, host, call string) error {
	cfg, err := load(path, io.Discard)
	if err != nil {
		return err
	}
	resp, err := callAdmin(cmd, cfg, http.MethodPost, "/v1/certificates/"+url.PathEscape(host)+"/"+call, "admin")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fail(exitFailed, fmt.Errorf("read the answer, %s: %w", resp.Status, err))
	}
	if resp.StatusCode != http.StatusOK {
		return fail(exitFailed, errors.New(answer.Error))
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", host, done)
	return fail(exitFailed, err)
}

// callAdmin asks the program that runs with a configuration, as somebody who may do what the role says.
func callAdmin(cmd *cobra.Command, cfg *config.Config, method, path, role string) (*http.Response, error) {
	client, base := admin.Client(cfg.Admin.Address)
	client.Timeout = issueTimeout
	r, err := http.NewRequestWithContext(cmd.Context(), method, base+path, nil)
	if err != nil {
		return nil, fail(exitFailed, err)
	}
	for _, t := range cfg.Admin.Tokens {
		if slices.Contains(t.May, role) || slices.Contains(t.May, "admin") {
			r.Header.Set("Authorization", "Bearer "+t.Token.Reveal())
			break
		}
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, fail(exitFailed, fmt.Errorf("ask %s: %w; does it run, with this configuration?", cfg.Admin.Address, err))
	}
	return resp, nil
}
