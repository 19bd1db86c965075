// Package files serves a directory beside the sockets, for the page that opens them.
package files

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"bridgehead/ws"
)

// index is the file that stands for its directory.
const index = "index.html"

// A Handler serves one directory. It opens the directory for each request, so that another one may take its place at any time. It is
// an http.Handler.
type Handler struct {
	options Options
	depth   int // the segments of the path in front of the files
}

// New serves o.Dir below prefix, the fixed part of the route's path up to its last slash.
func New(o Options, prefix string) (*Handler, error) {
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	defer root.Close()
	if o.Fallback != "" {
		if info, err := root.Stat(o.Fallback); err != nil || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("files: the fallback %q is no file in %s", o.Fallback, o.Dir)
		}
	}
	return &Handler{o, max(strings.Count(prefix, "/")-1, 0)}, nil
}

// ServeHTTP answers GET and HEAD, with ranges and conditions (RFC 9110, sections 13 and 14).
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	if ws.IsUpgrade(r) { // the client may go on with something else than HTTP
		header.Set("Connection", "close")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "here are files: GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	header.Set("X-Content-Type-Options", "nosniff")
	root, err := os.OpenRoot(h.options.Dir)
	if err != nil {
		notFound(w)
		return
	}
	defer root.Close()
	name, slash, ok := fileName(r.URL.EscapedPath(), h.depth)
	if !ok {
		notFound(w)
		return
	}
	h.serve(w, r, root, name, slash)
}

// notFound is the answer for all that is not to be had: a client learns nothing of the reason.
func notFound(w http.ResponseWriter) { http.Error(w, "there is no such file", http.StatusNotFound) }

// serve answers with the file, the index of the directory, or the fallback.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, root *os.Root, name string, slash bool) {
	info, err := root.Stat(name) // before it is opened: a named pipe would wait for its writer
	isDir := err == nil && info.IsDir()
	if isDir {
		name = path.Join(name, index)
		info, err = root.Stat(name)
	}
	switch ok := err == nil && info.Mode().IsRegular(); {
	case ok && isDir && !slash:
		redirect(w, r.URL)
	case ok && isDir == slash:
		h.send(w, r, root, name)
	case h.options.Fallback != "" && !likeFile(r.URL.Path):
		h.send(w, r, root, h.options.Fallback)
	default:
		notFound(w)
	}
}

// likeFile tells whether a path ends as that of a file does, and not of a page.
func likeFile(p string) bool {
	_, known := typeOf(strings.TrimSuffix(p, "/"))
	return known
}

// redirect sends a client from a directory's name to the directory, where the links of its index are right.
func redirect(w http.ResponseWriter, u *url.URL) {
	to := "./" + path.Base(u.EscapedPath()) + "/" // relative: nothing that the client sent can be taken for another host
	if u.RawQuery != "" {
		to += "?" + u.RawQuery
	}
	w.Header().Set("Location", to)
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusMovedPermanently)
}

// send answers with a file that is there.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, root *os.Root, name string) {
	f, err := root.Open(name)
	if err != nil {
		notFound(w)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		notFound(w)
		return
	}
	kind, _ := typeOf(name)
	header := w.Header()
	header.Set("Content-Type", kind)
	header.Set("Cache-Control", "no-cache") // kept, and asked for each time
	if h.options.Cache > 0 && !strings.HasPrefix(kind, "text/html") {
		header.Set("Cache-Control", "max-age="+strconv.FormatInt(int64(h.options.Cache/time.Second), 10))
	}
	tag, modified := version(info)
	if tag != "" {
		header.Set("ETag", tag)
	}
	http.ServeContent(w, r, name, modified, f)
}

// version tells the versions of a file apart, by an ETag and by its age. Archives and images that are to be reproducible set all
// their files' times to the beginning of time: those say nothing.
func version(info fs.FileInfo) (tag string, modified time.Time) {
	modified = info.ModTime()
	if modified.Unix() <= 1 {
		return "", time.Time{}
	}
	return fmt.Sprintf(`"%x-%x"`, modified.UnixNano(), info.Size()), modified
}
