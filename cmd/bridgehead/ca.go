package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"bridgehead/cmd/bridgehead/local"
	"bridgehead/config"
	"bridgehead/server"
)

// trustText tells how clients come to trust a root in $ROOT.
const trustText = `curl        curl --cacert $ROOT https://...
Node.js     NODE_EXTRA_CA_CERTS=$ROOT node client.js
Debian      sudo cp $ROOT /usr/local/share/ca-certificates/bridgehead.crt && sudo update-ca-certificates
macOS       sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain $ROOT
Windows     certutil -addstore -user Root $ROOT
Firefox     Settings, Privacy & Security, View Certificates, Authorities, Import: to identify websites
Chromium    on Linux mkdir -p $HOME/.pki/nssdb && certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n bridgehead -i $ROOT
            (certutil is of libnss3-tools); elsewhere it asks the system`

func newCA() *cobra.Command {
	c := &cobra.Command{
		Use:   "ca",
		Short: "Print the root certificate of the local authority, which clients must trust",
		Long: `Print the root certificate of the local authority (certificates.internal) in PEM. If there is none yet it is made, as the first
start would do, so that an image or a client can be prepared before. Without a configuration it is the authority of this user,
which "bridgehead quick" uses.

With the root in root.pem, these clients trust it:

  ` + strings.ReplaceAll(strings.ReplaceAll(trustText, "$ROOT", "root.pem"), "\n", "\n  ") + `

Whoever has the key of the root, which lies beside it, can pass for any site to those who trust it: keep it.`,
		Example: `  bridgehead ca -c config.yaml >root.pem
  bridgehead ca --path                      the file that holds it
  bridgehead ca -v                          with its fingerprint and its end`,
		Args: noArguments,
	}
	path := configFlag(c)
	onlyPath := c.Flags().Bool("path", false, "print the path of its file instead")
	verbose := c.Flags().BoolP("verbose", "v", false, "print its fingerprint and its end on standard error")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := authorityConfig(*path)
		if err != nil {
			return err
		}
		root, err := openAuthority(cfg)
		if err != nil {
			return fail(exitFailed, err)
		}
		if *onlyPath {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), root)
			return fail(exitFailed, err)
		}
		return printRoot(cmd, root, *verbose)
	}
	return c
}

// authorityConfig is a configuration with a local authority: the one that is named, the first that is there, or else what the
// commands without a file use.
func authorityConfig(path string) (*config.Config, error) {
	if path == "" {
		found, err := findConfig()
		if _, unreadable := errors.AsType[*fs.PathError](err); unreadable {
			return nil, fail(exitUsage, err)
		}
		if err != nil {
			return withoutFile()
		}
		path = found
	}
	cfg, err := load(path, io.Discard)
	if err == nil && !cfg.Certificates.Internal {
		err = fail(exitUsage, fmt.Errorf("%s has no local authority: set certificates.internal: true, or trust whoever signed its files", path))
	}
	return cfg, err
}

// withoutFile is the configuration of this user when there is no file.
func withoutFile() (*config.Config, error) {
	const text = "certificates: {internal: true}\nlisteners: [{address: \"127.0.0.1:0\"}]\nroutes: [{files: {dir: .}}]\n"
	cfg, _, err := config.Parse("the defaults", []byte(text), os.LookupEnv)
	if err != nil {
		return nil, fail(exitUsage, fmt.Errorf("%w, by $STATE_DIRECTORY", err))
	}
	return cfg, nil
}

// openAuthority gives the file of the root of a configuration's local authority, and makes both if there are none. It lets a
// server do so that has no clients, since it is the server's.
func openAuthority(cfg *config.Config) (root string, err error) {
	bare := &config.Config{State: cfg.State}
	bare.Certificates.Internal = true
	bare.Admin.Address = "127.0.0.1:0"
	s, err := server.New(bare, programVersion(), slog.New(slog.DiscardHandler))
	if err != nil {
		return "", err
	}
	defer s.Stop()
	root, _ = s.Root()
	return root, nil
}

// printRoot prints a certificate, and what to know of it where somebody asks or may read it.
func printRoot(cmd *cobra.Command, path string, verbose bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fail(exitFailed, err)
	}
	if _, err := cmd.OutOrStdout().Write(text); err != nil {
		return fail(exitFailed, err)
	}
	stderr := cmd.ErrOrStderr()
	person := isTerminal(stderr)
	if verbose || person {
		about, err := describe(text)
		if err != nil {
			return fail(exitFailed, fmt.Errorf("%s: %w", path, err))
		}
		fmt.Fprintf(stderr, "\nfile         %s\n%s", path, about)
	}
	if person {
		fmt.Fprintf(stderr, "\nClients trust it like this:\n\n%s\n", strings.ReplaceAll(trustText, "$ROOT", local.Shell(path)))
	}
	return nil
}

// describe tells whose a certificate is, when it ends, and its fingerprint as browsers show it.
func describe(text []byte) (string, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return "", errors.New("it holds no PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	sum := strings.ReplaceAll(fmt.Sprintf("% X", sha256.Sum256(cert.Raw)), " ", ":")
	return fmt.Sprintf("subject      %s\nends         %s\nfingerprint  SHA-256 %s\n",
		cert.Subject, cert.NotAfter.UTC().Format("2006-01-02 15:04 MST"), sum), nil
}
