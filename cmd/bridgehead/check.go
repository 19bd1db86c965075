package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"bridgehead/policy"
)

func newCheck() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration, and print what it amounts to",
		Long: `Check a configuration without touching anything: no port is opened, no file written, no backend asked. All that is wrong is
printed at once, each with its line. Standard output is the effective configuration, with all defaults and without secrets;
warnings go to standard error. Beside the configuration the files of ` + "`addresses`" + ` are read.`,
		Example: "  bridgehead check -c config.yaml\n  bridgehead check -c config.yaml >/dev/null     what is wrong, alone",
		Args:    noArguments,
	}
	path := configFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load(*path, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		if _, err := policy.ReadAddresses(cfg.Addresses()); err != nil {
			return fail(exitUsage, err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s", cfg.Effective())
		return fail(exitFailed, err)
	}
	return c
}
