package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bridgehead/cmd/bridgehead/local"
	"bridgehead/cmd/bridgehead/starter"
)

// toStdout is the name of no file.
const toStdout = "-"

func newInit() *cobra.Command {
	kinds := starter.Kinds()
	c := &cobra.Command{
		Use:   "init [KIND]",
		Short: "Write a commented configuration to start from",
		Long: `Write a commented configuration to start from. It runs as it is on this machine, with a local authority, and marks the lines to
change for production. Without a kind, list them:

` + listKinds(kinds),
		Example: `  bridgehead init                       the kinds
  bridgehead init chat                  write ./config.yaml
  bridgehead init mqtt -o mqtt.yaml
  bridgehead init saas -o -             to standard output`,
	}
	for _, k := range kinds {
		c.ValidArgs = append(c.ValidArgs, cobra.CompletionWithDesc(k.Name, k.Short))
	}
	file := c.Flags().StringP("output", "o", "config.yaml", "the file to write; - for standard output")
	force := c.Flags().Bool("force", false, "overwrite a file that is there")
	cobra.CheckErr(c.MarkFlagFilename("output", "yaml", "yml"))
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\nFor example: bridgehead init %s\n", listKinds(kinds), kinds[0].Name)
			return fail(exitFailed, err)
		}
		i := slices.IndexFunc(kinds, func(k starter.Kind) bool { return k.Name == args[0] })
		if i < 0 || len(args) > 1 {
			return misused(cmd, fmt.Errorf("%q: name one kind: %s", strings.Join(args, " "), strings.Join(kindNames(kinds), ", ")))
		}
		if *file == toStdout {
			_, err := cmd.OutOrStdout().Write(starter.File(args[0]))
			return fail(exitFailed, err)
		}
		if err := writeNew(*file, starter.File(args[0]), *force); err != nil {
			return fail(exitFailed, err)
		}
		return fail(exitFailed, tellNext(cmd.OutOrStdout(), kinds[i], *file))
	}
	return c
}

func listKinds(kinds []starter.Kind) string {
	var text strings.Builder
	for _, k := range kinds {
		fmt.Fprintf(&text, "  %-9s %s\n", k.Name, k.Short)
	}
	return text.String()
}

func kindNames(kinds []starter.Kind) (names []string) {
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	return names
}

// writeNew writes a file that is not there yet, unless it may be overwritten.
func writeNew(path string, text []byte, overwrite bool) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if overwrite {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: name another with -o, or overwrite it with --force", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// tellNext says what to type next.
func tellNext(w io.Writer, k starter.Kind, file string) error {
	root := filepath.Join(filepath.Dir(file), "state", "ca", "root.pem")
	_, err := fmt.Fprintf(w, `%s is written: %s. Read it, then:

  bridgehead check -c %[3]s
  bridgehead serve -c %[3]s

and in another terminal:

  bridgehead connect %s --ca %s
`, file, k.Short, local.Shell(file), k.Try, local.Shell(root))
	return err
}
