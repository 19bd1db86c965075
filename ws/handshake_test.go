package ws

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// handshake is a good opening handshake as lines; edits change it: "Name: value" replaces the line of that name, "+Name: value"
// adds one, "-Name" removes it, and a first word with no colon replaces the request line.
func handshake(edits ...string) string {
	lines := []string{"GET /chat?room=1 HTTP/1.1", "Host: example.com", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	for _, edit := range edits {
		name, _, isHeader := strings.Cut(strings.TrimLeft(edit, "+-"), ":")
		at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
		switch {
		case edit[0] == '-':
			lines = slices.Delete(lines, at, at+1)
		case edit[0] == '+':
			lines = append(lines, edit[1:])
		case !isHeader || strings.Contains(name, " "):
			lines[0] = edit
		default:
			lines[at] = edit
		}
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// The rules of RFC 6455, section 4.2.1, and those that proxies are known to have missed.
func TestCheckRequest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule    string
		edits   []string
		status  int // 0: it is a handshake
		message string
	}{
		{"a good handshake", nil, 0, ""},
		{"tokens are compared in any case, in lists", []string{"Upgrade: WebSocket", "Connection: keep-alive, upgrade"}, 0, ""},
		{"tokens over several lines", []string{"Connection: keep-alive", "+Connection: Upgrade"}, 0, ""},
		{"an empty body is none", []string{"+Content-Length: 0"}, 0, ""},
		{"GET alone", []string{"POST /chat HTTP/1.1"}, 405, "GET request, not POST"},
		{"plain CONNECT is not relayed", []string{"CONNECT example.com:80 HTTP/1.1"}, 405, "not CONNECT"},
		{"HTTP/1.0 has no upgrades", []string{"GET /chat HTTP/1.0"}, 400, "HTTP/1.0"},
		{"no upgrade at all: how to connect", []string{"-Upgrade", "-Connection"}, 426, `new WebSocket("ws://example.com/chat")`},
		{"Connection without Upgrade is no upgrade", []string{"-Upgrade"}, 426, "dropped the Upgrade header"},
		{"another protocol", []string{"Upgrade: h2c"}, 426, `"h2c"`},
		{"a name that begins the same", []string{"Upgrade: websocket2"}, 426, `"websocket2"`},
		{"Connection does not name the upgrade", []string{"Connection: keep-alive"}, 400, `"keep-alive"`},
		{"no Connection", []string{"-Connection"}, 400, "does not say upgrade"},
		{"no Host", []string{"-Host"}, 400, "Host"},
		{"a body", []string{"+Content-Length: 5"}, 400, "no body"},
		{"a body in chunks", []string{"+Transfer-Encoding: chunked"}, 400, "no body"},
		{"another version", []string{"Sec-WebSocket-Version: 8"}, 426, `version "8"`},
		{"a list of versions", []string{"Sec-WebSocket-Version: 13, 8"}, 426, `version "13, 8"`},
		{"no version", []string{"-Sec-WebSocket-Version"}, 426, `version ""`},
		{"two versions", []string{"+Sec-WebSocket-Version: 13"}, 400, "2 Sec-WebSocket-Version"},
		{"no key", []string{"-Sec-WebSocket-Key"}, 400, "0 Sec-WebSocket-Key"},
		{"two keys", []string{"+Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, 400, "2 Sec-WebSocket-Key"},
		{"a key of 15 bytes", []string{"Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1"}, 400, "16 bytes"},
		{"a key that is no base64", []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"}, 400, "base64"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake(c.edits...))))
			if err != nil {
				t.Fatal(err)
			}
			offer, err := CheckRequest(r)
			refusal, refused := errors.AsType[*HandshakeError](err)
			if !refused {
				if c.status != 0 || err != nil || offer.Key != "dGhlIHNhbXBsZSBub25jZQ==" {
					t.Errorf("%+v, error %v; want status %d", offer, err, c.status)
				}
				return
			}
			if refusal.Status != c.status || !strings.Contains(refusal.Message, c.message) || strings.Contains(refusal.Message, "\n") {
				t.Errorf("%d %q, want %d %q", refusal.Status, refusal.Message, c.status, c.message)
			}
			h := refusal.Header
			if (h.Get("Allow") == "GET") != (c.status == 405) || (h.Get("Sec-WebSocket-Version") == "13") != (c.status == 426) ||
				(h.Get("Upgrade") == "websocket") != (c.status == 426) {
				t.Errorf("header %v for status %d", h, c.status)
			}
		})
	}
}

// RFC 9112, section 3.2: net/http refuses two Hosts before we see the request.
func TestTwoHosts(t *testing.T) {
	t.Parallel()
	if _, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake("+Host: other.example")))); err == nil {
		t.Error("two Host headers were accepted")
	}
}

// After a refused upgrade the connection is closed, so that frames already sent are not read as a request; a plain request
// leaves it open.
func TestRefusedUpgradeCloses(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := CheckRequest(r)
		refusal, _ := errors.AsType[*HandshakeError](err)
		maps.Copy(w.Header(), refusal.Header)
		http.Error(w, refusal.Message, refusal.Status)
	}))
	defer server.Close()
	for _, c := range []struct {
		rule, request string
		closed        bool
	}{
		{"wrong version", handshake("Sec-WebSocket-Version: 8"), true},
		{"another protocol", handshake("Upgrade: h2c"), true},
		{"bad key", handshake("Sec-WebSocket-Key: x"), true},
		{"no upgrade asked for", handshake("-Upgrade"), false},
	} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// The second request asks to be the last, so that the connection ends either way.
		io.WriteString(conn, c.request+handshake("-Upgrade", "Connection: close"))
		all, err := io.ReadAll(conn)
		if answers := strings.Count(string(all), "HTTP/1.1 4"); err != nil && answers == 0 || (answers == 1) != c.closed {
			t.Errorf("%s: %d answers, error %v\n%s", c.rule, answers, err, all)
		}
	}
}

func TestOffer(t *testing.T) {
	t.Parallel()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake(
		"+Sec-WebSocket-Protocol: v2.chat ,\tv1.chat,,", "+Sec-WebSocket-Protocol: bearer, eyJhbGciOi.J9-_",
		"+Sec-WebSocket-Extensions: x-webkit-deflate-frame, permessage-deflate; client_max_window_bits; server_max_window_bits=10",
		`+Sec-WebSocket-Extensions: foo; bar="a, permessage-deflate", permessage-deflate`))))
	if err != nil {
		t.Fatal(err)
	}
	offer, err := CheckRequest(r)
	if want := []string{"v2.chat", "v1.chat", "bearer", "eyJhbGciOi.J9-_"}; err != nil || !slices.Equal(offer.Subprotocols, want) {
		t.Errorf("subprotocols %q, error %v", offer.Subprotocols, err)
	}
	want := []string{"permessage-deflate; client_max_window_bits; server_max_window_bits=10", "permessage-deflate"}
	if !slices.Equal(offer.Deflate, want) {
		t.Errorf("deflate %q", offer.Deflate)
	}
}

func TestIsUpgrade(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{"websocket": true, "h2c": true, "": false, " , ": false} {
		if got := IsUpgrade(&http.Request{Header: http.Header{"Upgrade": {header}}}); got != want {
			t.Errorf("Upgrade %q: %t", header, got)
		}
	}
	if IsUpgrade(&http.Request{Header: http.Header{"Connection": {"Upgrade"}}}) {
		t.Error("Connection alone is taken for an upgrade")
	}
}

// RFC 6455, section 1.3, has the example.
func TestAcceptKey(t *testing.T) {
	t.Parallel()
	if got := AcceptKey("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Error(got)
	}
}

func TestAppendAnswer(t *testing.T) {
	t.Parallel()
	got := string(AppendAnswer(nil, "dGhlIHNhbXBsZSBub25jZQ==", Answer{
		Subprotocol: "chat",
		Extensions:  "permessage-deflate",
		Header: http.Header{
			"Set-Cookie":            {"a=1", "b=2"},
			"X-Split":               {"a\r\nX-Evil: 1", "b\x00"},
			"X-Evil\r\nX":           {"1"},
			"Bad Name":              {"1"},
			"Connection":            {"close"},
			"Upgrade":               {"h2c"},
			"Keep-Alive":            {"timeout=5"},
			"Transfer-Encoding":     {"chunked"},
			"Content-Length":        {"5"},
			"sec-websocket-accept":  {"forged"},
			"Sec-Websocket-Version": {"13"},
			"Date":                  {"today"},
		},
	}))
	want := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n" +
		"Sec-WebSocket-Extensions: permessage-deflate\r\nDate: today\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	bare := string(AppendAnswer(nil, "k", Answer{Subprotocol: "a\r\nX-Evil: 1"}))
	if strings.Contains(bare, "Evil") || strings.Contains(bare, "Extensions") || !strings.HasSuffix(bare, "\r\n\r\n") {
		t.Errorf("got\n%s", bare)
	}
}

// Whatever a request's headers hold, CheckRequest answers, and what it takes can be sent on as it is.
func FuzzCheckRequest(f *testing.F) {
	f.Add("websocket", "Upgrade", "13", "dGhlIHNhbXBsZSBub25jZQ==", "chat", "permessage-deflate; client_max_window_bits=\"15\"")
	f.Add("h2c", "", "8", "", ",", `foo; a="b`)
	f.Fuzz(func(t *testing.T, upgrade, connection, version, key, protocols, extensions string) {
		raw := fmt.Sprintf("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: %s\r\nConnection: %s\r\nSec-WebSocket-Version: %s\r\n"+
			"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: %s\r\nSec-WebSocket-Extensions: %s\r\n\r\n",
			upgrade, connection, version, key, protocols, extensions)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		offer, err := CheckRequest(r)
		if err != nil {
			if _, ok := errors.AsType[*HandshakeError](err); !ok {
				t.Errorf("error %T", err)
			}
			return
		}
		q := Request{Host: "b", Key: NewKey(), Subprotocols: offer.Subprotocols, Extensions: offer.Deflate}
		again, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(q.Append(nil)))))
		if err != nil {
			t.Fatal(err)
		}
		second, err := CheckRequest(again)
		if err != nil || !slices.Equal(second.Deflate, offer.Deflate) {
			t.Errorf("offered %q, sent on %q, %v", offer.Deflate, second.Deflate, err)
		}
	})
}
