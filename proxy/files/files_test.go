package files

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestServesADirectoryAndNothingElse(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"index.html": "home", "app.js": "let x", "sub/page.html": "page", ".env": "secret", ".git/config": "secret",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	h, err := New(Options{Dir: dir}, "/static/")
	if err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/static/", 200, "home"},
		{"GET", "/static/app.js", 200, "let x"},
		{"HEAD", "/static/app.js", 200, ""},
		{"GET", "/static/sub/page.html", 200, "page"},
		{"GET", "/static/sub/", 404, ""}, // no listing
		{"GET", "/static/.env", 404, ""}, // no dotfiles
		{"GET", "/static/.git/config", 404, ""},
		{"GET", "/static/link", 404, ""},      // no way out by a link
		{"GET", "/static/../secret", 404, ""}, // nor by dots
		{"GET", "/static/none", 404, ""},
		{"POST", "/static/app.js", 405, ""},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(c.method, "http://x/", nil)
			r.URL.Path = c.path
			h.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Fatalf("status %d, want %d", w.Code, c.status)
			}
			if c.status == http.StatusOK && w.Body.String() != c.body {
				t.Fatalf("body %q, want %q", w.Body, c.body)
			}
		})
	}
}
