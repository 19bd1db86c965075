//go:build !race

package e2e

// buildFlags are the flags the binary is built with.
var buildFlags []string

const raced = false
