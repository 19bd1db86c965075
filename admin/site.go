package admin

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// A call is one thing that may be asked for.
type call struct {
	method, path string // the path as a pattern of http.ServeMux
	role         string // what the caller must be allowed; anybody needs no token
	does         string // for the list of calls
	serve        func(w http.ResponseWriter, r *http.Request, by *caller) error
}

// A site serves the calls of one listener: it finds the call, lets nobody in who may not, and answers errors.
type site struct {
	calls []call
	guard *guard
	log   *slog.Logger
}

func newSite(calls []call, g *guard, log *slog.Logger) http.Handler {
	s := &site{calls: calls, guard: g, log: log}
	byPath := make(map[string]map[string]call)
	for _, c := range calls {
		if byPath[c.path] == nil {
			byPath[c.path] = make(map[string]call)
		}
		byPath[c.path][c.method] = c
	}
	mux := http.NewServeMux()
	for path, methods := range byPath {
		mux.Handle(path, s.at(methods))
	}
	mux.Handle("/", s.at(nil))
	return mux
}

// at is the handler of one path, by method; without any it answers 404.
func (s *site) at(methods map[string]call) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		if err := s.serve(methods, w, r); err != nil {
			s.fail(w, r, err)
		}
	})
}

func (s *site) serve(methods map[string]call, w http.ResponseWriter, r *http.Request) error {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	c, known := methods[method]
	if known && c.role == anybody {
		return c.serve(w, r, nil)
	}
	by, err := s.guard.admit(r)
	switch {
	case err != nil:
		return err
	case methods == nil:
		return refuse(http.StatusNotFound, "there is no %s %q here; the calls are: %s", r.Method, r.URL.Path, names(s.calls))
	case !known:
		return wrongMethod(methods, r)
	case !by.mayDo(c.role):
		return by.lacks(c.role)
	}
	return c.serve(w, r, by)
}

func wrongMethod(methods map[string]call, r *http.Request) error {
	allowed := slices.Collect(maps.Keys(methods))
	if slices.Contains(allowed, http.MethodGet) {
		allowed = append(allowed, http.MethodHead)
	}
	slices.Sort(allowed)
	list := strings.Join(allowed, ", ")
	err := refuse(http.StatusMethodNotAllowed, "%s takes no %s: use %s", r.URL.Path, r.Method, list)
	err.header = http.Header{"Allow": {list}}
	return err
}

// fail answers an error. Callers that were not let in are worth a line in the log.
func (s *site) fail(w http.ResponseWriter, r *http.Request, err error) {
	refused := asRefusal(err)
	switch refused.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		s.log.Warn("API call refused", "method", r.Method, "path", r.URL.Path, "peer", r.RemoteAddr, "reason", refused.text)
	case http.StatusInternalServerError:
		s.log.Error("API call failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	maps.Copy(w.Header(), refused.header)
	write(w, refused.status, refused.body())
}

// names lists calls in one line.
func names(calls []call) string {
	var list []string
	for _, c := range calls {
		list = append(list, c.method+" "+c.shownPath())
	}
	return strings.Join(list, ", ")
}

// listing describes calls in one line each.
func listing(calls []call) string {
	var b strings.Builder
	for _, c := range calls {
		fmt.Fprintf(&b, "%-6s %-20s  %s", c.method, c.shownPath(), c.does)
		if c.role != anybody {
			fmt.Fprintf(&b, " (%s)", c.role)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (c call) shownPath() string { return strings.TrimSuffix(c.path, "{$}") }
