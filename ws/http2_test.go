package ws

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// tunnel is an extended CONNECT as net/http gives it, with header lines "Name: value" added; a name alone removes its lines.
func tunnel(lines ...string) *http.Request {
	r := &http.Request{
		Method: http.MethodConnect, Host: "example.com", URL: &url.URL{Path: "/chat", RawQuery: "room=1"},
		ProtoMajor: 2, Proto: "HTTP/2.0", ContentLength: -1,
		Header: http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}},
	}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			delete(r.Header, name)
			continue
		}
		r.Header[name] = append(r.Header[name], value)
	}
	return r
}

// An extended CONNECT is checked as the handshake over HTTP/1.1 is, but for what belongs to a connection (RFC 8441, section 5).
func TestHandshakeOverHTTP2(t *testing.T) {
	t.Parallel()
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	for _, c := range []struct {
		rule    string
		request *http.Request
		foreign bool
		status  int // 0: it is a handshake; 1: the request is malformed
		message string
	}{
		{"a good handshake", tunnel(), false, 0, ""},
		{"with a key", tunnel("Sec-Websocket-Key: " + key), false, 0, ""},
		{"the protocol is compared in any case", tunnel(":protocol", ":protocol: WebSocket"), false, 0, ""},
		{"a Host that says the same", tunnel("Host: Example.com"), false, 0, ""},
		{"a Host that says another", tunnel("Host: evil.example"), false, 1, `"evil.example" is not the :authority`},
		{"another scheme", tunnel(), true, 1, ":scheme"},
		{"another protocol", tunnel(":protocol", ":protocol: connect-udp"), false, 501, `"connect-udp"`},
		{"a list of protocols", tunnel(":protocol", ":protocol: websocket, h2c"), false, 501, `"websocket, h2c"`},
		{"another version", tunnel("Sec-Websocket-Version", "Sec-Websocket-Version: 8"), false, 426, `version "8"`},
		{"no version", tunnel("Sec-Websocket-Version"), false, 426, `version ""`},
		{"two keys", tunnel("Sec-Websocket-Key: "+key, "Sec-Websocket-Key: "+key), false, 400, "2 Sec-WebSocket-Key"},
		{"a key that is none", tunnel("Sec-Websocket-Key: x"), false, 400, "16 bytes"},
		{"a length", with(tunnel(), func(r *http.Request) { r.ContentLength = 5 }), false, 400, "no content-length"},
		{"a stream that has ended", with(tunnel(), func(r *http.Request) { r.ContentLength = 0 }), false, 400, "end its stream"},
		{"another method", with(tunnel(), func(r *http.Request) { r.Method = http.MethodGet }), false, 1, "not to GET"},
		{"a URL for a path", with(tunnel(), func(r *http.Request) { r.URL.Scheme, r.URL.Host = "http", "evil.example" }), false, 1, "slash"},
		{"a plain CONNECT", tunnel(":protocol"), false, 405, "not CONNECT"},
		{"a GET", with(tunnel(":protocol"), func(r *http.Request) { r.Method = http.MethodGet }), false, 426, "this is a WebSocket endpoint"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			r := c.request
			key := r.Header.Get("Sec-Websocket-Key")
			err := FromHTTP2(r, c.foreign)
			if _, ok := r.Header[":protocol"]; ok {
				t.Error("the header still has :protocol")
			}
			if (err != nil) != (c.status == 1) || err != nil && !strings.Contains(err.Error(), c.message) {
				t.Fatalf("malformed: %v, want %q", err, c.message)
			}
			if err != nil {
				return
			}
			offer, err := CheckRequest(r)
			refusal, refused := errors.AsType[*HandshakeError](err)
			if !refused {
				if c.status != 0 || err != nil || offer.Key != key || r.Method != http.MethodGet {
					t.Errorf("%+v, method %s, error %v; want status %d", offer, r.Method, err, c.status)
				}
				return
			}
			if refusal.Status != c.status || !strings.Contains(refusal.Message, c.message) {
				t.Errorf("%d %q, want %d %q", refusal.Status, refusal.Message, c.status, c.message)
			}
		})
	}
}

func with(r *http.Request, change func(*http.Request)) *http.Request {
	change(r)
	return r
}

// What a client may not say of its connection cannot become a handshake, and what it says of a Host does not stay beside :authority.
func TestFromHTTP2LeavesOtherRequests(t *testing.T) {
	t.Parallel()
	r := with(tunnel(":protocol", "Host: example.com"), func(r *http.Request) { r.Method = http.MethodPost })
	if err := FromHTTP2(r, true); err != nil || r.Method != http.MethodPost || IsAttempt(with(r, func(r *http.Request) { delete(r.Header, "Sec-Websocket-Version") })) {
		t.Errorf("%s %v: %v", r.Method, r.Header, err)
	}
	if r.Header["Host"] != nil {
		t.Error("the header still has a Host")
	}
}

func TestAnswerOverHTTP2(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	a := Answer{Subprotocol: "chat", Extensions: "permessage-deflate", Header: http.Header{
		"Set-Cookie": {"a=1", "b=2"}, "X-Split": {"a\r\nX-Evil: 1", "kept"}, "Bad Name": {"1"}, ":status": {"500"},
		"Connection": {"close"}, "Upgrade": {"h2c"}, "Content-Length": {"5"}, "sec-websocket-accept": {"forged"},
	}}
	a.Set(h, "dGhlIHNhbXBsZSBub25jZQ==")
	want := http.Header{
		"Set-Cookie": {"a=1", "b=2"}, "X-Split": {"kept"}, "Sec-Websocket-Protocol": {"chat"},
		"Sec-Websocket-Extensions": {"permessage-deflate"}, "Sec-Websocket-Accept": {"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
	}
	if !maps.EqualFunc(h, want, slices.Equal) {
		t.Errorf("%v", h)
	}
	h = http.Header{}
	Answer{}.Set(h, "")
	if len(h) > 0 {
		t.Errorf("an answer that says nothing: %v", h)
	}
}
