package pump

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"bridgehead/test/h2test"
)

// A tunnels is an HTTP/2 connection whose streams are sockets.
type tunnels struct {
	t       testing.TB
	session *h2test.Session
	streams chan *Stream // as they are opened
}

func newTunnels(t testing.TB) *tunnels {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &tunnels{t: t, streams: make(chan *Stream)}
	server := &http.Server{Handler: http.HandlerFunc(s.serve), Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if s.session, err = h2test.NewSession(conn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.session.Close() })
	return s
}

func (s *tunnels) serve(w http.ResponseWriter, r *http.Request) {
	out := NewStreamWriter(w, true, patience)
	defer out.Finish()
	stream := NewStream(out, r)
	if _, err := stream.Write(nil); err != nil {
		stream.Close()
		return
	}
	s.streams <- stream
	<-stream.Done()
}

// open gives both ends of a new stream.
func (s *tunnels) open() (ours *Stream, theirs net.Conn) {
	s.t.Helper()
	conn := s.session.Open()
	conn.SetDeadline(time.Now().Add(patience))
	go io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	select {
	case ours = <-s.streams:
	case <-time.After(patience):
		s.t.Fatal("no stream came")
	}
	head := []byte{}
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one...) {
		if _, err := conn.Read(one); err != nil {
			s.t.Fatalf("%v behind %q", err, head)
		}
	}
	if !strings.HasPrefix(string(head), "HTTP/1.1 101 ") {
		s.t.Fatalf("answered %q", head)
	}
	conn.SetDeadline(time.Time{})
	s.t.Cleanup(func() { conn.Close() })
	return ours, conn
}

// A write that waits for the client ends at its deadline, and with it the stream; the writer is the first to know. The other streams
// of the connection feel nothing.
func TestAStreamThatIsNotRead(t *testing.T) {
	t.Parallel()
	s := newTunnels(t)
	stalled, _ := s.open()
	ours, theirs := s.open()
	read := make(chan error, 1)
	go func() {
		_, err := stalled.Read(make([]byte, 1))
		read <- err
	}()
	stalled.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	_, err := stalled.Write(make([]byte, 1<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the write ended with %v", err)
	}
	select {
	case err := <-read:
		t.Errorf("the reader knew before its owner could be told: %v", err)
	default:
	}
	stalled.Close()
	if err := await(t, read); err == nil {
		t.Error("the reader knows nothing")
	}
	await(t, stalled.Done())
	go theirs.Write([]byte("ping"))
	got := make([]byte, 4)
	if _, err := io.ReadFull(ours, got); err != nil || string(got) != "ping" {
		t.Errorf("another stream: %q, %v", got, err)
	}
	ours.Close()
}

// A deadline that passes while no write waits does nothing, as on a connection.
func TestADeadlineThatPasses(t *testing.T) {
	t.Parallel()
	ours, theirs := newTunnels(t).open()
	ours.SetWriteDeadline(time.Now().Add(time.Millisecond))
	<-time.After(10 * time.Millisecond)
	if _, err := ours.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write behind its deadline: %v", err)
	}
	ours.SetWriteDeadline(time.Now().Add(patience))
	go ours.Write([]byte("y"))
	if got, err := io.ReadAll(io.LimitReader(theirs, 1)); err != nil || string(got) != "y" {
		t.Errorf("%q, %v", got, err)
	}
	ours.Close()
}

// Close ends what waits, and the client sees the end.
func TestAStreamThatIsClosed(t *testing.T) {
	t.Parallel()
	ours, theirs := newTunnels(t).open()
	ended := make(chan error, 2)
	go func() { _, err := ours.Read(make([]byte, 1)); ended <- err }()
	go func() { _, err := ours.Write(make([]byte, 1<<20)); ended <- err }()
	io.ReadFull(theirs, make([]byte, 1000))
	ours.Close()
	for range 2 {
		if err := await(t, ended); err == nil || err == io.EOF {
			t.Errorf("it ended with %v", err)
		}
	}
	await(t, ours.Done())
	theirs.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, theirs); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the client does not see the end")
	}
	for _, err := range []error{ours.Close(), ours.SetDeadline(time.Time{}), third(ours.Write(nil)), third(ours.Read(nil))} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	}
}

func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("it never came")
	}
	return v
}

func third(_ int, err error) error { return err }

// The end of the client's half is the end of what is read; the other half goes on.
func TestAStreamWhoseClientHasEnded(t *testing.T) {
	t.Parallel()
	ours, theirs := newTunnels(t).open()
	go func() {
		theirs.Write([]byte("bye"))
		theirs.Close()
	}()
	if got, err := io.ReadAll(ours); err != nil || string(got) != "bye" {
		t.Errorf("%q, %v", got, err)
	}
	ours.Close()
	await(t, ours.Done())
}

// What an HTTP/1.1 answer says of its connection does not go out on a stream, so that it lives on.
func TestNoHeadersOfAConnection(t *testing.T) {
	t.Parallel()
	w := &headers{all: http.Header{}}
	out := NewStreamWriter(w, false, patience)
	for _, name := range []string{"Connection", "Upgrade", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "X-Kept"} {
		out.Header().Set(name, "close")
	}
	out.Write([]byte("x"))
	if w.status != http.StatusOK || len(w.sent) != 1 || w.sent.Get("X-Kept") != "close" {
		t.Errorf("status %d, header %v", w.status, w.sent)
	}
}

// A 2xx opens a socket, so nobody else may give one who is asked for it.
func TestNoSocketByAccident(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{200: 400, 206: 400, 304: 304, 404: 404} {
		w := &headers{all: http.Header{}}
		NewStreamWriter(w, true, patience).WriteHeader(status)
		if w.status != want {
			t.Errorf("%d became %d, want %d", status, w.status, want)
		}
	}
}

// headers is a ResponseWriter that keeps what goes out.
type headers struct {
	all    http.Header
	sent   http.Header
	status int
}

func (h *headers) Header() http.Header         { return h.all }
func (h *headers) Write(p []byte) (int, error) { return len(p), nil }
func (h *headers) WriteHeader(status int)      { h.status, h.sent = status, h.all.Clone() }
