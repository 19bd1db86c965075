// Package leak fails a package's tests when goroutines outlive them:
//
//	func TestMain(m *testing.M) { leak.Main(m) }
//
// It reads the stacks that the runtime prints and needs no dependency.
package leak

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long goroutines may take to end after the last test: closing a socket wakes its reader a little later, and
// certmagic looks every five seconds whether a lock is still held.
const patience = 10 * time.Second

// Main runs the tests and ends the process with their exit code; when they passed, but goroutines are left a few seconds
// later, it prints the stacks of these and ends it with 1.
func Main(m interface{ Run() int }) { os.Exit(run(m.Run, patience, os.Stderr)) }

func run(tests func() int, patience time.Duration, out io.Writer) int {
	before := goroutines()
	if code := tests(); code != 0 {
		return code // a failed test rarely cleans up: its failure is the news
	}
	left := survivors(before, patience)
	if len(left) == 0 {
		return 0
	}
	fmt.Fprintln(out, report(left))
	return 1
}

// Check fails t if goroutines that began during the test are left a few seconds after its end. Not for parallel tests: it
// cannot tell their goroutines apart.
func Check(t testing.TB) {
	t.Helper()
	check(t, patience)
}

func check(t testing.TB, patience time.Duration) {
	t.Helper()
	before := goroutines()
	t.Cleanup(func() {
		if left := survivors(before, patience); len(left) > 0 {
			t.Error(report(left))
		}
	})
}

func report(left []string) string {
	return fmt.Sprintf("goroutines left behind: %d\n\n%s", len(left), strings.Join(left, "\n\n"))
}

// survivors waits until every goroutine that is not in before has ended, or patience is over, and returns the stacks of those
// that have not.
func survivors(before map[string]string, patience time.Duration) []string {
	for deadline := time.Now().Add(patience); ; {
		var left []string
		for id, stack := range goroutines() {
			if _, old := before[id]; !old && !foreign(stack) {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		<-time.After(5 * time.Millisecond) // the runtime tells nobody when a goroutine ends: look again
	}
}

// foreign tells whether a goroutine belongs to the runtime or to the testing package, which keep theirs.
func foreign(stack string) bool {
	for _, owner := range []string{
		"created by os/signal.", "created by runtime.", "created by runtime/", "created by testing.", "created by internal/fuzz.",
	} {
		if strings.Contains(stack, owner) {
			return true
		}
	}
	return false
}

// goroutines maps the number of each living goroutine to its stack. Numbers are never used twice.
func goroutines() map[string]string {
	buf := make([]byte, 64<<10)
	n := runtime.Stack(buf, true)
	for n == len(buf) { // full, so probably cut
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	all := make(map[string]string)
	for stack := range strings.SplitSeq(strings.TrimSpace(string(buf[:n])), "\n\n") {
		id, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ") // goroutine 12 [chan receive]:
		all[id] = stack
	}
	return all
}
