package demo

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience bounds each wait for another goroutine. Nothing is expected to take as long.
const patience = 30 * time.Second

// start runs the backends until the test ends.
func start(t *testing.T) *Backends {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	b, err := Start(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		b.Wait()
	})
	return b
}

func TestEverythingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b, err := Start(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ann := join(t, b, "ann") // open sockets do not hold it up
	call := dialLine(t, b)
	if _, err := os.Stat(filepath.Join(b.Dir, "www", "index.html")); err != nil {
		t.Errorf("the page is not where the files route looks: %v", err)
	}

	cancel()
	began := time.Now()
	b.Wait()
	if took := time.Since(began); took > patience { // they promise one second; the rest is for a busy machine
		t.Errorf("the backends took %v to end, want a second", took)
	}
	if code, reason := ann.closed(t); code != 1001 || reason != "the demo ends" {
		t.Errorf("a member of the chat was told %d %q, want 1001", code, reason)
	}
	if line, err := call.ReadString('\n'); err == nil {
		t.Errorf("the line service went on with %q", line)
	}
	for _, address := range []string{b.Chat, b.Line, b.App} {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s still listens", address)
		}
	}
	if _, err := os.Stat(b.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind: %v", b.Dir, err)
	}
}

func TestTwoDemosRunSideBySide(t *testing.T) {
	t.Parallel()
	a, b := start(t), start(t)
	if a.Secret == b.Secret || a.PushToken == b.PushToken || a.Secret == "whsec_"+a.PushToken {
		t.Error("secrets are shared")
	}
	if a.Chat == b.Chat || a.Dir == b.Dir {
		t.Error("addresses or directories are shared")
	}
}

func TestConfigNamesEverything(t *testing.T) {
	t.Parallel()
	b := &Backends{
		Dir:  `/tmp/a "b"`,
		Chat: "127.0.0.1:1", Line: "127.0.0.1:2", App: "127.0.0.1:3",
		HTTPS: "127.0.0.1:4", HTTP: "127.0.0.1:5", Push: "127.0.0.1:6", Admin: "127.0.0.1:7",
		Secret: "whsec_S", PushToken: "T",
	}
	golden(t, "config.yaml", b.Config())
	addresses := map[string]string{"https": "127.0.0.1:4", "http": "127.0.0.1:5", "push": "127.0.0.1:6", "admin": "127.0.0.1:7"}
	golden(t, "guide.txt", b.Guide(func(listener string) string { return addresses[listener] }, "/tmp/it's/root.pem"))
}

// golden compares with a file of testdata; `UPDATE_GOLDEN=1 go test` writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what %s holds:\n%s", name, path, got)
	}
}

// The page forbids every script and style but its own: a stale hash would leave it dead and bare.
func TestPageHoldsTheHashesOfItsScriptAndStyle(t *testing.T) {
	t.Parallel()
	text := string(page)
	for _, tag := range []string{"script", "style"} {
		parts := regexp.MustCompile(`(?s)<`+tag+`>(.*?)</`+tag+`>`).FindAllStringSubmatch(text, -1)
		if len(parts) != 1 {
			t.Fatalf("the page has %d <%s>, want one", len(parts), tag)
		}
		sum := sha256.Sum256([]byte(parts[0][1]))
		if want := fmt.Sprintf("%s-src 'sha256-%s'", tag, base64.StdEncoding.EncodeToString(sum[:])); !strings.Contains(text, want) {
			t.Errorf("the page's policy must say %s", want)
		}
	}
}

func TestPageLoadsNothing(t *testing.T) {
	t.Parallel()
	for _, forbidden := range []string{`src="`, "@import", "url(", "http://www.w3.org/1999", "https://cdn", " style=", " onclick="} {
		if strings.Contains(string(page), forbidden) {
			t.Errorf("the page contains %q", forbidden)
		}
	}
}
