package relay

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"bridgehead/internal/leak"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
	"bridgehead/ws"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// soon is a timeout that a server lets pass. A busy machine must connect within it, or the error is another one.
const soon = 3 * time.Second

// An end is what a server saw of one connection.
type end struct {
	request *http.Request
	rest    []byte // what came behind the request, until the connection ended
	err     error  // how it ended; nil: in good order
}

// server runs a raw TCP server: it reads a request, lets answer say what it likes, and reads on until the client's end. It ends
// with the test.
func server(t *testing.T, answer func(conn *net.TCPConn, key string)) (url string, ends <-chan end) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan end, 10)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				br := bufio.NewReader(conn)
				var e end
				if e.request, e.err = http.ReadRequest(br); e.err == nil {
					answer(conn.(*net.TCPConn), e.request.Header.Get("Sec-WebSocket-Key"))
					e.rest, e.err = io.ReadAll(br)
				}
				all <- e
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return "ws://" + l.Addr().String(), all
}

// says is a server's part that writes a text, in which {accept} stands for the right answer to the key.
func says(text string) func(*net.TCPConn, string) {
	return func(conn *net.TCPConn, key string) {
		io.WriteString(conn, strings.ReplaceAll(text, "{accept}", ws.AcceptKey(key)))
	}
}

// hangsUp is a server's part that says a text and ends.
func hangsUp(text string) func(*net.TCPConn, string) {
	return func(conn *net.TCPConn, key string) {
		says(text)(conn, key)
		conn.CloseWrite()
	}
}

const accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"

// open opens a bridge to a server for a client that offers subprotocols and compression. change may be nil.
func open(t *testing.T, ctx context.Context, url string, change func(*Options)) (*session, *proxy.Handshake, error) {
	t.Helper()
	o := DefaultOptions()
	o.To, o.Connect.Timeout = upstream.To{url}, patience
	if change != nil {
		change(&o)
	}
	group, err := upstream.New(o.To.Own())
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(o, group)
	if err != nil {
		t.Fatal(err)
	}
	h := caller{header: http.Header{"X-Own": {"1"}}}.handshake()
	h.User = "ann"
	h.Offer = ws.Offer{Key: "theirs", Subprotocols: []string{"v2", "v1"}, Deflate: []string{"permessage-deflate; client_max_window_bits"}}
	s, err := b.Open(ctx, h)
	if err != nil {
		return nil, h, err
	}
	return s.(*session), h, nil
}

func quickly(o *Options) { o.Connect.Timeout = soon }

func TestTheUpstreamHandshake(t *testing.T) {
	t.Parallel()
	for compression, offer := range map[string]string{"pass": "permessage-deflate; client_max_window_bits", "off": ""} {
		t.Run(compression, func(t *testing.T) {
			t.Parallel()
			url, ends := server(t, says(accepted+"Sec-WebSocket-Protocol: v1\r\nSet-Cookie: a=1\r\nKeep-Alive: 5\r\n\r\n"))
			s, h, err := open(t, t.Context(), url+"/in/{room}?q={room}", func(o *Options) { o.Compression, o.Push = compression, true })
			if err != nil {
				t.Fatal(err)
			}
			s.server.Conn.Close()
			r := (<-ends).request
			got := fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Host, " ", r.Header.Get("X-Own"), " ", r.Header.Get("X-Connection-Id"))
			if got != "GET /in/lobby?q=lobby chat.example 1 c_1" {
				t.Errorf("the request was %s", got)
			}
			key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
			if err != nil || len(key) != 16 {
				t.Errorf("key %q: %v; want one of our own", key, err)
			}
			if r.Header.Get("Sec-WebSocket-Protocol") != "v2, v1" || r.Header.Get("Sec-WebSocket-Extensions") != offer {
				t.Errorf("offered %v", r.Header)
			}
			want := fmt.Sprint(proxy.Reply{Subprotocol: "v1", User: "ann", Push: true, Header: http.Header{"Set-Cookie": {"a=1"}}})
			if got := fmt.Sprint(h.Reply); got != want {
				t.Errorf("reply %s, want %s", got, want)
			}
		})
	}
}

func TestAnswersThatOpenTheSocket(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, answer string
		subprotocol  string
		extensions   string
	}{
		{"none but what must be", accepted + "\r\n", "", ""},
		{"a subprotocol and an extension that were offered",
			accepted + "Sec-WebSocket-Protocol: v2\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n\r\n",
			"v2", "permessage-deflate; client_max_window_bits=12"},
		{"interim answers before (RFC 9110, section 15.2)",
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + accepted + "\r\n", "", ""},
		{"a head of 60 KiB", accepted + "X-Long: " + strings.Repeat("x", 60<<10) + "\r\n\r\n", "", ""},
		{"tokens in any case and company", strings.NewReplacer("websocket", "WebSocket", ": Upgrade", ": keep-alive, UPGRADE").Replace(accepted) + "\r\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url, ends := server(t, says(c.answer))
			s, h, err := open(t, t.Context(), url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if h.Reply.Subprotocol != c.subprotocol || h.Reply.Extensions != c.extensions {
				t.Errorf("reply %+v", h.Reply)
			}
			s.server.Conn.Close()
			if e := <-ends; e.err != nil || len(e.rest) > 0 {
				t.Errorf("the server got %q behind the handshake, %v", e.rest, e.err)
			}
		})
	}
}

// Nothing but a 101 with the right answers is a socket (RFC 6455, section 4.1); whatever else comes ends the connection, and the
// error says what came.
func TestAnswersThatOpenNone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, answer, want string }{
		{"another protocol", "220 smtp.example ready\r\n", `the server said "220 smtp.example ready\r\n", which is no HTTP`},
		{"a page", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "\"/rooms/lobby\" with 200 OK; is the path right in `to`"},
		{"no end of interim answers", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10), "too many interim answers"},
		{"a head without end", accepted + "X-Long: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", "larger than 65536 bytes"},
		{"a wrong key", strings.Replace(accepted, "{accept}", "x", 1) + "\r\n", "does not answer the key"},
		{"another upgrade", strings.Replace(accepted, "websocket", "h2c", 1) + "\r\n", `"h2c"`},
		{"no upgrade of the connection", strings.Replace(accepted, ": Upgrade", ": keep-alive", 1) + "\r\n", `"keep-alive"`},
		{"a subprotocol that was not offered", accepted + "Sec-WebSocket-Protocol: v3\r\n\r\n", `"v3" was not offered`},
		{"two subprotocols", accepted + "Sec-WebSocket-Protocol: v1, v2\r\n\r\n", "at most one"},
		{"an extension that was not offered", accepted + "Sec-WebSocket-Extensions: x-other\r\n\r\n", "x-other"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url, ends := server(t, says(c.answer))
			_, _, err := open(t, t.Context(), url, nil)
			address := strings.TrimPrefix(url, "ws://")
			if err == nil || !strings.HasPrefix(err.Error(), "handshake with "+address+": ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			if _, refused := errors.AsType[*proxy.Refusal](err); refused {
				t.Error("it was taken for a refusal of the server's")
			}
			if e := <-ends; len(e.rest) > 0 {
				t.Errorf("the server got %q behind the handshake", e.rest)
			}
		})
	}
	t.Run("an extension that the client offered and we did not", func(t *testing.T) {
		t.Parallel()
		url, ends := server(t, says(accepted+"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"))
		if _, _, err := open(t, t.Context(), url, func(o *Options) { o.Compression = "off" }); err == nil {
			t.Error("it was accepted")
		}
		<-ends
	})
}

func TestRefusalsAreHandedOn(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", maxBody)
	for _, c := range []struct {
		name   string
		answer func(*net.TCPConn, string)
		status int
		header http.Header
		body   string
	}{
		{"with a length", says("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno"), 401,
			http.Header{"Www-Authenticate": {"Basic"}}, "no"},
		{"in chunks", says("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n3\r\n, n\r\n1\r\no\r\n0\r\n\r\n"), 403,
			http.Header{}, "no, no"},
		{"until the server hangs up", hangsUp("HTTP/1.1 403 Forbidden\r\nX-Why: because\r\n\r\nno"), 403, http.Header{"X-Why": {"because"}}, "no"},
		{"of HTTP/1.0", hangsUp("HTTP/1.0 404 Not Found\r\n\r\nnone"), 404, http.Header{}, "none"},
		{"without a body", says("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"), 302, http.Header{"Location": {"/login"}}, ""},
		{"that has no body", says("HTTP/1.1 304 Not Modified\r\n\r\n"), 304, http.Header{}, ""},
		{"behind an interim answer", says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Full\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"), 503,
			http.Header{"Retry-After": {"7"}}, ""},
		{"without what belongs to the server's connection",
			says("HTTP/1.1 403 Forbidden\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 0\r\nX-Own: 1\r\n\r\n"), 403,
			http.Header{"X-Own": {"1"}}, ""},
		{"cut to 1 MiB", hangsUp("HTTP/1.1 403 Forbidden\r\n\r\n" + big + "more"), 403, http.Header{}, big},
		{"cut to 1 MiB of its chunks", hangsUp("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n" +
			strings.Repeat("400\r\n"+big[:1024]+"\r\n", 2048) + "0\r\n\r\n"), 403, http.Header{}, big},
		{"without the end that it promised", hangsUp("HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\nno"), 401, http.Header{}, "no"},
		{"by a server that drops the connection behind it", func(conn *net.TCPConn, key string) {
			says("HTTP/1.1 401 Unauthorized\r\n\r\n")(conn, key)
			conn.SetLinger(0)
			conn.Close()
		}, 401, http.Header{}, ""},
		{"by a server that never ends its body", says("HTTP/1.1 403 Forbidden\r\n\r\nno"), 403, http.Header{}, "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url, ends := server(t, c.answer)
			_, _, err := open(t, t.Context(), url, func(o *Options) { o.Connect.Timeout = time.Second })
			r, ok := errors.AsType[*proxy.Refusal](err)
			if !ok {
				t.Fatalf("error %v, want a refusal", err)
			}
			if r.Status != c.status || string(r.Body) != c.body || r.Reason != "upstream" {
				t.Errorf("status %d, reason %s, %d bytes of body", r.Status, r.Reason, len(r.Body))
			}
			if fmt.Sprint(r.Header) != fmt.Sprint(c.header) {
				t.Errorf("header %v, want %v", r.Header, c.header)
			}
			<-ends
		})
	}
}

func TestATargetThatTheClientCannotHave(t *testing.T) {
	t.Parallel()
	_, _, err := open(t, t.Context(), "ws://127.0.0.1:1/{header.x-none}", nil)
	r, ok := errors.AsType[*proxy.Refusal](err)
	if !ok || r.Status != http.StatusBadRequest || r.Reason != "path" || string(r.Body) != "value header.x-none is missing in this handshake\n" {
		t.Errorf("error %v", err)
	}
}

// A value of the client's may hold what ends a line; such a header is left out.
func TestNoValueEndsAHeader(t *testing.T) {
	t.Parallel()
	url, ends := server(t, says(accepted+"\r\n"))
	s, _, err := open(t, t.Context(), url, func(o *Options) { o.Headers.Set = map[string]string{"X-Room": "{evil}", "X-Next": "{room}"} })
	if err != nil {
		t.Fatal(err)
	}
	s.server.Conn.Close()
	e := <-ends
	if h := e.request.Header; h.Values("X-Room") != nil || h.Get("X-Next") != "lobby" || h.Values("X-Evil") != nil || len(e.rest) > 0 {
		t.Errorf("the upstream got %v and then %q", h, e.rest)
	}
}

// The timeout bounds the handshake too, and so does the client's own patience: then nothing is left of it.
func TestASilentServer(t *testing.T) {
	t.Parallel()
	dribble := func(conn *net.TCPConn, _ string) { // a byte now and then is no answer
		for _, letter := range "HTTP/1.1 101 Switching Protocols" {
			if _, err := io.WriteString(conn, string(letter)); err != nil {
				return
			}
			time.Sleep(soon / 15)
		}
	}
	for name, answer := range map[string]func(*net.TCPConn, string){
		"that says nothing": says(""), "that stops in its head": says(accepted), "that is slow": dribble,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, ends := server(t, answer)
			if _, _, err := open(t, t.Context(), url, quickly); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v, want the deadline", err)
			}
			<-ends

			ctx, leave := context.WithCancel(t.Context())
			time.AfterFunc(soon, leave)
			if _, _, err := open(t, ctx, url, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want it to be cancelled", err)
			}
			<-ends
		})
	}
}

// What a server says right behind its 101 may be more than any buffer of ours holds.
func TestEarlyBytesAreNotLost(t *testing.T) {
	t.Parallel()
	want := make([]byte, 300<<10)
	for i := range want {
		want[i] = byte(i / 256)
	}
	for _, early := range []int{0, 1, 4000, 5000, len(want)} {
		t.Run(fmt.Sprint(early), func(t *testing.T) {
			t.Parallel()
			url, ends := server(t, func(conn *net.TCPConn, key string) {
				head := strings.ReplaceAll(accepted+"\r\n", "{accept}", ws.AcceptKey(key))
				conn.Write(append([]byte(head), want[:early]...)) // one write
				conn.Write(want[early:])
				conn.CloseWrite()
			})
			s, _, err := open(t, t.Context(), url, nil)
			if err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(s.server.Conn)
			if got := append(s.server.Early, rest...); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
			}
			s.server.Conn.Close()
			<-ends
		})
	}
}

// A client may vanish between the upstream's 101 and its own: the server is told, even when it has said something already.
func TestCloseWithoutStartTellsTheServer(t *testing.T) {
	t.Parallel()
	greeting := string(ws.AppendFrame(nil, ws.Text, make([]byte, 64<<10), false)) // more than is read with the handshake
	for name, greeting := range map[string]string{"silent": "", "greeting": greeting} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, ends := server(t, says(accepted+"\r\n"+greeting))
			s, _, err := open(t, t.Context(), url, nil)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.Close(ws.Cause{Kind: ws.ClientGone})
			}()
			e := <-ends
			<-done
			if e.err != nil || len(e.rest) < 6 || e.rest[0] != 0x88 || e.rest[1]&0x80 == 0 {
				t.Fatalf("the server got % x, %v; want a masked Close", e.rest, e.err)
			}
			payload := e.rest[6:]
			for i := range payload {
				payload[i] ^= e.rest[2+i%4]
			}
			if code, reason, _ := ws.ParseClose(payload); code != ws.CodeGoingAway || reason != "client gone" {
				t.Errorf("the server was told %d %q", code, reason)
			}
		})
	}
}
