package admin

import (
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// start serves h on l until the test ends.
func start(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	s := &http.Server{Handler: h}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
}

func get(t *testing.T, addr, path string) (int, error) {
	t.Helper()
	client, base := Client(addr)
	resp, err := client.Get(base + path)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func wantOK(t *testing.T, addr string) {
	t.Helper()
	for _, path := range []string{"/healthz", "/v1/connections"} {
		if status, err := get(t, addr, path); status != 200 || err != nil {
			t.Errorf("GET %s at %s: %d %v", path, addr, status, err)
		}
	}
}

func TestListenTCP(t *testing.T) {
	t.Parallel()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	start(t, l, newAPI().Admin())
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, addr := range []string{l.Addr().String(), "localhost:" + port, ":" + port, "0.0.0.0:" + port} {
		wantOK(t, addr)
	}
	if _, base := Client("[::]:9900"); base != "http://[::1]:9900" {
		t.Errorf("all interfaces are reached at %s", base)
	}
}

// Whoever may open the socket is on this machine and may call.
func TestListenUnix(t *testing.T) {
	t.Parallel()
	addr := "unix:" + filepath.Join(t.TempDir(), "admin.sock")
	path := strings.TrimPrefix(addr, "unix:")
	l, err := Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket: %v %v, want mode 0600", info.Mode(), err)
	}
	start(t, l, newAPI().Admin())
	wantOK(t, addr)

	if l, err := Listen(addr); err == nil {
		l.Close()
		t.Error("a second listener took the socket of the first")
	} else if !strings.Contains(err.Error(), "another program answers there") {
		t.Error(err)
	}
	wantOK(t, addr)
}

func TestListenReplacesStaleSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "admin.sock")
	killed, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	killed.(*net.UnixListener).SetUnlinkOnClose(false)
	killed.Close()

	l, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	start(t, l, newAPI().Admin())
	wantOK(t, "unix:"+path)
}

func TestListenRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for addr, says := range map[string]string{
		"unix:" + file: "no socket is in the way",
		"unix:" + filepath.Join(dir, "none", "x"): "none",
		"unix:/" + strings.Repeat("x", 104):       "at most 104 bytes, not 105",
		"unix:":                                   "has no path",
		"9900":                                    "write host:port or unix:/path",
		"":                                        "write host:port or unix:/path",
		"localhost:http":                          "the port must be a number",
		"localhost:65536":                         "the port must be a number",
		"http://localhost:9900":                   "write host:port",
		"//localhost:9900":                        "is no host",
	} {
		if l, err := Listen(addr); err == nil {
			l.Close()
			t.Errorf("Listen(%q) did", addr)
		} else if !strings.Contains(err.Error(), says) {
			t.Errorf("Listen(%q): %v, want it to say %q", addr, err, says)
		}
		if addr == "localhost:http" || addr == "" {
			if _, err := get(t, addr, "/healthz"); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("a client of %q: %v", addr, err)
			}
		}
	}
	if data, err := os.ReadFile(file); string(data) != "precious" {
		t.Errorf("the file that was in the way: %q %v", data, err)
	}
}
