package relay

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
)

// Each server that is not what the route needs makes an error that says what came and what to do.
func TestTheErrorNamesTheMend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		url  func(*testing.T) string
		want string // behind the address
	}{
		{"a page", page(http.StatusOK, "text/html; charset=utf-8", "<html>"),
			`the server answered "/rooms/lobby" with 200 OK and text/html; charset=utf-8; ` +
				"is the path right in `to`, and is it a WebSocket server that answers there?"},
		{"another path", page(http.StatusNotFound, "text/plain", "404"),
			`the server answered "/rooms/lobby" with 404 Not Found and text/plain; ` +
				"is the path right in `to`, and is it a WebSocket server that answers there?"},
		{"a method that it does not know", page(http.StatusMethodNotAllowed, "", ""),
			`with 405 Method Not Allowed; is it a WebSocket server that answers there?`},
		{"no upgrade", page(http.StatusUpgradeRequired, "", ""), "does something in front of it drop the Upgrade header?"},
		{"its own rules", page(http.StatusForbidden, "", ""), "many check Origin and Host by rules of their own"},
		{"trouble", page(http.StatusBadGateway, "text/html", ""), "with 502 Bad Gateway and text/html; the server, or something in front of it, is in trouble: see its log"},
		{"a redirect to TLS", redirect(http.StatusMovedPermanently, "https://chat.example/rooms/lobby?token=1"),
			"with 301 Moved Permanently; it redirects to wss://chat.example/rooms/lobby, so it wants TLS: " +
				"write wss:// in `to`, with the server's port for it"},
		{"a redirect to another place", redirect(http.StatusFound, "http://chat.example:81/ws?token=1"),
			"it redirects to ws://chat.example:81/ws, and no WebSocket client follows: if the sockets are there, write that in `to`"},
		{"a redirect to nowhere", redirect(http.StatusFound, "::"), "is the path right in `to`, and is it a WebSocket server that answers there?"},
		{"TLS where none is expected, and HTTP behind it", func(t *testing.T) string {
			s := httptest.NewTLSServer(http.NotFoundHandler())
			t.Cleanup(s.Close)
			return "ws://" + s.Listener.Addr().String()
		}, "with 400 Bad Request; the server speaks TLS at this port: write wss:// in `to`"},
		{"TLS where none is expected, as nginx says it", page(http.StatusBadRequest, "text/html", "The plain HTTP request was sent to HTTPS port"),
			"with 400 Bad Request and text/html; the server speaks TLS at this port: write wss:// in `to`"},
		{"TLS where none is expected, by a server that hangs up", speaksTLS,
			"; the server hangs up without an answer: does it speak another protocol, or should `to` say wss://?"},
		{"TLS where none is expected, by a server that sends an alert (RFC 8446, section 6)", greets("\x15\x03\x01\x00\x02\x02F"),
			`the server said "\x15\x03\x01\x00\x02\x02F", which is no HTTP; the server speaks TLS at this port: write wss:// in ` + "`to`"},
		{"SSH", greets("SSH-2.0-OpenSSH_9.6\r\n"),
			`the server said "SSH-2.0-OpenSSH_9.6\r\n", which is no HTTP; if the server is a TCP server, ` +
				"it belongs behind a route with tcp instead of websocket"},
		{"VNC", greets("RFB 003.008\n"), `the server said "RFB 003.008\n", which is no HTTP; if the server is a TCP server`},
		{"three bytes", greets("hi\n"), `the server said "hi\n", which is no HTTP; if the server is a TCP server`},
		{"HTTP/2 alone", greets("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00"), "the server speaks HTTP/2 at once"},
		{"nothing", greets(""), "EOF; the server hangs up without an answer: does it speak another protocol, or should `to` say wss://?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := c.url(t)
			_, _, err := open(t, t.Context(), url, nil)
			address := strings.TrimPrefix(url, "ws://")
			if err == nil || !strings.HasPrefix(err.Error(), "handshake with "+address+": ") || !strings.HasSuffix(err.Error(), c.want) &&
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v\nwant %s", err, c.want)
			}
			if strings.Contains(fmt.Sprint(err), "token") {
				t.Errorf("a query is in the log: %v", err)
			}
			if fault, ok := errors.AsType[*upstream.Fault](err); !ok || !strings.HasPrefix(fault.Key(), address+" ") {
				t.Errorf("%T has no key with the server's address", err)
			}
		})
	}
}

// What a server answers to one client has the same key as what it answers to the next, whose path is another.
func TestTheKeyDoesNotDependOnTheClient(t *testing.T) {
	t.Parallel()
	url := page(http.StatusNotFound, "", "")(t)
	var keys []string
	for _, path := range []string{"/a", "/b"} {
		_, _, err := open(t, t.Context(), url+path, nil)
		refusal, ok := errors.AsType[*proxy.Refusal](err)
		if !ok || refusal.Status != http.StatusNotFound {
			t.Fatalf("%v is no refusal", err)
		}
		fault, _ := errors.AsType[*upstream.Fault](refusal)
		keys = append(keys, fault.Key())
	}
	if keys[0] != keys[1] {
		t.Errorf("keys %q", keys)
	}
}

// page is an HTTP server that has one answer.
func page(status int, kind, body string) func(*testing.T) string {
	return func(t *testing.T) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			if kind != "" {
				w.Header().Set("Content-Type", kind)
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return "ws://" + s.Listener.Addr().String()
	}
}

func redirect(status int, to string) func(*testing.T) string {
	return func(t *testing.T) string {
		url, _ := server(t, says(fmt.Sprintf("HTTP/1.1 %d %s\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(status), to)))
		return url
	}
}

// greets is a TCP server that speaks first, and ends.
func greets(text string) func(*testing.T) string {
	return func(t *testing.T) string {
		url, _ := server(t, hangsUp(text))
		return url
	}
}

// speaksTLS is a TLS server that is no web server.
func speaksTLS(t *testing.T) string {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	config := &tls.Config{Certificates: s.TLS.Certificates}
	s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		if conn, err := l.Accept(); err == nil {
			tls.Server(conn, config).Handshake()
			conn.Close()
		}
	}()
	return "ws://" + l.Addr().String()
}

// Whatever a server says: an answer that is no socket makes an error that a reader can do something with.
func FuzzAnswer(f *testing.F) {
	for _, said := range []string{
		"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: http://[::1]:80/x?y#z\r\n\r\n",
		"HTTP/1.1 301 Moved\r\nLocation: https://{where}/{or}\r\n\r\n", "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
		"\x15\x03\x01\x00\x02\x02F", "SSH-2.0-x\r\n", "HTTP", "", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 404 {group}\r\n\r\n",
	} {
		f.Add(said)
	}
	group, err := upstream.New(upstream.Options{Servers: []upstream.Server{{URL: "ws://backend:9000"}}})
	if err != nil {
		f.Fatal(err)
	}
	asked := &url.URL{Scheme: "ws", Host: "backend:9000", Path: "/ws"}
	f.Fuzz(func(t *testing.T, said string) {
		resp, err := readResponse(bufio.NewReader(strings.NewReader(said)))
		if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
			return
		}
		if err == nil {
			err = decline(resp, asked)
		}
		fault, ok := errors.AsType[*upstream.Fault](group.Targets()[0].Fault(err))
		if !ok || fault.Error() == "" || fault.Address != "backend:9000" || strings.Contains(fault.Mend, "{where}") {
			t.Errorf("%q: %#v", said, fault)
		}
	})
}
