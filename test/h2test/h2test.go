// Package h2test lets WebSocket clients of tests, which know HTTP/1.1 alone, open their sockets over HTTP/2 (RFC 8441).
package h2test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"

	_ "bridgehead/internal/xconnect" // from Go 1.27 on the client asks for it too
	"bridgehead/ws"
)

// window is what a client takes of a socket before somebody reads it.
const window = 64 << 10

// linger is how long a stream lives on after one side has closed its half.
const linger = 5 * time.Second

// A Session is the client's end of one HTTP/2 connection.
type Session struct {
	conn   net.Conn
	client *http2.ClientConn //nolint:staticcheck // net/http's own sends no :protocol
}

// NewSession begins HTTP/2 on a connection that agreed on it, or needs not. It belongs to the session.
func NewSession(conn net.Conn) (*Session, error) {
	windows := &http.HTTP2Config{MaxReceiveBufferPerStream: window, MaxReceiveBufferPerConnection: 4<<20 - 1}
	t, err := http2.ConfigureTransports(&http.Transport{HTTP2: windows}) //nolint:staticcheck // as above
	if err != nil {
		conn.Close()
		return nil, err
	}
	t.AllowHTTP, t.DisableCompression = true, true //nolint:staticcheck // as above
	client, err := t.NewClientConn(conn)           //nolint:staticcheck // as above
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Session{conn, client}, nil
}

// DialSession reaches a server by TLS. It fails where the server has no HTTP/2.
func DialSession(address string, config *tls.Config) (*Session, error) {
	config = config.Clone()
	config.NextProtos = []string{http2.NextProtoTLS}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return nil, err
	}
	return NewSession(conn)
}

// Do sends a request that asks for no socket.
func (s *Session) Do(r *http.Request) (*http.Response, error) { return s.client.RoundTrip(r) }

// Alive tells whether the server would take another stream.
func (s *Session) Alive() bool { return s.client.CanTakeNewRequest() }

// Close ends the connection at once.
func (s *Session) Close() error { return s.client.Close() }

// A Conn is a stream of a session that passes for a connection on which a client upgrades from HTTP/1.1. Its methods are those of a
// net.Conn, with deadlines.
type Conn struct {
	net.Conn // the client's end of a pipe
	session  *Session
	owned    bool // the session ends with the stream
}

// Open gives a stream of the session, on which nothing was said yet.
func (s *Session) Open() *Conn { return s.open(false) }

// Dial reaches a server by TLS and gives the one stream of a session of its own; the connection itself, where the server has no HTTP/2.
// It fits websocket.Dialer's NetDialTLSContext.
func Dial(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	config = config.Clone()
	config.NextProtos = []string{http2.NextProtoTLS, "http/1.1"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil || conn.(*tls.Conn).ConnectionState().NegotiatedProtocol != http2.NextProtoTLS {
		return conn, err
	}
	return NewConn(conn)
}

// NewConn gives the one stream of a session of its own.
func NewConn(conn net.Conn) (*Conn, error) {
	s, err := NewSession(conn)
	if err != nil {
		return nil, err
	}
	return s.open(true), nil
}

func (s *Session) open(owned bool) *Conn {
	ours, theirs := net.Pipe()
	c := &Conn{Conn: theirs, session: s, owned: owned}
	go c.translate(ours)
	return c
}

// NetConn is the connection that carries the stream.
func (c *Conn) NetConn() net.Conn { return c.session.conn }

// translate makes the handshake that the client writes an extended CONNECT, and its answer one of HTTP/1.1; then bytes are carried.
func (c *Conn) translate(pipe net.Conn) {
	defer pipe.Close()
	if c.owned {
		defer c.session.Close()
	}
	br := bufio.NewReader(pipe)
	asked, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	up, feed := io.Pipe()
	defer up.Close()
	go func() { // also while the answer is awaited
		_, _ = io.Copy(feed, br)
		feed.Close()
		time.AfterFunc(linger, func() { // the other side has answered the end by then, as a rule
			cancel()
			pipe.Close()
		})
		_, _ = io.Copy(io.Discard, br) // what the stream takes no more is lost, as behind a connection's end; who writes it must not wait
	}()
	request := extended(asked, up).WithContext(ctx)
	if _, secure := c.session.conn.(*tls.Conn); secure {
		request.URL.Scheme = "https"
	}
	resp, err := c.session.client.RoundTrip(request)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if _, err := pipe.Write(head(asked, resp)); err != nil {
		return
	}
	_, _ = io.Copy(pipe, resp.Body)
}

// extended is the handshake over HTTP/2 (RFC 8441, section 5.1).
func extended(asked *http.Request, body io.ReadCloser) *http.Request {
	r := asked.Clone(context.Background())
	r.Method, r.RequestURI, r.Body, r.ContentLength = http.MethodConnect, "", body, -1
	r.URL.Scheme, r.URL.Host = "http", asked.Host
	r.Header[":protocol"] = []string{asked.Header.Get("Upgrade")}
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Key"} {
		delete(r.Header, name)
	}
	return r
}

// head is the answer as HTTP/1.1 has it. A 200 opens the socket.
func head(asked *http.Request, resp *http.Response) []byte {
	var b bytes.Buffer
	if resp.StatusCode == http.StatusOK {
		fmt.Fprintf(&b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n",
			ws.AcceptKey(asked.Header.Get("Sec-Websocket-Key")))
	} else {
		fmt.Fprintf(&b, "HTTP/1.1 %s\r\nConnection: close\r\n", strings.TrimSpace(resp.Status))
	}
	_ = resp.Header.Write(&b)
	b.WriteString("\r\n")
	return b.Bytes()
}
