package connect

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// ParseURL reads where to connect to. http and https stand for ws and wss. Without a scheme it is wss, but ws on this machine
// unless the port ends in 443; without a host it is this machine.
func ParseURL(text string) (*url.URL, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found || strings.ContainsAny(scheme, "/?#") {
		scheme, rest = "", text
	}
	u, err := url.Parse("//" + rest)
	if err != nil {
		return nil, fmt.Errorf("URL %q: %w", text, errors.Unwrap(err)) // without the URL, which is not what was typed
	}
	if u.Hostname() == "" {
		if rest == "" || u.Port() == "" {
			return nil, fmt.Errorf("URL %q: it needs a host, as in wss://example.com/path", text)
		}
		u.Host = "localhost" + u.Host
	}
	if strings.Contains(rest, "#") {
		return nil, fmt.Errorf("URL %q: a WebSocket URL has no fragment; a # in its path or query is written %%23", text)
	}
	switch strings.ToLower(scheme) {
	case "ws", "http":
		u.Scheme = "ws"
	case "wss", "https":
		u.Scheme = "wss"
	case "":
		u.Scheme = guess(u)
	default:
		return nil, fmt.Errorf("URL %q: the scheme must be ws or wss", text)
	}
	return u, nil
}

// guess is the scheme of a URL that has none.
func guess(u *url.URL) string {
	addr, err := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
	if local && !strings.HasSuffix(u.Port(), "443") {
		return "ws"
	}
	return "wss"
}

// hostPort is where a URL leads.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// name is a URL without its query, which may be secret.
func name(u *url.URL) string { return u.Scheme + "://" + u.Host + u.EscapedPath() }

// reserved are the headers that the handshake sets itself, and what to use instead.
var reserved = map[string]string{
	"Upgrade":                  "it is always websocket",
	"Connection":               "it is always Upgrade",
	"Sec-Websocket-Key":        "it is always random",
	"Sec-Websocket-Version":    "it is always 13",
	"Sec-Websocket-Protocol":   "use --subprotocol",
	"Sec-Websocket-Extensions": "use --compression",
}

func parseHeaders(lines []string) (http.Header, error) {
	all := http.Header{}
	for _, line := range lines {
		name, value, found := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !found || !isToken(name) {
			return nil, fmt.Errorf("header %q: write it as 'Name: value'", line)
		}
		if strings.ContainsAny(value, "\r\n\x00") {
			return nil, fmt.Errorf("header %q: a value has one line", line)
		}
		key := http.CanonicalHeaderKey(name)
		if instead, ok := reserved[key]; ok {
			return nil, fmt.Errorf("header %q: %s", name, instead)
		}
		all.Add(key, value)
	}
	if hosts := all["Host"]; len(hosts) > 1 {
		return nil, fmt.Errorf("header Host: %d values, where one is possible", len(hosts))
	}
	return all, nil
}

// isToken reports whether s may be the name of a header or a subprotocol (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7F || slices.Contains([]rune(`"(),/:;<=>?@[\]{}`), r)
	})
}

// basic is the header that carries a name and a password (RFC 7617).
func basic(user *url.Userinfo) string {
	password, _ := user.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
}
