package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bridgehead/ws"
)

// block is what is streamed, again and again; its length is a multiple of that of a mask.
var block = func() []byte {
	b := make([]byte, 64<<10)
	rand.NewChaCha8([32]byte{4}).Read(b)
	return b
}()

// repeated is that many blocks.
func repeated(blocks int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for range blocks {
			if !yield(block) {
				return
			}
		}
	}
}

// head is a frame's.
func head(op ws.Opcode, fin, masked bool, length int) []byte {
	return ws.AppendHeader(nil, ws.Header{Opcode: op, Fin: fin, Masked: masked, Mask: [4]byte{9, 8, 7, 6}, Length: int64(length)})
}

// shapes are ways to send that many blocks as frames, and one to send 100,000 bytes. A relay passes frames as they come, so that what is masked need not be known.
var shapes = map[string]func(blocks int, masked bool) iter.Seq[[]byte]{
	"one frame": func(blocks int, masked bool) iter.Seq[[]byte] {
		return func(yield func([]byte) bool) {
			if yield(head(ws.Binary, true, masked, blocks*len(block))) {
				repeated(blocks)(yield)
			}
		}
	},
	"one message in fragments": func(blocks int, masked bool) iter.Seq[[]byte] {
		return func(yield func([]byte) bool) {
			op := ws.Binary
			for i := range blocks {
				for rest := block; len(rest) > 0; op = ws.Continuation {
					part := rest[:min(len(rest), 5000)]
					rest = rest[len(part):]
					if !yield(head(op, i == blocks-1 && len(rest) == 0, masked, len(part))) || !yield(part) {
						return
					}
				}
			}
		}
	},
	"tiny fragments": func(_ int, masked bool) iter.Seq[[]byte] {
		const most = 100_000
		middle := append(head(ws.Continuation, false, masked, 1), 'x')
		return func(yield func([]byte) bool) {
			if !yield(append(head(ws.Binary, false, masked, 1), 'x')) {
				return
			}
			for range most - 2 {
				if !yield(middle) {
					return
				}
			}
			yield(append(head(ws.Continuation, true, masked, 1), 'x'))
		}
	},
	"many messages": func(blocks int, masked bool) iter.Seq[[]byte] {
		return func(yield func([]byte) bool) {
			for range blocks {
				if !yield(head(ws.Binary, true, masked, len(block))) || !yield(block) {
					return
				}
			}
		}
	},
}

// masked is what a client sends toward a stream: a message for each block.
func masked(blocks int) iter.Seq[[]byte] {
	h := ws.Header{Opcode: ws.Binary, Fin: true, Masked: true, Mask: [4]byte{9, 8, 7, 6}, Length: int64(len(block))}
	payload := bytes.Clone(block)
	ws.Mask(payload, h.Mask, 0)
	frame := append(ws.AppendHeader(nil, h), payload...)
	return func(yield func([]byte) bool) {
		for range blocks {
			if !yield(frame) {
				return
			}
		}
	}
}

// payloads reads what a server's frames hold.
type payloads struct {
	r    io.Reader
	rest []byte
}

func (p *payloads) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		f, err := readFrame(p.r)
		if err != nil {
			return 0, err
		}
		if f.op != ws.Binary && f.op != ws.Continuation {
			return 0, fmt.Errorf("a frame of type %x: %.100q", f.op, f.payload)
		}
		p.rest = f.payload
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// pour writes all pieces, each within the patience.
func pour(conn net.Conn, pieces iter.Seq[[]byte]) error {
	w := bufio.NewWriterSize(timely{conn}, 64<<10)
	for piece := range pieces {
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	return w.Flush()
}

// drink reads what must be these pieces.
func drink(r io.Reader, pieces iter.Seq[[]byte]) error {
	var got []byte
	at := 0
	for piece := range pieces {
		got = append(got[:0], piece...)
		if _, err := io.ReadFull(r, got); err != nil {
			return fmt.Errorf("after %d bytes: %w", at, err)
		}
		if !bytes.Equal(got, piece) {
			return fmt.Errorf("something else came behind %d bytes", at)
		}
		at += len(piece)
	}
	return nil
}

// timely has patience with each read and write, and not with all of them.
type timely struct{ net.Conn }

func (c timely) Read(p []byte) (int, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	return c.Conn.Read(p)
}

func (c timely) Write(p []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(patience))
	return c.Conn.Write(p)
}

// peak is the most memory that the process has had at once (VmHWM of proc(5)).
func (e *edge) peak() int64 {
	e.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.process.Process.Pid))
	if err != nil {
		e.t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "VmHWM:")
	kb, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
	if err != nil {
		e.t.Fatal(err)
	}
	return kb << 10
}

// Whatever streams through a socket, both ways at once, the process does not come to hold it: 64 MiB each way, or E2E_STREAM_MIB.
func TestStreamsPassThroughFlatMemory(t *testing.T) {
	if raced {
		t.Skip("the race detector's memory is what would be measured")
	}
	t.Parallel()
	size, err := strconv.Atoi(cmp.Or(os.Getenv("E2E_STREAM_MIB"), "64"))
	if err != nil || size < 1 {
		t.Fatalf("E2E_STREAM_MIB: %q", os.Getenv("E2E_STREAM_MIB"))
	}
	blocks := size << 20 / len(block)
	most := int64(16 << 20)
	if size >= 256 {
		most *= 2
	}
	for _, driver := range []string{"loops", "goroutines"} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %t", driver, secure), func(t *testing.T) {
				t.Parallel()
				for shape := range shapes {
					t.Run(shape, func(t *testing.T) { // one after the other: each is a process of its own
						r := openStreamed(t, driver, secure, "/ws")
						r.flat(most, func() error { return drink(r.backend, shapes[shape](blocks, true)) },
							func() error { return drink(r.client, shapes[shape](blocks, false)) },
							shapes[shape](blocks, true), shapes[shape](blocks, false))
					})
				}
				t.Run("a TCP stream", func(t *testing.T) {
					r := openStreamed(t, driver, secure, "/tcp")
					r.flat(most, func() error { return drink(r.backend, repeated(blocks)) },
						func() error { return drink(&payloads{r: r.client}, repeated(blocks)) },
						masked(blocks), repeated(blocks))
				})
			})
		}
	}
}

// A streamed is a socket with both of its ends in hand.
type streamed struct {
	*edge
	client, backend *rawConn
}

// openStreamed opens a socket to a backend of its own, with TLS on both sides or on none.
func openStreamed(t *testing.T, driver string, secure bool, path string) *streamed {
	t.Helper()
	dir := room(t)
	cert, key := makePair(t, 1, "localhost")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "up.pem", string(cert))
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	schemes := [2]string{"ws", "tcp"}
	if secure {
		schemes = [2]string{"wss", "tls"}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: maxTLS})
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	e := startIn(t, dir, fmt.Sprintf(`
state: ./state
driver: %s
log: {format: json}
certificates: {internal: true}
admin: {address: "127.0.0.1:0"}
listeners: [{name: ws, address: "127.0.0.1:0"}, {name: wss, tls: true, address: "127.0.0.1:0"}]
defaults: {socket: {message_size: 2GiB, backend_message_size: 2GiB, ping: off, write_timeout: 2m}}
upstreams:
  ws: {servers: ["%s://localhost:%s"], tls: {ca: up.pem}}
  tcp: {servers: ["%s://localhost:%s"], tls: {ca: up.pem}}
routes:
  - {path: /ws, websocket: {to: ws}}
  - {path: /tcp, tcp: {to: tcp}}
`, driver, schemes[0], port, schemes[1], port))

	backends := make(chan *rawConn, 1)
	go func() {
		defer close(backends)
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		if secure, ok := conn.(*tls.Conn); ok {
			secure.SetDeadline(time.Now().Add(patience))
			if err := secure.Handshake(); err != nil {
				t.Error(err)
				return
			}
		}
		up := &rawConn{Conn: conn, br: bufio.NewReaderSize(timely{conn}, 64<<10)}
		if path == "/ws" {
			head, _ := readHead(t, timely{conn}) // nothing follows it until the answer
			conn.Write(ws.AppendAnswer(nil, headerOf(head, "Sec-WebSocket-Key"), ws.Answer{}))
		}
		backends <- up
	}()
	var client net.Conn
	if secure {
		client, err = tls.Dial("tcp", e.addr("wss"), clientTLS(e.roots, "localhost"))
	} else {
		client, err = net.Dial("tcp", e.addr("ws"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(patience))
	io.WriteString(client, handshake(path))
	br := readUpgrade(t, timely{client})
	up := <-backends
	if up == nil {
		t.FailNow()
	}
	t.Cleanup(func() { up.Close() })
	return &streamed{e, &rawConn{client, br}, up}
}

// flat streams both ways, reads both ways, and compares what the process holds at most with what it held before.
func (s *streamed) flat(most int64, readUp, readDown func() error, up, down iter.Seq[[]byte]) {
	s.t.Helper()
	before := s.peak()
	var wg sync.WaitGroup
	for what, do := range map[string]func() error{
		"the client sends": func() error { return pour(s.client.Conn, up) }, "the backend reads": readUp,
		"the backend sends": func() error { return pour(s.backend.Conn, down) }, "the client reads": readDown,
	} {
		wg.Go(func() {
			if err := do(); err != nil {
				s.t.Errorf("%s: %v", what, err)
				s.client.Close() // the others need not wait
				s.backend.Close()
			}
		})
	}
	wg.Wait()
	if grown := s.peak() - before; grown > most {
		s.t.Errorf("the process has grown by %d KiB, from %d KiB", grown>>10, before>>10)
	} else {
		s.t.Logf("the process has grown by %d KiB, from %d KiB", grown>>10, before>>10)
	}
}
