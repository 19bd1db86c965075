package connect

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/internal/leak"
	"bridgehead/ws"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience bounds each wait for another goroutine.
const patience = 10 * time.Second

// A handler is a server's end of a socket, which is closed when it returns.
type handler func(conn *websocket.Conn, r *http.Request)

// ServeHTTP upgrades whoever comes.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{
		CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: []string{"chat.v1"}, EnableCompression: true,
	}
	conn, err := upgrader.Upgrade(w, r, http.Header{"X-Server": {"here"}})
	if err != nil {
		return
	}
	defer conn.Close()
	h(conn, r)
}

// serve runs a server and gives its URL.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "http", "ws", 1)
}

// echo sends every message back.
func echo(conn *websocket.Conn, _ *http.Request) {
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil || conn.WriteMessage(kind, data) != nil {
			return
		}
	}
}

// says sends messages, whatever is asked, and closes with 1000.
func says(messages ...string) handler {
	return func(conn *websocket.Conn, _ *http.Request) {
		for _, m := range messages {
			conn.WriteMessage(websocket.TextMessage, []byte(m))
		}
		hangUp(conn, 1000, "")
	}
}

// hangUp closes and waits for the answer.
func hangUp(conn *websocket.Conn, code int, reason string) {
	conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(patience))
	conn.SetReadDeadline(time.Now().Add(patience))
	conn.NextReader()
}

// A buffer is what a client has written, for goroutines that wait for it.
type buffer struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
	seen int
	news chan struct{} // closed and replaced with each write
}

func newBuffer() *buffer { return &buffer{news: make(chan struct{})} }

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.news)
	b.news = make(chan struct{})
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits for a text behind what was awaited before.
func (b *buffer) await(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		b.mu.Lock()
		rest, news := b.text.String()[b.seen:], b.news
		if i := strings.Index(rest, text); i >= 0 {
			b.seen += i + len(text)
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		select {
		case <-news:
		case <-timeout:
			t.Fatalf("%q was not shown; there is %q", text, rest)
		}
	}
}

// piped runs a client between pipes to its end.
func piped(t *testing.T, o Options, input string) (out, notes string, err error) {
	t.Helper()
	if o.Count > 0 && o.Wait == 0 {
		o.Wait = -1 // as the command has it
	}
	var stdout, stderr bytes.Buffer
	err = start(t, o, Terminal{In: strings.NewReader(input), Out: &stdout, Notes: &stderr})(t)
	return stdout.String(), stderr.String(), err
}

// start runs a client; the function that it returns waits for its end.
func start(t *testing.T, o Options, terminal Terminal) (wait func(*testing.T) error) {
	t.Helper()
	return startIn(t, context.WithoutCancel(t.Context()), context.WithoutCancel(t.Context()), o, terminal)
}

func startIn(t *testing.T, ctx, now context.Context, o Options, terminal Terminal) (wait func(*testing.T) error) {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = patience
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, now, terminal) }()
	return func(t *testing.T) error {
		t.Helper()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			t.Fatal("the client did not end")
			return nil
		}
	}
}

// A person sits before a fake terminal that shows messages and notes.
type person struct {
	*buffer
	keys *io.PipeWriter
	wait func(*testing.T) error
	stop [2]context.CancelFunc // what Ctrl-C does the first and the second time
}

func sits(t *testing.T, o Options) *person {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	p := &person{buffer: newBuffer(), keys: w}
	var ctx, now context.Context
	ctx, p.stop[0] = context.WithCancel(context.WithoutCancel(t.Context()))
	now, p.stop[1] = context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(p.stop[1])
	p.wait = startIn(t, ctx, now, o, Terminal{In: r, Out: p, Notes: p, Typed: true, Shown: true})
	return p
}

func (p *person) types(line string) { io.WriteString(p.keys, line+"\n") }

// wantError checks an error's text; "" stands for none.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("ended with %v, want %q", err, text)
	}
}

func TestPipes(t *testing.T) {
	t.Parallel()
	url := serve(t, handler(echo))
	for _, c := range []struct {
		rule        string
		o           Options
		input, want string
		err         string
	}{
		{"each line is a message and each message a line", Options{Count: 2}, "hi\n\x1b[31mräd\n", "hi\n\x1b[31mräd\n", ""},
		{"a last line without its end counts", Options{Count: 2}, "a\nb", "a\nb\n", ""},
		{"an empty line is a message", Options{Count: 3}, "a\n\nb\n", "a\n\nb\n", ""},
		{"a slash is as good as any letter", Options{Count: 1}, "/ping\n", "/ping\n", ""},
		{"commands, if they are asked for", Options{Count: 2, Commands: true}, "/hex 00 ff\n//x\n", "00ff\n/x\n", ""},
		{"binary goes and comes as it is", Options{Count: 1, Binary: true}, "\x00\n\xff", "\x00\n\xff", ""},
		{"compressed", Options{Count: 1, Compression: true}, strings.Repeat("x", 1<<20), strings.Repeat("x", 1<<20) + "\n", ""},
		{"it waits for what still comes", Options{Wait: time.Second}, "hi\n", "hi\n", ""},
		{"fewer messages than asked for", Options{Count: 2, Wait: time.Second}, "hi\n", "hi\n", "1 of 2 messages came"},
		{"text that is no text", Options{}, "a\xff\n", "", "line 1 of the input: it is not UTF-8"},
		{"a wrong command", Options{Commands: true}, "/ping\n/pin\n", "", "line 2 of the input: /pin is no command"},
		{"a line that is too long", Options{}, strings.Repeat("x", maxSent+1), "", "longer than 16777216 bytes: send it in pieces"},
		{"the longest line", Options{Count: 1, Compression: true}, strings.Repeat("x", maxSent) + "\n", strings.Repeat("x", maxSent) + "\n", ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			c.o.URL = url
			out, _, err := piped(t, c.o, c.input)
			wantError(t, err, c.err)
			if out != c.want {
				t.Errorf("shown %.100q (%d bytes), want %.100q (%d)", out, len(out), c.want, len(c.want))
			}
		})
	}
}

func TestTheServersClose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule        string
		end         func(*websocket.Conn)
		notes, want string // want: the error
	}{
		{"1000", func(conn *websocket.Conn) { hangUp(conn, 1000, "") }, "closed by the server: 1000 normal closure", ""},
		{"no code", func(conn *websocket.Conn) { hangUp(conn, 1005, "") }, "closed by the server: 1005 no code", ""},
		{"1001", func(conn *websocket.Conn) { hangUp(conn, 1001, "idle") }, "", `closed by the server: 1001 going away, "idle"`},
		{"an application's", func(conn *websocket.Conn) { hangUp(conn, 4000, "") }, "", "closed by the server: 4000 the application's own"},
		{"a library's", func(conn *websocket.Conn) { hangUp(conn, 3999, "") }, "", "closed by the server: 3999 a library's own"},
		{"a reason with controls", func(conn *websocket.Conn) { hangUp(conn, 1011, "\x1b[2J") }, "", `1011 internal error, "\x1b[2J"`},
		{"none", func(*websocket.Conn) {}, "", "the server hung up without a close (1006)"},
		{"one of which gorilla does not know", func(conn *websocket.Conn) {
			conn.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", 1000)))
			conn.NetConn().Write(ws.AppendCloseFrame(nil, ws.CodeBadGateway, "upstream göne", false))
			conn.NextReader()
		}, "", `closed by the server: 1014 bad gateway, "upstream göne"`},
		{"a broken frame", func(conn *websocket.Conn) { conn.NetConn().Write([]byte{0xFF, 0}) }, "", "the socket broke: RSV1 set"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			url := serve(t, handler(func(conn *websocket.Conn, _ *http.Request) { c.end(conn) }))
			_, notes, err := piped(t, Options{URL: url, Wait: patience}, "")
			wantError(t, err, c.want)
			if !strings.Contains(notes, c.notes) {
				t.Errorf("told %q, want %q", notes, c.notes)
			}
		})
	}
}

// A small message may be a big one when it is inflated.
func TestAMessageThatIsTooLong(t *testing.T) {
	t.Parallel()
	told := make(chan error, 1)
	url := serve(t, handler(func(conn *websocket.Conn, _ *http.Request) {
		w, _ := conn.NextWriter(websocket.BinaryMessage)
		for range maxReceived>>20 + 1 {
			w.Write(make([]byte, 1<<20))
		}
		w.Close()
		_, _, err := conn.NextReader()
		told <- err
	}))
	out, _, err := piped(t, Options{URL: url, Compression: true, Wait: -1}, "")
	wantError(t, err, "the socket broke: a message is longer than 67108864 bytes")
	if out != "" || !websocket.IsCloseError(<-told, websocket.CloseMessageTooBig) {
		t.Errorf("shown %d bytes, and the server was not told 1009", len(out))
	}
}

func TestFewerMessagesThanAskedForBeforeAClose(t *testing.T) {
	t.Parallel()
	out, _, err := piped(t, Options{URL: serve(t, says("one")), Count: 2, Wait: -1}, "")
	wantError(t, err, "closed by the server: 1000 normal closure; 1 of 2 messages came")
	if out != "one\n" {
		t.Errorf("shown %q", out)
	}
}

func TestNoMoreThanAskedFor(t *testing.T) {
	t.Parallel()
	out, notes, err := piped(t, Options{URL: serve(t, says("one", "two", "three")), Count: 2, Wait: -1}, "")
	wantError(t, err, "")
	if out != "one\ntwo\n" || !strings.Contains(notes, "* closed") { // by both at once, perhaps
		t.Errorf("shown %q and %q", out, notes)
	}
}

func TestOurClose(t *testing.T) {
	t.Parallel()
	type closed struct {
		code   int
		reason string
	}
	for input, want := range map[string]closed{
		"":                       {1000, ""},
		"/close\n":               {1000, ""},
		"/close 4001 so long\nx": {4001, "so long"},
		"/close 1005\n":          {1005, ""},
	} {
		t.Run(input, func(t *testing.T) {
			t.Parallel()
			got := make(chan error, 1)
			url := serve(t, handler(func(conn *websocket.Conn, _ *http.Request) {
				_, _, err := conn.NextReader()
				got <- err
			}))
			_, _, err := piped(t, Options{URL: url, Commands: true}, input)
			wantError(t, err, "")
			end, ok := errors.AsType[*websocket.CloseError](<-got)
			if !ok || (closed{end.Code, end.Text}) != want {
				t.Errorf("the server was told %v, want %v", end, want)
			}
		})
	}
}

func TestTyping(t *testing.T) {
	t.Parallel()
	p := sits(t, Options{URL: serve(t, handler(func(conn *websocket.Conn, r *http.Request) {
		conn.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(patience))
		conn.WriteMessage(websocket.TextMessage, []byte("red \x1b[31m\nand \u202eturned"))
		echo(conn, r)
	}))})
	p.await(t, "* connected to ws://127.0.0.1:")
	p.await(t, "/help lists the commands")
	p.await(t, `* ping "are you there", answered`+"\n")
	p.await(t, "< red \\x1b[31m\n  and \\u202eturned\n> ")
	for _, c := range []struct{ typed, shown string }{
		{"hello", "\r\x1b[K< hello\n> "},
		{"", "< \n> "},
		{"//slash", "< /slash\n> "},
		{"/ping  abc", `* pong " abc" after `},
		{"/ping", "* pong after "},
		{"/hex 0x00,FF 10", "< binary, 3 bytes: 00 ff 10\n> "},
		{"/hex 000102030405060708090a0b0c0d0e0f41", "< binary, 17 bytes:\n  00000000  00 01"},
		{"/binary a\x1bb", "< binary, 3 bytes: 61 1b 62\n"},
		{"/file " + file(t, "image", "\x89PNG"), "< binary, 4 bytes: 89 50 4e 47\n"},
		{"/file /does/not/exist", "* open /does/not/exist: no such file"},
		{"/help", "* a line that you type"},
		{"/pnig", "* /pnig is no command: /help lists them"},
		{"/close 1006", `* code "1006" may not be sent`},
		{"\xff", "* it is not UTF-8"},
	} {
		p.types(c.typed)
		p.await(t, c.shown)
	}
	p.keys.Close() // Ctrl-D
	wantError(t, p.wait(t), "")
	p.await(t, "* closed: 1000 normal closure\n")
}

func TestCtrlC(t *testing.T) {
	t.Parallel()
	t.Run("closes in good order", func(t *testing.T) {
		t.Parallel()
		p := sits(t, Options{URL: serve(t, handler(echo))})
		p.await(t, prompt)
		p.stop[0]()
		wantError(t, p.wait(t), "")
		p.await(t, "* closed: 1000 normal closure\n")
	})
	t.Run("twice ends at once", func(t *testing.T) {
		t.Parallel()
		over := make(chan struct{})
		heard := make(chan struct{})
		p := sits(t, Options{URL: serve(t, handler(func(conn *websocket.Conn, _ *http.Request) {
			conn.NetConn().Read(make([]byte, 100))
			close(heard)
			<-over
		}))})
		defer close(over)
		p.await(t, prompt)
		p.stop[0]()
		<-heard
		p.stop[1]()
		wantError(t, p.wait(t), "interrupted before the server answered")
	})
	t.Run("while the handshake hangs", func(t *testing.T) {
		t.Parallel()
		asked, over := make(chan struct{}), make(chan struct{})
		p := sits(t, Options{URL: serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(asked)
			<-over
		}))})
		defer close(over)
		<-asked
		p.stop[0]()
		wantError(t, p.wait(t), ": interrupted")
	})
}

func TestConnectedSaysWhatWasNegotiated(t *testing.T) {
	t.Parallel()
	url := serve(t, says())
	for _, c := range []struct {
		o    Options
		want string // a pattern
	}{
		{Options{}, `^\* connected to ws://\S+/room: 101 Switching Protocols\n`},
		{Options{Subprotocols: []string{"x", "chat.v1"}}, `101 Switching Protocols, subprotocol chat\.v1\n`},
		{Options{Subprotocols: []string{"x"}}, `101 Switching Protocols, no subprotocol\n`},
		{Options{Compression: true}, `101 Switching Protocols, permessage-deflate; server_no_context_takeover; client_no_context_takeover\n`},
		{Options{Verbose: true}, `\n  X-Server: here\n`},
		{Options{Timestamps: true}, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d) \* connected`},
		{Options{Quiet: true}, `^$`},
	} {
		c.o.URL, c.o.Wait = url+"/room?token=secret", patience
		_, notes, err := piped(t, c.o, "")
		wantError(t, err, "")
		if !regexp.MustCompile(c.want).MatchString(notes) || strings.Contains(notes, "secret") {
			t.Errorf("told %q, want %s", notes, c.want)
		}
	}
}

func TestWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	asked := make(chan *http.Request, 1)
	url := serve(t, handler(func(conn *websocket.Conn, r *http.Request) {
		asked <- r.Clone(context.WithoutCancel(r.Context()))
		hangUp(conn, 1000, "")
	}))
	_, _, err := piped(t, Options{
		URL: "ws://ann:pass@chat.example.com/room?a=b", Address: strings.TrimPrefix(url, "ws://"), Wait: patience,
		Origin: "https://www.example.com", Subprotocols: []string{"a", "b"}, Headers: []string{"x-tenant: t: 1", "Host: other.example.com"},
	}, "")
	wantError(t, err, "")
	r := <-asked
	for what, got := range map[string]struct{ got, want string }{
		"host":          {r.Host, "other.example.com"},
		"target":        {r.RequestURI, "/room?a=b"},
		"origin":        {r.Header.Get("Origin"), "https://www.example.com"},
		"subprotocols":  {r.Header.Get("Sec-WebSocket-Protocol"), "a, b"},
		"header":        {r.Header.Get("X-Tenant"), "t: 1"},
		"authorization": {r.Header.Get("Authorization"), "Basic YW5uOnBhc3M="},
	} {
		if got.got != got.want {
			t.Errorf("%s: %q, want %q", what, got.got, got.want)
		}
	}
}

// file writes a file for one test.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// serveTLS runs a server over TLS, and gives its URL and a file with its root.
func serveTLS(t *testing.T, config *tls.Config) (url, ca string) {
	t.Helper()
	s := httptest.NewUnstartedServer(says("hi"))
	s.TLS = config
	s.Config.ErrorLog = discard()
	s.StartTLS()
	t.Cleanup(s.Close)
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return strings.Replace(s.URL, "http", "ws", 1), file(t, "root.pem", string(root))
}

func TestTLS(t *testing.T) {
	t.Parallel()
	url, ca := serveTLS(t, nil)
	mutual, mutualCA := serveTLS(t, &tls.Config{ClientAuth: tls.RequireAnyClientCert})
	cert, key := pair(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "wss://"), ":")
	for _, c := range []struct {
		rule       string
		o          Options
		notes, err string
	}{
		{"a root of ours", Options{URL: url, CA: ca}, "101 Switching Protocols, TLS 1.3\n", ""},
		{"no root of ours", Options{URL: url}, "", "unknown authority; trust its authority with --ca FILE"},
		{"any root", Options{URL: url, Insecure: true}, "TLS 1.3", ""},
		{"the certificate", Options{URL: url, CA: ca, Verbose: true}, "\n  certificate: O=Acme Co, for example.com, *.example.com, 127.0.0.1", ""},
		{"a name that it has", Options{URL: "wss://www.example.com/", Address: "127.0.0.1:" + port, CA: ca}, "TLS 1.3", ""},
		{"a name that it has not", Options{URL: "wss://localhost:" + port, CA: ca}, "", "connect by a name that it has"},
		{"plain ws", Options{URL: "ws://127.0.0.1:" + port}, "HTTP/1.0 400 Bad Request\n", "it speaks TLS there: use wss://127.0.0.1:" + port},
		{"a certificate of ours", Options{URL: mutual, CA: mutualCA, Cert: cert, Key: key}, "TLS 1.3", ""},
		{"a certificate that is missing", Options{URL: mutual, CA: mutualCA}, "", "it wants a certificate of yours: --cert FILE --key FILE"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			c.o.Wait = patience
			_, notes, err := piped(t, c.o, "")
			wantError(t, err, c.err)
			if !strings.Contains(notes, c.notes) {
				t.Errorf("told %q, want %q", notes, c.notes)
			}
		})
	}
}

// broken is a standard output that takes nothing.
type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	url := serve(t, handler(echo))
	for _, c := range []struct {
		err  error
		want string
	}{
		{syscall.EPIPE, ""}, // whoever reads has enough
		{syscall.ENOSPC, "no space left on device"},
	} {
		r, w := io.Pipe()
		notes := newBuffer()
		wait := start(t, Options{URL: url}, Terminal{In: r, Out: broken{c.err}, Notes: notes})
		io.WriteString(w, "hi\n")
		wantError(t, wait(t), c.want)
		notes.await(t, "* closed: 1000 normal closure\n")
		w.Close()
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none.pem")
	empty := file(t, "empty.pem", "nothing")
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{URL: "ftp://x"}, "the scheme must be ws or wss"},
		{Options{Headers: []string{"x"}}, `header "x": write it as 'Name: value'`},
		{Options{Headers: []string{"Sec-WebSocket-Protocol: x"}}, `header "Sec-WebSocket-Protocol": use --subprotocol`},
		{Options{Headers: []string{"A: b\r\nC: d"}}, "a value has one line"},
		{Options{Headers: []string{"Host: a", "Host: b"}}, "header Host: 2 values"},
		{Options{Address: "localhost"}, `address "localhost": it needs a host and a port`},
		{Options{Subprotocols: []string{"a b"}}, `subprotocol "a b": it must be one word`},
		{Options{Count: -1}, "count -1: it must not be negative"},
		{Options{Timeout: -1}, "timeout -1ns: it must be positive"},
		{Options{CA: none}, "read the roots: open "},
		{Options{CA: empty}, "holds no certificate in PEM"},
		{Options{Cert: empty}, "needs both its files"},
		{Options{Cert: empty, Key: empty}, "read the client certificate: "},
	} {
		if c.o.URL == "" {
			c.o.URL = "ws://localhost"
		}
		if c.o.Timeout == 0 {
			c.o.Timeout = time.Second
		}
		_, err := New(c.o)
		wantError(t, err, c.want)
	}
}
