// Command bridgehead is the WebSocket edge: it terminates wss, decides who may come in, and bridges each socket to WebSocket
// servers, TCP streams or HTTP webhooks, as one YAML file says.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"bridgehead/config"
)

// The exit codes, as --help tells them.
const (
	exitOK     = 0
	exitFailed = 1 // it ran and failed, or was told "no"
	exitUsage  = 2 // wrong flags, or a configuration that cannot be used
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program without its process.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if failed, ok := errors.AsType[*failure](err); ok {
		fmt.Fprintln(stderr, "bridgehead:", failed.Error())
		return failed.code
	}
	fmt.Fprintln(stderr, "bridgehead:", err)
	return exitUsage
}

// A failure is an error with its exit code.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(code int, err error) error {
	if err == nil {
		return nil
	}
	return &failure{code, err}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "bridgehead",
		Short: "The WebSocket edge: wss in; WebSocket servers, TCP streams or HTTP webhooks out",
		Long: `bridgehead terminates wss, decides who may come in, and bridges each WebSocket to what stands behind it: WebSocket
servers, TCP or Unix streams, or HTTP applications. One YAML file says it all.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.`,
		Example: `  bridgehead demo                        see all of it at work, without a file
  bridgehead quick --to localhost:5900   one bridge, without a file
  bridgehead init chat                   a file to start from
  bridgehead check -c config.yaml        what is wrong with a file, and what it amounts to
  bridgehead serve -c config.yaml        run it; SIGTERM drains`,
		Version:                    programVersion(),
		Args:                       knownCommand,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,
	}
	root.SetFlagErrorFunc(misused)
	root.AddCommand(newServe(), newReload(), newDemo(), newQuick(), newInit(), newCheck(), newExplain(), newConnect(), newSchema(), newCA(), newCerts(), newAuth(), newHealth(), newVersion(),
		newCompletion())
	return root
}

// misused is an error in the use of a command.
func misused(c *cobra.Command, err error) error {
	return fail(exitUsage, fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
}

// knownCommand refuses what stands in the place of a command.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q", args[0])
	if meant := root.SuggestionsFor(args[0]); len(meant) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(meant, " or "))
	}
	return misused(root, err)
}

// noArguments refuses whatever stands behind a command and its flags.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return misused(c, fmt.Errorf("%q: %s takes no arguments", args[0], c.Name()))
}

// configPaths are where the configuration is looked for when no flag names it.
var configPaths = []string{"config.yaml", "/etc/bridgehead/config.yaml"}

// configFlag adds -c to a command.
func configFlag(c *cobra.Command) *string {
	path := c.Flags().StringP("config", "c", "", "the configuration (default ./config.yaml, then /etc/bridgehead/config.yaml)")
	cobra.CheckErr(c.MarkFlagFilename("config", "yaml", "yml"))
	return path
}

// configPath is the configuration that a flag names, or the first that is there.
func configPath(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	found, err := findConfig()
	return found, fail(exitUsage, err)
}

// load reads the configuration that a flag names, or the first that is there, and prints its warnings.
func load(flag string, warnings io.Writer) (*config.Config, error) {
	path, err := configPath(flag)
	if err != nil {
		return nil, err
	}
	c, warned, err := config.Load(path)
	for _, w := range warned {
		fmt.Fprintln(warnings, "warning:", w)
	}
	return c, fail(exitUsage, err)
}

func findConfig() (string, error) {
	for _, path := range configPaths {
		switch _, err := os.Stat(path); {
		case err == nil:
			return path, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	return "", fmt.Errorf("there is no configuration at ./%s: name one with -c, or try bridgehead demo",
		strings.Join(configPaths, " or "))
}
