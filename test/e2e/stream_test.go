package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pires/go-proxyproto"

	"bridgehead/ws"
)

// echoTCP sends back what it gets, and ends when its client has ended.
func echoTCP(t *testing.T) string {
	return tcpBackend(t, func(conn *net.TCPConn) { io.Copy(conn, conn) })
}

// lineBackend answers each line with itself, without CR, ended by CRLF.
func lineBackend(t *testing.T) string {
	return tcpBackend(t, func(conn *net.TCPConn) {
		scanner := bufio.NewScanner(conn)
		scanner.Buffer(nil, 16<<20)
		for scanner.Scan() {
			fmt.Fprintf(conn, "%s\r\n", scanner.Text())
		}
	})
}

func TestRawStream(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes:
  - {name: r, tcp: {to: "`+echoTCP(t)+`"}}
`)
	conn := e.dial("/", nil, "binary")
	if conn.Subprotocol() != "binary" {
		t.Fatalf("subprotocol %q", conn.Subprotocol())
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var writing sync.WaitGroup
	writing.Go(func() {
		for part := range chunksOf(want, 100_000) {
			conn.WriteMessage(websocket.BinaryMessage, part)
		}
	})
	var got []byte
	for len(got) < len(want) {
		kind, data, err := conn.ReadMessage()
		if err != nil || kind != websocket.BinaryMessage {
			t.Fatalf("type %d, %v", kind, err)
		}
		got = append(got, data...)
	}
	writing.Wait()
	if !bytes.Equal(got, want) {
		t.Fatal("the bytes changed")
	}
	pong := make(chan string, 1)
	conn.SetPongHandler(func(s string) error { pong <- s; return nil })
	conn.WriteControl(websocket.PingMessage, []byte("for us"), time.Now().Add(patience))
	send(t, conn, "x")
	receive(t, conn)
	if got := <-pong; got != "for us" { // a stream knows no pings: we answer
		t.Fatalf("pong %q", got)
	}
}

func chunksOf(p []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			part := p[:min(n, len(p))]
			if !yield(part) {
				return
			}
			p = p[len(part):]
		}
	}
}

func TestTextStreamNeverCutsARune(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes:
  - {name: r, tcp: {message: text, to: "`+tcpBackend(t, func(conn *net.TCPConn) {
		conn.SetNoDelay(true)
		for _, b := range []byte("snow ☃ and \xff junk 𝄞") {
			conn.Write([]byte{b}) // many a read of its own
		}
	})+`"}}
`)
	conn := e.dial("/", nil)
	var got string
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil {
			break
		}
		if kind != websocket.TextMessage || strings.ToValidUTF8(string(data), "?") != string(data) {
			t.Fatalf("message %q of type %d", data, kind)
		}
		got += string(data)
	}
	if got != "snow ☃ and \uFFFD junk 𝄞" {
		t.Fatalf("got %q", got)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes:
  - {name: r, tcp: {to: "`+lineBackend(t)+`", framing: line, message: text}}
`)
	conn := e.dial("/", nil)
	for sent, want := range map[string]string{"one": "one", "two\n": "two", "three\r\n": "three", "": ""} {
		send(t, conn, sent)
		if got := receive(t, conn); got != want {
			t.Fatalf("%q came back as %q", sent, got)
		}
	}
	send(t, conn, "QUIT\r\nDELETE everything") // would be two commands past every rule about messages
	wantClose(t, conn, 1008)
}

func TestStreamCloseMapping(t *testing.T) {
	t.Parallel()
	for _, framing := range []string{"raw", "line"} {
		for _, c := range []struct {
			name  string
			serve func(*net.TCPConn)
			want  string // what arrives before the close
			code  int
			cause string
		}{
			{"FIN", func(conn *net.TCPConn) { io.WriteString(conn, "last words\n") }, "last words", 1000, "backend closed"},
			{"RST", func(conn *net.TCPConn) {
				io.WriteString(conn, "last words\n")
				io.ReadFull(conn, make([]byte, 2))
				conn.SetLinger(0)
			}, "last words", 1011, "backend reset"},
		} {
			t.Run(framing+" "+c.name, func(t *testing.T) {
				t.Parallel()
				e := start(t, `
routes:
  - {name: r, tcp: {to: "`+tcpBackend(t, c.serve)+`", framing: `+framing+`}}
`)
				conn := e.dial("/", nil)
				if got := receive(t, conn); strings.TrimSpace(got) != c.want {
					t.Fatalf("got %q", got)
				}
				if c.name == "RST" {
					conn.WriteMessage(websocket.BinaryMessage, []byte("go"))
				}
				wantClose(t, conn, c.code)
				if err := subset(e.closedLine("r"), map[string]any{"cause": c.cause}); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestHalfClose(t *testing.T) {
	t.Parallel()
	for _, framing := range []string{"raw", "line"} {
		t.Run(framing, func(t *testing.T) {
			t.Parallel()
			e := start(t, `
routes:
  - {name: r, tcp: {to: "`+tcpBackend(t, func(conn *net.TCPConn) {
				got, _ := io.ReadAll(conn) // until the client's end
				fmt.Fprintf(conn, "you said %s\n", strings.TrimSpace(string(got)))
			})+`", framing: `+framing+`}}
`)
			conn := e.raw("/")
			conn.Write(rawFrame(ws.Header{Fin: true, Opcode: ws.Binary}, "all of it"))
			conn.Write(ws.AppendCloseFrame(nil, 4000, "done", true))
			if got := strings.TrimSpace(wsReadFrame(t, conn)); got != "you said all of it" {
				t.Fatalf("after the client's close came %q", got)
			}
			f, err := readFrame(conn)
			if err != nil || f.op != ws.Close {
				t.Fatalf("frame %v, %v", f, err)
			}
			if code, _, _ := ws.ParseClose(f.payload); code != 4000 {
				t.Fatalf("the close came back with %d", code)
			}
			if err := subset(e.closedLine("r"), map[string]any{"cause": "client closed", "by": "client"}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLingerIsBounded(t *testing.T) {
	t.Parallel()
	for _, framing := range []string{"raw", "line"} {
		t.Run(framing, func(t *testing.T) {
			t.Parallel()
			e := start(t, `
routes:
  - {name: r, tcp: {to: "`+tcpBackend(t, func(conn *net.TCPConn) {
				io.Copy(io.Discard, conn)
				<-t.Context().Done() // it never ends by itself
			})+`", framing: `+framing+`, close: {linger: 200ms}}}
`)
			conn := e.dial("/", nil)
			began := time.Now()
			conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience))
			wantClose(t, conn, 1000)
			if took := time.Since(began); took < 150*time.Millisecond || took > patience {
				t.Fatalf("took %s", took)
			}
		})
	}
}

func TestSubprotocols(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes:
  - {name: r, path: /any, tcp: {to: "`+echoTCP(t)+`", subprotocols: [mqtt, mqttv3.1]}}
  - {name: s, path: /must, tcp: {to: "`+echoTCP(t)+`", subprotocols: [mqtt, mqttv3.1], require_subprotocol: true}}
`)
	if got := e.dial("/any", nil, "other", "mqttv3.1", "mqtt").Subprotocol(); got != "mqttv3.1" { // the client's order
		t.Fatalf("got %q", got)
	}
	if got := e.dial("/any", nil, "other").Subprotocol(); got != "" { // never one that was not offered
		t.Fatalf("got %q", got)
	}
	if resp := e.refused("/must", nil); resp.StatusCode != http.StatusBadRequest {
		t.Fatalf("status %s", resp.Status)
	}
}

func TestProxyPreamble(t *testing.T) {
	t.Parallel()
	for _, version := range []byte{1, 2} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			t.Parallel()
			headers := make(chan *proxyproto.Header, 1)
			e := start(t, `
trusted_proxies: [loopback]
routes:
  - {name: r, tcp: {preamble: proxy-v`+fmt.Sprint(version)+`, to: "`+tcpBackend(t, func(conn *net.TCPConn) {
				br := bufio.NewReader(conn)
				h, err := proxyproto.Read(br)
				if err != nil {
					t.Errorf("preamble: %v", err)
				}
				headers <- h
				io.Copy(conn, br)
			})+`"}}
`)
			conn := e.dial("/", http.Header{"X-Forwarded-For": {"203.0.113.7"}})
			h := <-headers
			if h.Version != version || h.SourceAddr.(*net.TCPAddr).IP.String() != "203.0.113.7" {
				t.Fatalf("header %+v", h)
			}
			if _, port, _ := net.SplitHostPort(e.addrs["wss"]); fmt.Sprint(h.DestinationAddr.(*net.TCPAddr).Port) != port {
				t.Fatalf("destination %v", h.DestinationAddr)
			}
			if version == 2 {
				checkTLVs(t, h, "127.0.0.1")
			}
			send(t, conn, "then the stream") // exactly once
			if got := receive(t, conn); got != "then the stream" {
				t.Fatalf("got %q", got)
			}
		})
	}
}

func checkTLVs(t *testing.T, h *proxyproto.Header, host string) {
	t.Helper()
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	got := map[proxyproto.PP2Type]string{}
	for _, tlv := range tlvs {
		got[tlv.Type] = string(tlv.Value)
	}
	if got[proxyproto.PP2_TYPE_AUTHORITY] != host || !strings.HasPrefix(got[proxyproto.PP2_TYPE_UNIQUE_ID], "c_") ||
		!strings.Contains(got[proxyproto.PP2_TYPE_SSL], tls.VersionName(maxTLS)) {
		t.Fatalf("TLVs %q", got)
	}
}

func TestUnixStream(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "bh") // shorter than t.TempDir: the path of a socket is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if conn, err := l.Accept(); err == nil {
			io.Copy(conn, conn)
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	e := start(t, `
routes:
  - {name: r, tcp: {to: "unix:`+l.Addr().String()+`"}}
`)
	conn := e.dial("/", nil)
	send(t, conn, "by a file")
	if got := receive(t, conn); got != "by a file" {
		t.Fatalf("got %q", got)
	}
	conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience))
	wantClose(t, conn, 1000)
}
