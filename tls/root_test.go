package tls

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

var internal = Options{Internal: true}

func TestTheRootOutlivesTheProgram(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "made", "as", "needed")
	l := newLogs()
	c := newCerts(t, internal, nil, state, l)
	root, path, ok := c.Root()
	if !ok || path != filepath.Join(state, "ca", "root.pem") {
		t.Fatalf("root at %q, %v", path, ok)
	}
	if onDisk, err := os.ReadFile(path); err != nil || !bytes.Equal(onDisk, root) {
		t.Errorf("%s is not the root: %v", path, err)
	}
	again := newCerts(t, internal, nil, state, l)
	if second, _, _ := again.Root(); !bytes.Equal(second, root) {
		t.Error("another root after a restart: all clients would have to trust anew")
	}
	if l.count("made a local CA") != 1 {
		t.Errorf("log:\n%s", l)
	}
	if _, err := dial(listen(t, again), trusting(t, c, "localhost")); err != nil {
		t.Errorf("a client that trusts the root from before: %v", err)
	}
}

func TestTheRootIsAnAuthorityForTenYears(t *testing.T) {
	t.Parallel()
	c := newCerts(t, internal, nil, t.TempDir(), newLogs())
	cert := c.authority.root.cert
	years := time.Until(cert.NotAfter).Hours() / 24 / 365
	titled := strings.Contains(cert.Subject.CommonName, "bridgehead local CA")
	if !cert.IsCA || cert.MaxPathLen != 1 || years < 9.9 || years > 10.1 || !titled {
		t.Errorf("CA %v, path %d, %v years, subject %v", cert.IsCA, cert.MaxPathLen, years, cert.Subject)
	}
}

func TestTheKeyIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	state := t.TempDir()
	newCerts(t, internal, nil, state, newLogs())
	for name, want := range map[string]os.FileMode{"ca": 0o700 | os.ModeDir, "ca/root.pem": 0o644, "ca/root-key.pem": 0o600} {
		info, err := os.Stat(filepath.Join(state, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v, want %v", name, info.Mode(), err, want)
		}
	}
	if err := os.Chmod(filepath.Join(state, "ca/root-key.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	l := newLogs()
	newCerts(t, internal, nil, state, l)
	if l.count("level=WARN") != 1 || l.count("root-key.pem mode=-rw-r-----") != 1 {
		t.Errorf("a key that the group may read, log:\n%s", l)
	}
}

func TestManyAtOnceMakeOneRoot(t *testing.T) {
	t.Parallel()
	for range 10 {
		state, l := t.TempDir(), newLogs()
		roots := make([]string, 16)
		var wg sync.WaitGroup
		for i := range roots {
			wg.Go(func() {
				c, err := New(internal, Means{State: state, Log: l.logger()})
				if err != nil {
					t.Error(err)
					return
				}
				root, _, _ := c.Root()
				roots[i] = string(root)
			})
		}
		wg.Wait()
		for _, root := range roots {
			if root == "" || root != roots[0] {
				t.Fatal("two roots for one state")
			}
		}
		entries, err := os.ReadDir(state)
		if err != nil || len(entries) != 1 {
			t.Errorf("left in the state directory: %v %v", entries, err)
		}
		if l.count("made a local CA") != 1 {
			t.Errorf("log:\n%s", l)
		}
	}
}

func TestAnEmptyDirectoryHoldsNoRootYet(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not rename over a directory")
	}
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, "ca"), 0o755); err != nil {
		t.Fatal(err)
	}
	newCerts(t, internal, nil, state, newLogs())
}

// A damaged root is never replaced: clients trust it, and a backup may exist.
func TestADamagedRootIsAnErrorThatSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, state, cert, key string)
		says   string
	}{
		{"the key is missing", func(t *testing.T, _, _, key string) { must(t, os.Remove(key)) }, "root-key.pem: "},
		{"the certificate is missing", func(t *testing.T, _, cert, _ string) { must(t, os.Remove(cert)) }, "root.pem: "},
		{"the certificate is cut", func(t *testing.T, _, cert, _ string) { must(t, os.Truncate(cert, 99)) }, "PEM data in certif"},
		{"the key is empty", func(t *testing.T, _, _, key string) { must(t, os.Truncate(key, 0)) }, "PEM data in key"},
		{"the key is another's", func(t *testing.T, state, _, key string) {
			must(t, os.Rename(writePair(t, state, "other", holding("x")).Key, key))
		}, "does not match"},
		{"no authority", func(t *testing.T, state, cert, key string) {
			other := writePair(t, state, "other", holding("x"))
			must(t, os.Rename(other.Cert, cert))
			must(t, os.Rename(other.Key, key))
		}, "not an authority"},
		{"expired", func(t *testing.T, state, cert, key string) {
			made, err := issueAuthority("old", time.Hour, nil, time.Now().Add(-48*time.Hour))
			must(t, err)
			other := writeIdentity(t, state, "other", made)
			must(t, os.Rename(other.Cert, cert))
			must(t, os.Rename(other.Key, key))
		}, "it expired on "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			newCerts(t, internal, nil, state, newLogs())
			cert, key := filepath.Join(state, "ca", "root.pem"), filepath.Join(state, "ca", "root-key.pem")
			test.damage(t, state, cert, key)
			beforeCert, _ := os.ReadFile(cert)
			beforeKey, _ := os.ReadFile(key)

			_, err := New(internal, Means{State: state, Log: newLogs().logger()})
			if err == nil {
				t.Fatal("no error")
			}
			for _, words := range []string{"local CA: ", cert, key, test.says, "restore both files", "remove " + filepath.Dir(cert)} {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%q does not say %q", err, words)
				}
			}
			afterCert, _ := os.ReadFile(cert)
			afterKey, _ := os.ReadFile(key)
			if !bytes.Equal(beforeCert, afterCert) || !bytes.Equal(beforeKey, afterKey) {
				t.Error("the files were touched")
			}
		})
	}
}

func TestAStateThatCannotHoldARoot(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for state, says := range map[string]string{"": "set `state`", file: file} {
		if _, err := New(internal, Means{State: state, Log: newLogs().logger()}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("state %q: error %v, want it to say %q", state, err, says)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
