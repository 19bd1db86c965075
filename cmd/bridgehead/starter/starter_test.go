package starter

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bridgehead/config"
	"bridgehead/internal/leak"
	"bridgehead/server"
)

func TestMain(m *testing.M) { leak.Main(m) }

// loopback is an address that a file listens on; it may be taken on this machine.
var loopback = regexp.MustCompile(`(?m)^( +address: 127\.0\.0\.1):[0-9]+`)

// Every file is without problems and warnings, starts as it is, and names the three lines to change.
func TestFilesRunAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, k := range Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			text := File(k.Name)
			for _, mark := range []string{"# (1) ", "# (2) ", "# (3) "} {
				if n := bytes.Count(text, []byte(mark)); n != 1 {
					t.Errorf("%s stands in %d lines", mark, n)
				}
			}
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if c, warnings, err := config.Load(path); err != nil || len(warnings) > 0 {
				t.Fatalf("%v, %v", warnings, err)
			} else if !strings.HasPrefix(k.Try, "wss://") || !strings.Contains(k.Try, ":8443/") || len(c.Listeners) != 1 {
				t.Errorf("it is tried by %s, and listens at %+v", k.Try, c.Listeners)
			}
			if err := os.WriteFile(path, loopback.ReplaceAll(text, []byte("$1:0")), 0o600); err != nil {
				t.Fatal(err)
			}
			c, _, err := config.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			c.Admin.Address = "127.0.0.1:0" // the path of this directory is too long for a socket
			s, err := server.New(c, "test", slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			s.Start()
			s.Stop()
		})
	}
}

// What is commented out, in production's favour or as an option, must be right too.
func TestWhatIsCommentedOutIsValid(t *testing.T) {
	t.Parallel()
	option := regexp.MustCompile(`(?m)^( *)# ((host|files|socket|tokens|secret|preamble|- name|  files|  host): ?.*)$`)
	lookup := func(name string) (string, bool) { return "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true }
	for _, k := range Kinds() {
		text := option.ReplaceAllString(string(File(k.Name)), "$1$2")
		if n := len(option.FindAllString(string(File(k.Name)), -1)); n < 2 {
			t.Errorf("%s: only %d lines are commented out", k.Name, n)
		}
		if _, warnings, err := config.Parse("/x/config.yaml", []byte(text), lookup); err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v, %v in\n%s", k.Name, warnings, err, text)
		}
	}
}

func TestThereIsNoOtherKind(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "nonsense", "../quick/config"} {
		if text := File(name); text != nil {
			t.Errorf("%q is %q", name, text)
		}
	}
}
