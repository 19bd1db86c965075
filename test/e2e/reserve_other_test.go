//go:build !linux

package e2e

import "testing"

// reserve finds a port on which nobody listens; somebody else may be given it.
func reserve(t *testing.T) (address string) {
	t.Helper()
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}
