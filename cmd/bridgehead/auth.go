package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bridgehead/config"
	"bridgehead/policy/auth"
)

func newAuth() *cobra.Command {
	c := &cobra.Command{
		Use:   "auth",
		Short: "Make keys, lines for password files, and signed links",
		Long: `Make what authenticators ask for: keys and the lines of their file (api_key), lines of a password file (basic), and links that are
good for some time (signed_url). Nothing is written but what is printed.`,
		Example: `  bridgehead auth key ci
  bridgehead auth password ann >>htpasswd
  bridgehead auth sign wss://chat.example.com/rooms/5 --user ann --for 10m`,
		Args: knownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newAuthKey(), newAuthPassword(), newAuthSign())
	return c
}

func newAuthKey() *cobra.Command {
	return &cobra.Command{
		Use:   "key NAME",
		Short: "Make a key: print it, and the line that knows it",
		Long: `Make a key for whoever is called NAME. The first line that is printed is the key, which is shown this once; the second belongs into
the file of an api_key authenticator, which holds the key's hash alone. Claims may follow in the line, as plan=pro.`,
		Example: "  bridgehead auth key ci",
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := oneArgument(cmd, args, "a name, as in: bridgehead auth key ci")
			if err != nil {
				return err
			}
			token, line, err := auth.NewKey(name)
			if err != nil {
				return misused(cmd, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", token, line)
			return fail(exitFailed, err)
		},
	}
}

func newAuthPassword() *cobra.Command {
	return &cobra.Command{
		Use:   "password USER",
		Short: "Print the line of a password file for a password from standard input",
		Long: `Print the line that belongs into the file of a basic authenticator, with the bcrypt hash of the password in the first line of
standard input. "htpasswd -nB USER" prints such lines too.`,
		Example: "  bridgehead auth password ann >>htpasswd      and type the password, or pipe it in",
		RunE: func(cmd *cobra.Command, args []string) error {
			user, err := oneArgument(cmd, args, "a user, as in: bridgehead auth password ann")
			if err != nil {
				return err
			}
			password, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
			if err != nil && err != io.EOF {
				return fail(exitFailed, fmt.Errorf("read the password: %w", err))
			}
			line, err := auth.PasswordLine(user, strings.TrimRight(password, "\r\n"))
			if err != nil {
				return misused(cmd, err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), line)
			return fail(exitFailed, err)
		},
	}
}

func newAuthSign() *cobra.Command {
	c := &cobra.Command{
		Use:   "sign URL",
		Short: "Sign a link, good for some time",
		Long: `Sign a link by the first secret of a signed_url authenticator of the configuration. It may be opened until its time is over; the
socket stays open longer. Host and scheme are not signed, path and query are.`,
		Example: `  bridgehead auth sign wss://chat.example.com/rooms/5 --user ann --for 10m`,
	}
	path := configFlag(c)
	name := c.Flags().String("by", "", "the authenticator, if there are several with signed_url")
	user := c.Flags().String("user", "", "who comes by the link")
	lasting := c.Flags().Duration("for", 5*time.Minute, "how long it may be opened")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		text, err := oneArgument(cmd, args, "a URL, as in wss://chat.example.com/rooms/5")
		if err != nil {
			return err
		}
		link, err := url.Parse(text)
		if err != nil || link.Host == "" || *lasting <= 0 {
			return misused(cmd, errors.New("write a whole URL, as in wss://chat.example.com/rooms/5, and a --for above 0"))
		}
		cfg, err := load(*path, io.Discard)
		if err != nil {
			return err
		}
		signer, err := linkSigner(cfg, *name)
		if err != nil {
			return misused(cmd, err)
		}
		signed, err := signer.Sign(link, *user, time.Now().Add(*lasting))
		if err != nil {
			return misused(cmd, err)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), signed)
		return fail(exitFailed, err)
	}
	return c
}

// linkSigner is the authenticator of that name, or the only one that knows links.
func linkSigner(c *config.Config, name string) (*auth.SignedURL, error) {
	var known []string
	for id, o := range c.Authenticators {
		if o.SignedURL != nil {
			known = append(known, id)
		}
	}
	slices.Sort(known)
	switch {
	case len(known) == 0:
		return nil, errors.New("the configuration has no authenticator with signed_url")
	case name == "" && len(known) > 1:
		return nil, fmt.Errorf("there are several with signed_url: name one of %s by --by", strings.Join(known, ", "))
	case name == "":
		name = known[0]
	case !slices.Contains(known, name):
		return nil, fmt.Errorf("%q is none with signed_url: there is %s", name, strings.Join(known, ", "))
	}
	return c.Authenticators[name].SignedURL, nil
}

// oneArgument is the only one that a command takes.
func oneArgument(c *cobra.Command, args []string, what string) (string, error) {
	if len(args) != 1 {
		return "", misused(c, fmt.Errorf("%s needs %s", c.CommandPath(), what))
	}
	return args[0], nil
}
