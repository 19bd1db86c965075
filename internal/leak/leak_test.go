package leak

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// short is long enough for a goroutine that has been told to end.
const short = 50 * time.Millisecond

// These tests are not parallel: what they look at is the whole process.

func TestMainPassesOnTheTestsExitCode(t *testing.T) {
	var out bytes.Buffer
	for _, code := range []int{0, 2} {
		if got := run(func() int { return code }, short, &out); got != code {
			t.Errorf("exit code %d became %d", code, got)
		}
	}
	if out.Len() > 0 {
		t.Errorf("printed %q without a leak", out.String())
	}
}

func TestMainReportsWhoIsLeft(t *testing.T) {
	stop := make(chan struct{})
	var out bytes.Buffer
	code := run(func() int { go overstay(stop); return 0 }, short, &out)
	close(stop)
	if code != 1 || !strings.Contains(out.String(), "left behind: 1\n") || !strings.Contains(out.String(), "leak.overstay(") {
		t.Errorf("code %d, printed:\n%s", code, out.String())
	}
}

func TestMainKeepsTheFailureWhenTestsFailAndLeak(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	var out bytes.Buffer
	if code := run(func() int { go overstay(stop); return 3 }, short, &out); code != 3 || out.Len() > 0 {
		t.Errorf("code %d, printed %q", code, out.String())
	}
}

func TestMainWaitsForThoseThatAreAboutToEnd(t *testing.T) {
	var out bytes.Buffer
	late := func() int {
		stop := make(chan struct{})
		go overstay(stop)
		time.AfterFunc(short, func() { close(stop) })
		return 0
	}
	if code := run(late, 100*short, &out); code != 0 {
		t.Errorf("code %d, printed:\n%s", code, out.String())
	}
}

func TestCheckFailsTheTestThatLeaks(t *testing.T) {
	stop := make(chan struct{})
	fake := &fakeTB{TB: t}
	check(fake, short)
	go overstay(stop)
	fake.cleanup()
	close(stop)
	if !strings.Contains(fake.failure, "leak.overstay(") {
		t.Errorf("failure: %q", fake.failure)
	}
}

func TestGoroutinesThatWereThereBeforeAreNotOurs(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	go overstay(stop)
	var out bytes.Buffer
	if code := run(func() int { return 0 }, short, &out); code != 0 {
		t.Errorf("code %d, printed:\n%s", code, out.String())
	}
}

func overstay(stop <-chan struct{}) { <-stop }

// fakeTB is a test that may fail.
type fakeTB struct {
	testing.TB
	cleanup func()
	failure string
}

func (f *fakeTB) Helper()          {}
func (f *fakeTB) Cleanup(c func()) { f.cleanup = c }
func (f *fakeTB) Error(a ...any)   { f.failure += fmt.Sprint(a...) }
