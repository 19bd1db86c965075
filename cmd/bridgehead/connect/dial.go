package connect

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
)

// A socket is an open WebSocket.
type socket struct {
	*websocket.Conn
	tail *tail
}

// dial opens the socket and tells what was negotiated, or why it was refused. The error says what to do about it.
func (c *Client) dial(ctx context.Context, show *screen) (*socket, error) {
	var t *tail
	leave := func() bool { return true }
	open := func(bounded context.Context, network, _ string) (net.Conn, error) {
		conn, err := c.open(bounded, network)
		if err != nil {
			return nil, err
		}
		leave = context.AfterFunc(ctx, func() { conn.Close() }) // gorilla heeds ctx only while it dials
		t = &tail{Conn: conn}
		return t, nil
	}
	d := websocket.Dialer{
		NetDialContext: open, NetDialTLSContext: open, HandshakeTimeout: c.options.Timeout,
		Subprotocols: c.options.Subprotocols, EnableCompression: c.options.Compression,
	}
	conn, resp, err := d.DialContext(ctx, c.url.String(), c.header) //nolint:bodyclose // gorilla has read it
	if stayed := leave(); !stayed || ctx.Err() != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, fmt.Errorf("connect to %s: interrupted", name(c.url))
	}
	switch {
	case err == nil:
		c.tellConnected(show, resp, t)
		return &socket{conn, t}, nil
	case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, c.refused(show, resp)
	default:
		return nil, c.failed(err)
	}
}

// open opens the connection below the socket.
func (c *Client) open(ctx context.Context, network string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, cmp.Or(c.options.Address, hostPort(c.url)))
	if err != nil || c.url.Scheme == "ws" {
		return conn, err
	}
	secure := tls.Client(conn, c.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// tellConnected says what was negotiated.
func (c *Client) tellConnected(show *screen, resp *http.Response, t *tail) {
	lines := []string{"connected to " + name(c.url) + ": " + resp.Status}
	if chosen := resp.Header.Get("Sec-Websocket-Protocol"); chosen != "" {
		lines[0] += ", subprotocol " + chosen
		if !slices.Contains(c.options.Subprotocols, chosen) {
			lines[0] += " (which was not offered)"
		}
	} else if len(c.options.Subprotocols) > 0 {
		lines[0] += ", no subprotocol"
	}
	if extensions := resp.Header.Get("Sec-Websocket-Extensions"); extensions != "" {
		lines[0] += ", " + extensions
	} else if c.options.Compression {
		lines[0] += ", no compression"
	}
	if secure, ok := t.Conn.(*tls.Conn); ok {
		state := secure.ConnectionState()
		lines[0] += ", " + tls.VersionName(state.Version)
		if c.options.Verbose {
			lines = append(lines, certificate(state.PeerCertificates[0], time.Now())...)
		}
	}
	if c.options.Verbose {
		lines = append(lines, headerLines(resp.Header)...)
	}
	if show.live {
		lines = append(lines, "type a line to send it; /help lists the commands, Ctrl-C closes")
	}
	show.note(strings.Join(lines, "\n"))
}

// certificate describes a server's certificate.
func certificate(cert *x509.Certificate, now time.Time) []string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return []string{
		"certificate: " + cmp.Or(cert.Subject.String(), "no subject") + ", for " + strings.Join(names, ", "),
		"issued by " + cert.Issuer.String(),
		fmt.Sprintf("expires %s, %s", cert.NotAfter.Local().Format(time.RFC3339), remaining(cert.NotAfter.Sub(now))),
	}
}

// remaining says how long a certificate lasts, in days if it is some.
func remaining(left time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case left <= 0:
		return "which is over"
	case left < 3*day:
		return "in " + left.Round(time.Minute).String()
	default:
		return fmt.Sprintf("in %d days", left/day)
	}
}

// headerLines are all lines of a header, sorted; or those with the names alone.
func headerLines(h http.Header, names ...string) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			if len(names) == 0 || slices.Contains(names, name) {
				lines = append(lines, name+": "+value)
			}
		}
	}
	return lines
}

// A tail is a connection that remembers the end of what was read from it, long enough for a Close frame. Gorilla knows no code
// 1014, which was registered after RFC 6455, and drops a Close that has it.
type tail struct {
	net.Conn
	last []byte
}

// closeSize is the greatest size of a Close frame from a server.
const closeSize = 2 + ws.MaxControlPayload

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.last = append(t.last, p[max(0, n-closeSize):n]...)
	t.last = t.last[max(0, len(t.last)-closeSize):]
	return n, err
}

// closeOf is the server's Close with which a socket ended, if it did so.
func (s *socket) closeOf(err error) (ws.CloseFrame, bool) {
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
		return ws.CloseFrame{Code: ws.Code(closed.Code), Reason: closed.Text}, closed.Code != websocket.CloseAbnormalClosure
	}
	if strings.HasSuffix(err.Error(), "bad close code 1014") {
		return s.tail.badGateway(), true
	}
	return ws.CloseFrame{}, false
}

// badGateway reads the reason of a Close with 1014 at the end of what was read: nothing may follow a Close.
func (t *tail) badGateway() ws.CloseFrame {
	f := ws.CloseFrame{Code: ws.CodeBadGateway}
	code := []byte{0x03, 0xF6} // never in a reason, which is UTF-8
	if at := bytes.LastIndex(t.last, code); at >= 0 {
		f.Reason = string(t.last[at+len(code):])
	}
	return f
}
