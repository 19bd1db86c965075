package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for shell, want := range map[string]string{
		"bash": "complete -o default", "zsh": "#compdef bridgehead", "fish": "complete -c bridgehead", "powershell": "Register-ArgumentCompleter",
	} {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"completion", shell}, &stdout, &stderr); code != exitOK || !strings.Contains(stdout.String(), want) {
			t.Errorf("%s: exit code %d, %d bytes and %q", shell, code, stdout.Len(), stderr.String())
		}
	}
	for _, args := range [][]string{{"completion"}, {"completion", "tcsh"}} {
		var stdout, stderr bytes.Buffer
		if code := run(args, &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), "bash, fish, powershell, zsh") {
			t.Errorf("%v: exit code %d and %q", args, code, stderr.String())
		}
	}
}

// What the scripts ask for when somebody presses the tab key.
func TestWhatIsCompleted(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"c":                   {"ca", "check", "completion"},
		"completion ":         {"bash", "fish", "powershell", "zsh"},
		"init ":               {"chat", "vnc", "mqtt", "webhook", "saas"},
		"quick --as ":         {"websocket", "tcp", "webhook"},
		"quick --log ":        {"debug", "info", "warn", "error"},
		"quick --fr":          {"--from", "--framing"},
		"serve -c ":           {"yaml", "yml"}, // the endings of the files to offer
		"init chat --output ": {"yaml", "yml"},
	} {
		var stdout, stderr bytes.Buffer
		args := append([]string{"__complete"}, strings.Fields(line)...)
		if strings.HasSuffix(line, " ") {
			args = append(args, "")
		}
		if code := run(args, &stdout, &stderr); code != exitOK {
			t.Fatalf("%q: exit code %d: %s", line, code, stderr.String())
		}
		var got []string
		for text := range strings.Lines(stdout.String()) {
			word, _, _ := strings.Cut(strings.TrimSuffix(text, "\n"), "\t")
			got = append(got, word)
		}
		for _, word := range want {
			if !slices.Contains(got, word) {
				t.Errorf("%q is completed by %q, without %s", line, got, word)
			}
		}
	}
}
