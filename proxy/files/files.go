// Package files serves a directory beside the sockets, for the page that opens them.
package files

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
)

// A Handler serves one directory, which is closed when nobody uses the Handler any more. It is an http.Handler.
type Handler struct{ serve http.Handler }

// New serves o.Dir below prefix, the fixed part of the route's path.
func New(o Options, prefix string) (*Handler, error) {
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	serve := http.StripPrefix(strings.TrimSuffix(prefix, "/"), http.FileServerFS(public{root.FS()}))
	return &Handler{serve}, nil
}

// ServeHTTP answers GET and HEAD, with ranges and conditions (RFC 9110, sections 13 and 14).
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "here are files: GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h.serve.ServeHTTP(w, r)
}

// public hides what a directory does not mean to publish: dotfiles, and lists of its files. os.Root keeps links inside.
type public struct{ fs.FS }

func (p public) Open(name string) (fs.File, error) {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." {
			return nil, fs.ErrNotExist
		}
	}
	f, err := p.FS.Open(name)
	if err != nil {
		return nil, fs.ErrNotExist // whatever the reason, a client learns nothing from it
	}
	if info, err := f.Stat(); err != nil || info.IsDir() && !p.hasIndex(name) {
		f.Close()
		return nil, fs.ErrNotExist
	}
	return f, nil
}

func (p public) hasIndex(dir string) bool {
	info, err := fs.Stat(p.FS, path.Join(dir, "index.html"))
	return err == nil && info.Mode().IsRegular()
}
