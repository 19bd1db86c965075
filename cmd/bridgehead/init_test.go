package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bridgehead/cmd/bridgehead/starter"
)

func TestAFileIsNotOverwritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	for _, step := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"init", "chat", "-o", path}, exitOK, ""},
		{[]string{"init", "vnc", "-o", path}, exitFailed, "bridgehead: " + path + " is there already: name another with -o, or overwrite it with --force\n"},
		{[]string{"init", "vnc", "-o", path, "--force"}, exitOK, ""},
	} {
		before, _ := os.ReadFile(path)
		var stdout, stderr bytes.Buffer
		if code := run(step.args, &stdout, &stderr); code != step.code || stderr.String() != step.stderr {
			t.Errorf("%v: exit code %d and %q", step.args, code, stderr.String())
		}
		after, err := os.ReadFile(path)
		if err != nil || (step.code == exitOK) == bytes.Equal(before, after) {
			t.Errorf("%v: the file is as before: %v, %v", step.args, bytes.Equal(before, after), err)
		}
		if step.code == exitOK && !strings.Contains(stdout.String(), "bridgehead serve -c "+path) {
			t.Errorf("%v does not tell what is next: %q", step.args, stdout.String())
		}
	}
}

func TestInitKinds(t *testing.T) {
	t.Parallel()
	var list, file, stderr bytes.Buffer
	if code := run([]string{"init"}, &list, &stderr); code != exitOK || !strings.Contains(list.String(), "mqtt") {
		t.Errorf("exit code %d and %q", code, list.String())
	}
	if code := run([]string{"init", "mqtt", "-o", "-"}, &file, &stderr); code != exitOK || !strings.HasPrefix(file.String(), "## An MQTT broker") {
		t.Errorf("exit code %d and %q", code, file.String())
	}
	for _, args := range [][]string{{"init", "nonsense"}, {"init", "chat", "vnc"}} {
		stderr.Reset()
		code := run(args, &file, &stderr)
		if code != exitUsage || !strings.Contains(stderr.String(), "name one kind: chat, vnc, mqtt, webhook, saas; see bridgehead init --help") {
			t.Errorf("%v: exit code %d and %q", args, code, stderr.String())
		}
	}
}

func TestWhatInitSaysToTypeIsValid(t *testing.T) {
	t.Parallel()
	for _, k := range starter.Kinds() {
		c := newConnect()
		err := c.ParseFlags(strings.Fields(k.Try + " --ca root.pem"))
		if err == nil {
			err = c.Args(c, c.Flags().Args())
		}
		if err != nil {
			t.Errorf("connect %s: %v", k.Try, err)
		}
	}
}
