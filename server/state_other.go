//go:build !linux

package server

// fleeting tells where a directory lies that does not outlive the machine's run; it is not known here.
func fleeting(string) string { return "" }
