package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const authorityFile = "state: ./state\ncertificates: {internal: true}\nroutes: [{websocket: {to: \"ws://127.0.0.1:1\"}}]\n"

// The root can be had before the first start, and is the same ever after.
func TestTheRootIsMadeOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(authorityFile), 0o600); err != nil {
		t.Fatal(err)
	}
	var first, again, path, stderr, about bytes.Buffer
	for _, call := range []struct {
		stdout, stderr *bytes.Buffer
		args           []string
	}{{&first, &stderr, nil}, {&again, &about, []string{"-v"}}, {&path, &stderr, []string{"--path"}}} {
		if code := run(append([]string{"ca", "-c", file}, call.args...), call.stdout, call.stderr); code != exitOK {
			t.Fatalf("%v: exit code %d: %s", call.args, code, call.stderr.String())
		}
	}
	block, rest := pem.Decode(first.Bytes())
	if block == nil || len(rest) > 0 || first.String() != again.String() || stderr.Len() > 0 {
		t.Fatalf("printed %q, then %q, and on standard error %q", first.String(), again.String(), stderr.String())
	}
	if cert, err := x509.ParseCertificate(block.Bytes); err != nil || !cert.IsCA {
		t.Errorf("what it printed is no authority's: %v", err)
	}
	if want := filepath.Join(dir, "state", "ca", "root.pem") + "\n"; path.String() != want {
		t.Errorf("its path is %q, want %q", path.String(), want)
	}
	for _, text := range []string{"subject      CN=bridgehead local CA", "ends         20", "fingerprint  SHA-256 ", "file         " + dir} {
		if !strings.Contains(about.String(), text) {
			t.Errorf("-v tells no %q:\n%s", text, about.String())
		}
	}
}

func TestWithoutALocalAuthorityThereIsNoRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	text := strings.Replace(authorityFile, "internal: true", "files: [{cert: c.pem, key: k.pem}]", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := run([]string{"ca", "-c", file}, &stdout, &stderr)
	if want := "bridgehead: " + file + " has no local authority: set certificates.internal: true"; code != exitUsage || !strings.HasPrefix(stderr.String(), want) {
		t.Errorf("exit code %d and %q", code, stderr.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
		t.Error("it has made the state directory")
	}
}

// The environment is the process's, and so is where a configuration is looked for: not a parallel test.
func TestWithoutAFileTheAuthorityIsTheUsers(t *testing.T) {
	everywhere := configPaths
	configPaths = everywhere[:1] // this machine may have one of its own
	t.Cleanup(func() { configPaths = everywhere })
	dir := t.TempDir()
	t.Chdir(t.TempDir())
	t.Setenv("STATE_DIRECTORY", dir)
	var stdout, stderr bytes.Buffer
	if code := run([]string{"ca", "--path"}, &stdout, &stderr); code != exitOK || stdout.String() != filepath.Join(dir, "ca", "root.pem")+"\n" {
		t.Errorf("exit code %d, %q and %q", code, stdout.String(), stderr.String())
	}
}

func TestADamagedRootIsTold(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if _, err := describe([]byte(text)); err == nil {
			t.Errorf("%q is described", text)
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	if err := os.MkdirAll(filepath.Join(dir, "state", "ca"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{file: authorityFile, filepath.Join(dir, "state", "ca", "root.pem"): "nonsense"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"ca", "-c", file}, &stdout, &stderr); code != exitFailed || stdout.Len() > 0 || !strings.Contains(stderr.String(), "restore both files") {
		t.Errorf("exit code %d, %q and %q", code, stdout.String(), stderr.String())
	}
}
