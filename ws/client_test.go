package ws

import (
	"bufio"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
)

func TestNewKey(t *testing.T) {
	t.Parallel()
	a, b := NewKey(), NewKey()
	if raw, err := base64.StdEncoding.DecodeString(a); err != nil || len(raw) != 16 || a == b {
		t.Errorf("%q, %q, %v", a, b, err)
	}
}

func TestRequestAppend(t *testing.T) {
	t.Parallel()
	q := Request{
		Host: "up.example:9000", Target: "/chat?x=1", Key: "dGhlIHNhbXBsZSBub25jZQ==",
		Subprotocols: []string{"v2", "v1"}, Extensions: []string{"permessage-deflate; client_max_window_bits", "permessage-deflate"},
		Header: http.Header{
			"Origin":            {"https://example.com"}, // passed on, never dropped
			"X-User":            {"ann"},
			"X-Split":           {"a\nb"},
			"Connection":        {"X-User"}, // a client's tokens do not delete what we set
			"Te":                {"trailers"},
			"Host":              {"evil.example"},
			"Sec-Websocket-Key": {"theirs"},
		},
	}
	want := "GET /chat?x=1 HTTP/1.1\r\nHost: up.example:9000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v2, v1\r\n" +
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, permessage-deflate\r\n" +
		"Origin: https://example.com\r\nX-User: ann\r\n\r\n"
	if got := string(q.Append(nil)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for target, line := range map[string]string{
		"": "GET / HTTP/1.1", "?x": "GET /?x HTTP/1.1", "/a b\r\nX: 1": "GET /a%20b%0D%0AX:%201 HTTP/1.1", "/é": "GET /%C3%A9 HTTP/1.1",
	} {
		q := Request{Host: "h", Target: target, Key: "k"}
		if got, _, _ := strings.Cut(string(q.Append(nil)), "\r\n"); got != line {
			t.Errorf("target %q gives %q, want %q", target, got, line)
		}
	}
}

// RFC 6455, section 4.1: what a server's answer must be like.
func TestCheckResponse(t *testing.T) {
	t.Parallel()
	answer := func(edits ...string) string {
		all := strings.NewReplacer("GET /chat?room=1 HTTP/1.1", "HTTP/1.1 101 Switching Protocols", "Sec-WebSocket-Version: 13\r\n", "",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").Replace(handshake())
		for _, edit := range edits {
			from, to, _ := strings.Cut(edit, " > ")
			all = strings.Replace(all, from, to, 1)
		}
		return all
	}
	for _, c := range []struct {
		rule  string
		edits []string // "old > new"; the last Host line is free for more headers
		want  string   // "subprotocol|extensions", or the error
	}{
		{"a good answer", nil, "|"},
		{"any case", []string{"websocket > WebSocket", "Connection: Upgrade > Connection: keep-alive, upgrade"}, "|"},
		{"an offered subprotocol", []string{"Host: example.com > Sec-WebSocket-Protocol: v1"}, "v1|"},
		{"a subprotocol in another case was not offered", []string{"Host: example.com > Sec-WebSocket-Protocol: V1"},
			`subprotocol "V1" was not offered`},
		{"two subprotocols", []string{"Host: example.com > Sec-WebSocket-Protocol: v1, v2"}, "at most one"},
		{"permessage-deflate was offered", []string{"Host: example.com > Sec-WebSocket-Extensions: permessage-deflate"}, "|permessage-deflate"},
		{"another extension", []string{"Host: example.com > Sec-WebSocket-Extensions: mux"}, `extension "mux": is not permessage-deflate`},
		{"a 200 is no success", []string{"101 Switching Protocols > 200 OK"}, "status 200"},
		{"a redirect is no success", []string{"101 Switching Protocols > 302 Found"}, "status 302"},
		{"no Upgrade", []string{"Upgrade: websocket > X: y"}, "upgrade header"},
		{"another protocol", []string{"Upgrade: websocket > Upgrade: h2c"}, `"h2c"`},
		{"no Connection", []string{"Connection: Upgrade > X: y"}, "connection header"},
		{"a wrong Accept", []string{"s3pPLM > x3pPLM"}, "does not answer the key"},
		{"no Accept", []string{"Sec-WebSocket-Accept > X"}, "does not answer the key"},
		{"two Accepts", []string{"Host: example.com > Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, "does not answer the key"},
	} {
		q := Request{Key: "dGhlIHNhbXBsZSBub25jZQ==", Subprotocols: []string{"v2", "v1"}, Extensions: []string{"permessage-deflate"}}
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer(c.edits...))), nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := q.CheckResponse(resp)
		got := a.Subprotocol + "|" + a.Extensions
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != c.want || err != nil && (!strings.Contains(got, c.want) || c.want == "|") {
			t.Errorf("%s: %s, want %s", c.rule, got, c.want)
		}
	}
}

// Headers that belong to the upstream's connection never reach the client.
func TestAnswerHeader(t *testing.T) {
	t.Parallel()
	q := Request{Key: "k"}
	a, err := q.CheckResponse(&http.Response{StatusCode: 101, Header: http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade, X-Hop"}, "Sec-Websocket-Accept": {AcceptKey("k")},
		"X-Hop": {"1"}, "Keep-Alive": {"timeout=5"}, "Proxy-Authenticate": {"Basic"}, "Set-Cookie": {"a=1", "b=2"}, "Server": {"up"},
	}})
	if err != nil || len(a.Header) != 2 || len(a.Header["Set-Cookie"]) != 2 || a.Header.Get("Server") != "up" {
		t.Errorf("%v, %v", a.Header, err)
	}
}

// Gorilla's client takes our answer and our frames.
func TestAgainstGorillaClient(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer ours.Close()
		r, err := http.ReadRequest(bufio.NewReader(ours))
		if err != nil {
			t.Error(err)
			return
		}
		offer, err := CheckRequest(r)
		if err != nil || len(offer.Subprotocols) != 2 {
			t.Errorf("offer %+v, %v", offer, err)
			return
		}
		b := AppendAnswer(nil, offer.Key, Answer{Subprotocol: offer.Subprotocols[1]})
		b = AppendFrame(b, Text, []byte("hello"), false)
		ours.Write(AppendCloseFrame(b, 4000, "bye", false))
	})
	dialer := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return theirs, nil }, Subprotocols: []string{"a", "b"}}
	conn, _, err := dialer.Dial("ws://example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetCloseHandler(func(int, string) error { return nil })
	if _, data, err := conn.ReadMessage(); err != nil || string(data) != "hello" || conn.Subprotocol() != "b" {
		t.Errorf("%q by %q, %v", data, conn.Subprotocol(), err)
	}
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, 4000) {
		t.Errorf("end: %v", err)
	}
}

// Gorilla's server takes our request and our frames, and its answer, frames and Close are good to us.
func TestAgainstGorillaServer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upgrader := websocket.Upgrader{EnableCompression: true, Subprotocols: []string{"b"}}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		kind, data, err := conn.ReadMessage()
		if err == nil && conn.WriteMessage(kind, data) == nil {
			conn.ReadMessage()
		}
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q := Request{Host: "example.com", Key: NewKey(), Subprotocols: []string{"a", "b"}, Extensions: []string{
		"permessage-deflate; server_no_context_takeover; client_no_context_takeover"}}
	conn.Write(q.Append(nil))
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := q.CheckResponse(resp)
	if err != nil || answer.Subprotocol != "b" || !strings.HasPrefix(answer.Extensions, "permessage-deflate") {
		t.Fatalf("%+v, %v", answer, err)
	}
	conn.Write(AppendCloseFrame(AppendFrame(nil, Binary, []byte("hello"), true), 4000, "bye", true))
	frames, _ := io.ReadAll(reader)
	filter := Filter{Deflate: true}
	p, err := filter.Pass(frames)
	if err != nil || p.Messages != 1 || p.Close == nil || p.Close.Code != 4000 {
		t.Errorf("%x: %+v, %v", frames, p, err)
	}
}
