package quick

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"bridgehead/proxy/relay"
	"bridgehead/proxy/stream"
	"bridgehead/proxy/upstream"
)

// What may stand behind a bridge, as the sections of a route are called.
const (
	tcp       = "tcp"
	websocket = "websocket"
	webhook   = "webhook"
)

// to is where sockets lead.
type to struct {
	kind    string // tcp, websocket or webhook
	url     string // as it stands in a configuration
	guessed bool   // the kind is a guess: http may be either of two
}

// kinds are the schemes of --to, and what speaks there if --as does not say.
var kinds = map[string]string{
	"tcp": tcp, "tls": tcp, "unix": tcp, "ws": websocket, "wss": websocket, "http": webhook, "https": webhook,
}

// schemesOf are the schemes that each kind speaks. The first is that of a `host:port` alone.
var schemesOf = map[string][]string{tcp: stream.Schemes, websocket: relay.Schemes, webhook: {"http", "https", "ws", "wss"}}

// parseTo reads `host:port`, `:port` for a port of this machine, `unix:/path`, or a URL.
func parseTo(s, as string) (to, error) {
	if s == "" {
		return to{}, fmt.Errorf("--to is missing: say where the sockets lead, as in --to tcp://localhost:5900")
	}
	if _, ok := schemesOf[as]; as != "" && !ok {
		return to{}, fmt.Errorf("--as %q is none of websocket, tcp, webhook", as)
	}
	scheme, full, err := complete(s, as)
	if err != nil {
		return to{}, err
	}
	t := to{kind: as, url: full}
	if as == "" {
		t.kind = kinds[scheme]
		t.guessed = t.kind == webhook
	}
	if t.kind == "" {
		return to{}, fmt.Errorf("--to %q has the scheme %q: write host:port, tcp://, tls://, unix:/path, ws://, wss://, http:// or https://",
			s, scheme)
	}
	if err := upstream.CheckURL(t.url, schemesOf[t.kind]...); err != nil {
		return to{}, fmt.Errorf("--to: %w", err)
	}
	return t, nil
}

// complete gives --to the scheme and the absolute path that it may lack.
func complete(s, as string) (scheme, full string, err error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if path != "" && !strings.HasPrefix(path, "@") { // that is in Linux' abstract name space
			path, err = filepath.Abs(path)
		}
		return "unix", "unix:" + path, err
	}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		scheme = strings.ToLower(scheme)
		return scheme, scheme + "://" + rest, nil
	}
	if strings.HasPrefix(s, ":") {
		s = "localhost" + s
	}
	scheme = tcp
	if as != "" {
		scheme = schemesOf[as][0]
	}
	return scheme, scheme + "://" + s, nil
}

// probeTime is how long a backend may take to be reached at the start.
const probeTime = time.Second

// Probe tells why nothing answers where the sockets lead, if so.
func (b *Bridge) Probe(ctx context.Context) error {
	network, address := b.to.dial()
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return fmt.Errorf("nothing answers at %s: %w; sockets are refused with 502 until something does", address, err)
	}
	return conn.Close()
}

// dial is where a connection to the backend goes.
func (t to) dial() (network, address string) {
	if path, ok := strings.CutPrefix(t.url, "unix:"); ok {
		return "unix", path
	}
	_, rest, _ := strings.Cut(t.url, "://")
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	u := url.URL{Host: rest}
	port := u.Port()
	if port == "" {
		port = "80"
		if strings.HasPrefix(t.url, "wss:") || strings.HasPrefix(t.url, "https:") {
			port = "443"
		}
	}
	return "tcp", net.JoinHostPort(u.Hostname(), port)
}
