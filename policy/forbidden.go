package policy

import (
	"fmt"
	"net/http"
	"strings"
)

// Forbidden says of the page of an origin that it may not open a WebSocket, and how to allow it.
type Forbidden struct {
	Origin string // as the page's browser sent it
	Route  string // where to list it, for the error's text; "" if that is known to whoever reads it
	Hint   string // a likely mistake, or ""
}

// Error names the entry to add.
func (f *Forbidden) Error() string {
	text := fmt.Sprintf("origin %.300q is not allowed; to allow it, list %.300q under origins", f.Origin, f.Origin)
	if f.Route != "" {
		text += fmt.Sprintf(" of route %q", f.Route)
	}
	if f.Hint != "" {
		text += "; " + f.Hint
	}
	return text
}

const (
	hintOfFiles = "browsers send this for pages from files and in sandboxed frames, whosever they are: better serve the page by HTTP"

	hintOfRebinding = "a route without host, to which any name could lead (DNS rebinding), lets its own pages in only at localhost " +
		"and at IP addresses: give it a host"
)

// hint finds what is likely to be wrong with the configuration, or with the proxy in front of us, when a page is not allowed.
func (o *Origins) hint(got origin, r *http.Request) string {
	switch {
	case got.scheme == "file":
		return hintOfFiles
	case o.self && sameHost(got, r.Host):
		return hintOfRebinding
	case o.self && proxied(r):
		return fmt.Sprintf("the Host header is %.300q, but the request came through a proxy: "+
			"if that changed the header, let it pass the client's (nginx: proxy_set_header Host $http_host)", r.Host)
	}
	for _, p := range o.entries {
		if differs := p.differs(got); differs != "" {
			return fmt.Sprintf("%s is listed, but %s", p.text, differs)
		}
	}
	if host, _, err := parseAuthority(strings.ToLower(r.Host)); o.self && err == nil && host == got.host {
		return fmt.Sprintf("the page's port is not that of the Host header, %.300q", r.Host)
	}
	return ""
}

// differs tells what is wrong with a page that is almost one of the pattern's, or "".
func (p originPattern) differs(got origin) string {
	switch {
	case p.below && p.host == got.host:
		return "stands for the names below this one, not for itself"
	case !p.matchHost(got):
		return ""
	case p.scheme != got.scheme:
		return "the scheme differs"
	}
	return "the port differs"
}

// proxied tells whether something between the client and us has left its mark.
func proxied(r *http.Request) bool {
	if r.Header.Get("Via") != "" || Unbelieved(r) != "" {
		return true
	}
	for name := range r.Header {
		if speaks(name, Forwarded) {
			return true
		}
	}
	return false
}
