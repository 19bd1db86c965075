package main

import (
	"github.com/spf13/cobra"

	"bridgehead/config"
)

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration, for editors",
		Long: `Print the JSON Schema (2020-12) of the configuration. Editors that know it complete keys, show what they mean, and mark mistakes.
What only the whole file can tell, such as two routes of one name, is left to bridgehead check.

With the YAML language server, which most editors can use, the first line of the configuration names the schema:

  # yaml-language-server: $schema=bridgehead.schema.json

or Visual Studio Code's settings do, for files of a name, with the YAML extension:

  "yaml.schemas": {"./bridgehead.schema.json": ["config.yaml"]}`,
		Example: "  bridgehead schema >bridgehead.schema.json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema)
			return fail(exitFailed, err)
		},
	}
}
