package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A stranger says on an HTTP/2 connection what it likes.
type stranger struct {
	t *testing.T
	net.Conn
	*http2.Framer
	head  bytes.Buffer
	hpack *hpack.Encoder
	next  uint32 // the stream that it opens next
}

func newStranger(t *testing.T, s *Server, settings ...http2.Setting) *stranger {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr("plain").String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * patience))
	io.WriteString(conn, http2.ClientPreface)
	x := &stranger{t: t, Conn: conn, Framer: http2.NewFramer(conn, conn), next: 1}
	x.hpack = hpack.NewEncoder(&x.head)
	x.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	x.WriteSettings(settings...)
	x.WriteSettingsAck()
	return x
}

// goodTunnel are the fields of an extended CONNECT.
func goodTunnel() []string {
	return []string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /socket", ":authority: localhost", "sec-websocket-version: 13"}
}

func get(path string) []string {
	return []string{":method: GET", ":scheme: http", ":path: " + path, ":authority: localhost"}
}

// block encodes fields.
func (x *stranger) block(fields []string) []byte {
	x.head.Reset()
	for _, field := range fields {
		name, value, _ := strings.Cut(field[1:], ": ")
		x.hpack.WriteField(hpack.HeaderField{Name: field[:1] + name, Value: value})
	}
	return x.head.Bytes()
}

// ask opens a stream.
func (x *stranger) ask(fields []string, end bool) (id uint32, err error) {
	id = x.next
	x.next += 2
	return id, x.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: x.block(fields), EndHeaders: true, EndStream: end})
}

// answer waits for what becomes of a stream: its status, or the reset of it, or the end of the connection.
func (x *stranger) answer(id uint32) string {
	x.t.Helper()
	for {
		f, err := x.ReadFrame()
		if err != nil {
			return "gone"
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID == id {
				return f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return "reset"
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "gone"
			}
		}
	}
}

// reads takes what the server says, until it ends.
func (x *stranger) reads() { go io.Copy(io.Discard, x.Conn) }

// Malformed handshakes end their own stream, and nothing else.
func TestMalformedTunnels(t *testing.T) {
	t.Parallel()
	s := run(t, `
admin: {address: "127.0.0.1:0"}
listeners: [{name: plain, address: "127.0.0.1:0", http2: true}]
routes: [{websocket: {to: "ws://`+application(t)+`"}}]
`)
	x := newStranger(t, s)
	for _, c := range []struct {
		rule   string
		fields []string
		end    bool
		want   string
	}{
		{"a good one", goodTunnel(), false, "200"},
		{"any case", edit(":protocol", "WebSocket"), false, "200"},
		{"no path", edit(":path"), false, "reset"},
		{"a path that is none", edit(":path", "socket"), false, "reset"},
		{"a URL for a path", edit(":path", "http://evil.example/socket"), false, "400"},
		{"no authority", edit(":authority"), false, "400"},
		{"another Host", append(goodTunnel(), "host: evil.example"), false, "400"},
		{"another protocol", edit(":protocol", "connect-udp"), false, "501"},
		{"an empty protocol", edit(":protocol", ""), false, "reset"},
		{"two protocols", append([]string{":protocol: websocket"}, goodTunnel()...), false, "reset"},
		{"an unknown pseudo-header", append([]string{":other: x"}, goodTunnel()...), false, "reset"},
		{"a pseudo-header behind the others", append(goodTunnel(), ":protocol: websocket"), false, "reset"},
		{"another method", edit(":method", "GET"), false, "400"},
		{"a plain CONNECT", []string{":method: CONNECT", ":authority: example.com:443"}, false, "405"},
		{"an end at once", goodTunnel(), true, "400"},
		{"a length", append(goodTunnel(), "content-length: 5"), false, "400"},
		{"an upgrade", append(goodTunnel(), "upgrade: websocket"), false, "400"},
		{"a connection", append(goodTunnel(), "connection: upgrade"), false, "400"},
		{"an upgrade of a GET", append(get("/socket"), "upgrade: websocket", "connection: upgrade"), true, "400"},
		{"a name in capitals", append(goodTunnel(), "X-Capital: x"), false, "reset"},
		{"a line in a value", append(goodTunnel(), "x-line: a\r\nx-evil: b"), false, "reset"},
		{"no version", edit("sec-websocket-version"), false, "426"},
		{"two keys", append(goodTunnel(), "sec-websocket-key: a", "sec-websocket-key: b"), false, "400"},
		{"a good one after all these", goodTunnel(), false, "200"},
	} {
		id, err := x.ask(c.fields, c.end)
		if err != nil {
			t.Fatalf("%s: %v", c.rule, err)
		}
		if got := x.answer(id); got != c.want {
			t.Errorf("%s: %s, want %s", c.rule, got, c.want)
		}
	}
}

// edit is a good tunnel with another value for a field, or without the field.
func edit(name string, value ...string) (fields []string) {
	for _, field := range goodTunnel() {
		switch {
		case !strings.HasPrefix(field, name+": "):
			fields = append(fields, field)
		case len(value) > 0:
			fields = append(fields, name+": "+value[0])
		}
	}
	return fields
}

// most is what an attack may make the program hold: 250 streams, with what they hold of the backend, which is in this process too.
const most = 64 << 20

// Whatever is done on one connection, the memory stays flat, others are served, and nothing is left when it is over. (Not parallel: it
// looks at the memory of the whole process.)
func TestFloods(t *testing.T) {
	pages := t.TempDir()
	if err := os.WriteFile(filepath.Join(pages, "page.html"), make([]byte, 500_000), 0o600); err != nil {
		t.Fatal(err)
	}
	s := run(t, fmt.Sprintf(`
admin: {address: "127.0.0.1:0"}
listeners: [{name: plain, address: "127.0.0.1:0", http2: true}]
routes:
  - {name: pages, path: /pages/*, files: {dir: %q}}
  - {name: all, path: /*, limits: [], websocket: {to: "ws://%s", http: true}}
`, pages, application(t)))
	good := visit(t, s)
	conn := good.open("/socket")
	for _, attack := range []struct {
		name     string
		settings []http2.Setting
		do       func(x *stranger) error
	}{
		{"rapid reset of sockets", nil, func(x *stranger) error {
			x.reads()
			return many(5000, func(int) error { return x.reset(goodTunnel()) })
		}},
		{"rapid reset of requests", nil, func(x *stranger) error {
			x.reads()
			return many(5000, func(int) error { return x.reset(get("/beside")) })
		}},
		{"CONTINUATION", nil, func(x *stranger) error {
			x.reads()
			x.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: x.block(get("/"))})
			return many(50_000, func(i int) error {
				return x.WriteContinuation(1, false, x.block([]string{fmt.Sprintf("x-%d: %0999d", i, i)}))
			})
		}},
		{"SETTINGS", nil, func(x *stranger) error {
			return many(50_000, func(i int) error {
				return x.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)})
			})
		}},
		{"PING", nil, func(x *stranger) error {
			return many(300_000, func(int) error { return x.WritePing(false, [8]byte{}) })
		}},
		{"empty DATA", nil, func(x *stranger) error {
			id, _ := x.ask(goodTunnel(), false)
			if got := x.answer(id); got != "200" {
				return fmt.Errorf("answered %s", got)
			}
			x.reads()
			return many(50_000, func(int) error { return x.WriteData(id, false, nil) })
		}},
		{"a window that never opens", []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, func(x *stranger) error {
			return many(250, func(int) error { _, err := x.ask(get("/pages/page.html"), true); return err })
		}},
		{"thousands of sockets", nil, func(x *stranger) error {
			x.reads()
			return many(5000, func(int) error { _, err := x.ask(goodTunnel(), false); return err })
		}},
		{"bodies that do not end", nil, func(x *stranger) error {
			x.reads()
			return many(1000, func(int) error {
				id, err := x.ask(append(get("/beside"), "x: y"), false)
				return errors.Join(err, x.WriteData(id, false, make([]byte, 16<<10)), x.WriteData(id, false, make([]byte, 16<<10)))
			})
		}},
	} {
		t.Run(attack.name, func(t *testing.T) {
			before := heapInUse()
			x := newStranger(t, s, attack.settings...)
			done := make(chan error, 1)
			go func() { done <- attack.do(x) }()
			for over := false; !over; {
				select {
				case err := <-done:
					t.Logf("the attack ended with %v", err)
					over = true
				default:
				}
				echoes(t, conn, 1000)
				if t.Failed() {
					return
				}
			}
			if grown := heapInUse() - before; grown > most {
				t.Errorf("the program holds %d KiB more", grown>>10)
			} else {
				t.Logf("the program holds %d KiB more", grown>>10)
			}
			x.Close()
			for deadline := time.Now().Add(patience); s.hub.Len() > 1; <-time.After(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d sockets are left", s.hub.Len()-1)
				}
			}
			good.ask("GET", "/beside", "")
		})
	}
}

// reset opens a stream and ends it at once.
func (x *stranger) reset(fields []string) error {
	id, err := x.ask(fields, false)
	return errors.Join(err, x.WriteRSTStream(id, http2.ErrCodeCancel))
}

// many does something so often, or until it fails, as it does when the server has had enough.
func many(n int, do func(i int) error) error {
	for i := range n {
		if err := do(i); err != nil {
			return fmt.Errorf("after %d: %w", i, err)
		}
	}
	return nil
}

// heapInUse is the memory in use.
func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
