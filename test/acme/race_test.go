//go:build race

package acme_test

// raceFlags build the program as the tests are built.
var raceFlags = []string{"-race"}
