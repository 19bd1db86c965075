package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// shells write the completion for each shell.
var shells = map[string]func(root *cobra.Command, w io.Writer) error{
	"bash":       func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
	"zsh":        (*cobra.Command).GenZshCompletion,
	"fish":       func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
	"powershell": (*cobra.Command).GenPowerShellCompletionWithDesc,
}

func newCompletion() *cobra.Command {
	names := slices.Sorted(maps.Keys(shells))
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print what completes commands and flags in bash, fish, powershell or zsh",
		Long: `Print a script that completes the commands, the flags and many of their values in a shell.

  bash         write it to /etc/bash_completion.d/bridgehead, or for yourself to
               ~/.local/share/bash-completion/completions/bridgehead; bash needs its package bash-completion
  fish         write it to ~/.config/fish/completions/bridgehead.fish
  powershell   add to $PROFILE: bridgehead completion powershell | Out-String | Invoke-Expression
  zsh          write it to a file _bridgehead in a directory of $fpath

It works in shells that are started afterwards.`,
		Example: `  bridgehead completion bash >/etc/bash_completion.d/bridgehead
  bridgehead completion fish >~/.config/fish/completions/bridgehead.fish
  bridgehead completion powershell >bridgehead.ps1
  bridgehead completion zsh >"${fpath[1]}/_bridgehead"`,
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return misused(cmd, fmt.Errorf("name one shell: %s", strings.Join(names, ", ")))
			}
			write, ok := shells[args[0]]
			if !ok {
				return misused(cmd, fmt.Errorf("shell %q is none of %s", args[0], strings.Join(names, ", ")))
			}
			return fail(exitFailed, write(cmd.Root(), cmd.OutOrStdout()))
		},
	}
}
