package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestEveryCommandExplainsItself(t *testing.T) {
	t.Parallel()
	root := newRoot()
	for _, c := range append(root.Commands(), root) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the list of commands says %q", c.Name(), c.Short)
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			if !strings.HasPrefix(line, "  bridgehead") {
				t.Errorf("%s: %q is no example", c.Name(), line)
			}
		}
	}
}

func TestExamplesAreValid(t *testing.T) {
	t.Parallel()
	commands := newRoot().Commands()
	for _, c := range commands {
		commands = append(commands, c.Commands()...)
	}
	for _, c := range commands {
		for line := range strings.SplitSeq(c.Example, "\n") {
			text, _, _ := strings.Cut(strings.TrimSpace(line), "  ") // an explanation stands behind
			text, _, _ = strings.Cut(text, " >")
			root := newRoot()
			found, args, err := root.Find(strings.Fields(text)[1:])
			if err != nil || found.Name() != c.Name() && found.Parent().Name() != c.Name() {
				t.Errorf("%q leads to %s, %v", text, found.Name(), err)
				continue
			}
			if err := found.ParseFlags(args); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	none := t.TempDir() + "/none.yaml"
	for _, c := range []struct {
		args   []string
		code   int
		stderr string // its beginning
	}{
		{[]string{"version"}, exitOK, ""},
		{[]string{"--help"}, exitOK, ""},
		{[]string{}, exitOK, ""},
		{[]string{"check", "-c", none}, exitUsage, "bridgehead: read the configuration: "},
		{[]string{"serve", "-c", none}, exitUsage, "bridgehead: read the configuration: "},
		{[]string{"health", "-c", none}, exitUsage, "bridgehead: read the configuration: "},
		{[]string{"nonsense"}, exitUsage, `bridgehead: unknown command "nonsense"; see bridgehead --help`},
		{[]string{"chekc"}, exitUsage, `bridgehead: unknown command "chekc"; did you mean check?`},
		{[]string{"version", "1"}, exitUsage, `bridgehead: "1": version takes no arguments; see bridgehead version --help`},
		{[]string{"health", "--raedy"}, exitUsage, "bridgehead: unknown flag: --raedy; see bridgehead health --help"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(c.args, &stdout, &stderr); code != c.code {
			t.Errorf("%v: exit code %d, want %d", c.args, code, c.code)
		}
		if !strings.HasPrefix(stderr.String(), c.stderr) || strings.Count(stderr.String(), "\n") > 1 || (c.code == exitOK) != (stderr.Len() == 0) {
			t.Errorf("%v: standard error is %q, want one line %q", c.args, stderr.String(), c.stderr)
		}
		if (c.code == exitOK) != (stdout.Len() > 0) {
			t.Errorf("%v: standard output is %q", c.args, stdout.String())
		}
	}
}

func TestFailuresKeepTheirCause(t *testing.T) {
	t.Parallel()
	if fail(exitFailed, nil) != nil {
		t.Error("no error became a failure")
	}
	if err := misused(newRoot(), fs.ErrNotExist); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v has lost its cause", err)
	}
}

// The working directory is the process's: not a parallel test.
func TestTheFirstConfigurationThatIsThereIsTaken(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := os.Stat(configPaths[1]); err != nil {
		if path, err := findConfig(); err == nil {
			t.Errorf("found %q where there is none", path)
		}
	}
	if err := os.WriteFile("config.yaml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if path, err := findConfig(); path != "config.yaml" || err != nil {
		t.Errorf("found %q, %v", path, err)
	}
}

// badWriter is a standard output that is full.
type badWriter struct{}

func (badWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/config.yaml"
	text := "state: /tmp\nlisteners: [{address: \"127.0.0.1:0\"}]\nroutes: [{websocket: {to: \"ws://127.0.0.1:1\"}}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"version"}, {"check", "-c", file}} {
		var stderr bytes.Buffer
		if code := run(args, badWriter{}, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%v: exit code %d and %q", args, code, stderr.String())
		}
	}
}
