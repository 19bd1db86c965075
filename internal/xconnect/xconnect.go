// Package xconnect makes net/http's HTTP/2 server offer extended CONNECT (RFC 8441, section 3), by which WebSockets come over HTTP/2.
// Whoever imports it does so for that alone.
//
// net/http reads the switch from the environment while it is initialized, and takes none later; neither a line in go.mod nor a
// directive in a source may hold it. Packages are initialized in the order of their import paths, as far as their imports allow: this one
// needs nothing that net/http does not need too, and its path stands before net/http.
package xconnect

import (
	"os"
	"strings"
)

// setting is what GODEBUG has to say. What it says of this already holds.
const variable, setting = "GODEBUG", "http2xconnect"

func init() {
	switch value := os.Getenv(variable); {
	case strings.Contains(value, setting):
	case value == "":
		os.Setenv(variable, setting+"=1")
	default:
		os.Setenv(variable, value+","+setting+"=1")
	}
}
