package quick

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bridgehead/cmd/bridgehead/local"
)

// says is what a kind of backend does with a socket.
var says = map[string]string{
	tcp:       "a stream: its bytes are the messages",
	websocket: "a WebSocket server",
	webhook:   "an HTTP application, which gets the messages as POST requests (webhook)",
}

// Guide is what to tell the person at the terminal once the bridge listens on a port. root is the file of the local authority's
// root, or "".
func (b *Bridge) Guide(port, root string) string {
	var text strings.Builder
	line := func(format string, values ...any) { fmt.Fprintf(&text, format+"\n", values...) }
	url := b.url("ws", port) + pathOrSlash(b.from.path)
	line("The bridge is running:\n")
	line("  %s   leads to %s, %s", url, b.to.url, says[b.to.kind])
	if b.options.Web != "" {
		line("  %s/%s   shows the files of %s", b.url("http", port), b.page(), b.options.Web)
	}
	line("")
	if b.to.guessed {
		line("If %s speaks WebSocket itself, add: --as websocket\n", b.to.url)
	}
	if b.from.everywhere() {
		line("Other machines write the name or the address of this one instead of localhost.\n")
	}
	if b.options.Cert != "" {
		line("Clients reach it by the names that %s holds.\n", b.options.Cert)
	}
	trust := ""
	if root != "" {
		line("Clients must trust the local authority, whose root is %s; how: bridgehead ca --help\n", root)
		trust = " --ca " + local.Shell(root)
	}
	line("Pages that may connect: %s\n", b.pages())
	line("Try it:\n\n  bridgehead connect %s%s\n\nCtrl-C ends it.", local.Shell(url), trust)
	return text.String()
}

// url is the beginning of a URL for clients, by a scheme that takes an s for TLS.
func (b *Bridge) url(scheme, port string) string {
	if b.from.secure {
		scheme += "s"
	}
	host := b.from.host
	if b.from.everywhere() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// page is the page to open among the files: noVNC's where it is the only one.
func (b *Bridge) page() string {
	const novnc = "vnc.html"
	_, err := os.Stat(filepath.Join(b.options.Web, "index.html"))
	if _, is := os.Stat(filepath.Join(b.options.Web, novnc)); err != nil && is == nil {
		return novnc
	}
	return ""
}

func pathOrSlash(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

func (b *Bridge) pages() string {
	if len(b.options.Origins) > 0 {
		return strings.Join(b.options.Origins, ", ")
	}
	return "those of localhost, and those of this port if it is reached by an IP address; others by --origin https://app.example.com"
}

// Warnings are what works, and what may not have been meant.
func (b *Bridge) Warnings() (all []string) {
	if !b.from.secure && !b.from.local() {
		all = append(all, "other machines connect without TLS, so that everyone on the way can read and change their messages: "+
			"give --cert FILE, or write --from wss://...")
	}
	if slices.Contains(b.options.Origins, "*") {
		all = append(all, "every page on the web may open sockets here in the name of its visitors; list the pages that may with --origin")
	}
	return all
}
