//go:build linux

package process

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// start runs a shell script on cores and returns what it prints.
func start(t *testing.T, cores Set, script string) (*Process, io.Reader) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close() })
	cmd := exec.Command("sh", "-c", script)
	cmd.Stdout = write
	p, err := Start(cmd, cores)
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.End)
	return p, read
}

func allCores(t *testing.T) []int {
	t.Helper()
	cores, err := Cores()
	if err != nil || len(cores) == 0 {
		t.Fatalf("cores %v, %v", cores, err)
	}
	return cores
}

// A process runs on its cores alone, and the thread that started it keeps its own.
func TestStart(t *testing.T) {
	t.Parallel()
	before := allCores(t)
	_, out := start(t, Of(before[0]), "grep Cpus_allowed_list /proc/self/status")
	text, err := io.ReadAll(out)
	if fields := strings.Fields(string(text)); err != nil || len(fields) != 2 || fields[1] != strconv.Itoa(before[0]) {
		t.Errorf("on core %d: %q, %v", before[0], text, err)
	}
	if after := allCores(t); !slices.Equal(after, before) {
		t.Errorf("this process had cores %v and has %v", before, after)
	}
}

// Children are found, measured and ended with their parent, those in a session of their own too.
func TestTree(t *testing.T) {
	t.Parallel()
	p, out := start(t, Of(allCores(t)...), "setsid sleep 1000 & echo $!; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; wait")
	lines := bufio.NewScanner(out)
	lines.Scan()
	child, err := strconv.Atoi(lines.Text())
	if err != nil {
		t.Fatal(err)
	}
	tree, err := Tree(p.PID())
	if want := []int{p.PID(), child}; err != nil || !slices.Equal(tree, want) {
		t.Errorf("the tree is %v, want %v: %v", tree, want, err)
	}
	lines.Scan() // it has worked
	if used, err := CPU(tree...); err != nil || used < 100*time.Microsecond || used > time.Minute {
		t.Errorf("it used %s, %v", used, err)
	}
	if bytes, err := Memory(tree...); err != nil || bytes < 64<<10 || bytes > 64<<20 {
		t.Errorf("it has %d bytes, %v", bytes, err)
	}
	p.End()
	if lines.Scan() || lines.Err() != nil { // the child held the pipe open
		t.Errorf("a child lives on: %q, %v", lines.Text(), lines.Err())
	}
	if _, err := CPU(p.PID()); err == nil {
		t.Error("a process that is no more has a clock")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	if pid, parent, ok := parseStat([]byte("12 (a) 7 (b)) S 5 12 12 0")); pid != 12 || parent != 5 || !ok {
		t.Errorf("parent %d of %d, %t", parent, pid, ok)
	}
	if _, _, ok := parseStat([]byte("12 (a)")); ok {
		t.Error("a line without a parent has one")
	}
	if n, err := parsePss([]byte("55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:  100 kB\nPss:   42 kB\nPss_Anon: 7 kB\n")); n != 42<<10 || err != nil {
		t.Errorf("Pss %d, %v", n, err)
	}
	if _, err := parsePss([]byte("Rss: 1 kB\n")); err == nil {
		t.Error("a rollup without Pss has one")
	}
	const stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 400 500 6 7 8 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n"
	if d, err := parseBusy([]byte(stat), 0); d != 270*time.Millisecond || err != nil {
		t.Errorf("busy for %s, %v", d, err)
	}
	if _, err := parseBusy([]byte(stat), 2); err == nil {
		t.Error("a core that is not there was busy")
	}
}
