//go:build unix

package files

import (
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
)

func TestAPipeIsNoFile(t *testing.T) {
	t.Parallel()
	dir := site(t)
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe.txt"), 0o644))
	if resp, _ := ask(t, serve(t, Options{Dir: dir}, "/"), "GET /pipe.txt"); resp.StatusCode != http.StatusNotFound {
		t.Fatalf("status %s", resp.Status)
	}
}
