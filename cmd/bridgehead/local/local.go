// Package local is what the commands share that run on a developer's own machine: which pages may open sockets there, and how
// text is quoted for YAML files and for shells.
package local

import (
	"strconv"
	"strings"
)

// Origins is the YAML list of the pages that may open sockets on a developer's machine: those that come from the same host and
// port, and those of any local server. Its lines fit below a section.
const Origins = `[self, "http://localhost:*", "https://localhost:*", "http://127.0.0.1:*", "https://127.0.0.1:*",
            "http://[::1]:*", "https://[::1]:*"]`

// YAML makes any text a scalar of a configuration: YAML's double quotes know the escapes of Go's, and `$${` stands for `${`.
func YAML(s string) string { return strings.ReplaceAll(strconv.Quote(s), "${", "$${") }

// plain are the characters that mean nothing to a POSIX shell.
const plain = "/._-:@%+=,ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// Shell quotes a word for a POSIX shell where it needs to be.
func Shell(s string) string {
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
