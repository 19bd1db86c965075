package webhook

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
	"bridgehead/ws"
)

// The application sees the handshake and shapes the answer; what it chose stands in all later requests.
func TestConnect(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(w http.ResponseWriter, c *call) {
		if c.kind() != typeConnect {
			respond(w, http.StatusOK, "text/plain", "hello")
			return
		}
		respond(w, http.StatusOK, "application/json", `{"accept":{"user":"u1","subprotocol":"b",
			"headers":{"Set-Cookie":["x=1","y=2"],"X-Room":"1","Sec-WebSocket-Extensions":"permessage-deflate"},"state":{"room":1}},
			"actions":[{"send":{"text":"welcome"}},{"send":{"data_base64":"AA=="}},{"send":{"json":{"n":1}}}]}`)
	}, func(o *Options, _ *proxy.Options) { o.ForwardHeaders = []string{"cookie"} })

	c := s.dial("a", "b")
	c.want(websocket.TextMessage, "welcome")
	c.want(websocket.BinaryMessage, "\x00")
	c.want(websocket.TextMessage, `{"n":1}`)
	if c.Subprotocol() != "b" || strings.Join(c.resp.Header["Set-Cookie"], ",") != "x=1,y=2" || c.resp.Header.Get("X-Room") != "1" ||
		c.resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("the answer has the headers %v", c.resp.Header)
	}
	s.wantLog("left out", "Sec-WebSocket-Extensions")

	connect := s.next(typeConnect)
	e := connect.Events[0]
	if e.Seq != 0 || e.ID != connect.Connection.ID+"-0" || connect.header.Get("webhook-id") != e.ID || e.Path != "/room" ||
		e.Headers["cookie"] != "a=1" || len(e.Headers) != 1 || strings.Join(e.Subprotocols, ",") != "a,b" ||
		connect.Connection.RemoteIP != "127.0.0.1" || connect.Version != 1 || connect.Route != "chat" {
		t.Errorf("the application was asked %s", connect.body)
	}
	c.send("hi")
	c.want(websocket.TextMessage, "hello") // the welcome was sent once
	if m := s.next(typeMessage); m.Connection.User != "u1" || m.Connection.Subprotocol != "b" || string(m.Connection.State) != `{"room":1}` {
		t.Errorf("the application was told %s", m.body)
	}
}

// Every status but 2xx refuses the client: 4xx as it is, the rest as a fault of the application.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{
		400: 400, 401: 401, 403: 403, 404: 404, 410: 410, 422: 422, 429: 429, 408: 408,
		500: 502, 503: 502, 301: 502, 302: 502, 304: 502,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, func(w http.ResponseWriter, c *call) {
				w.Header().Set("Retry-After", "7")
				w.Header().Set("Location", "/elsewhere")
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				if status != http.StatusNotModified {
					io.WriteString(w, `{"why":"secret"}`)
				}
			}, nil)
			got, header, body := s.refused()
			if got != want || strings.Contains(body, "secret") || header.Get("Location") != "" {
				t.Errorf("got %d with %q, want %d without the application's words", got, body, want)
			}
			if retry := header.Get("Retry-After"); (want == status) != (retry == "7") {
				t.Errorf("Retry-After is %q", retry)
			}
			s.next(typeConnect)
			s.quiet() // neither followed nor repeated, and no close for who never came in
		})
	}
}

func TestRefusalBody(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(w http.ResponseWriter, c *call) {
		respond(w, http.StatusForbidden, "application/json", `{"why":"banned"}`)
	}, func(o *Options, _ *proxy.Options) { o.RefusalBody = true })
	status, header, body := s.refused()
	if status != http.StatusForbidden || body != `{"why":"banned"}` || header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %v %q", status, header, body)
	}
}

// A yes that cannot be carried out is a fault of the application, and the log says which.
func TestBadAccept(t *testing.T) {
	t.Parallel()
	for body, word := range map[string]string{
		`{"accept":{"subprotocol":"chat.v9"}}`: "chat.v9",
		`{"accept":{"colour":"red"}}`:          "colour",
		`{"actions":[{"dance":{}}]}`:           "dance",
		`{`:                                    "unexpected EOF",
	} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, func(w http.ResponseWriter, c *call) { respond(w, http.StatusOK, "application/json", body) }, nil)
			if status, _, _ := s.refused(); status != http.StatusBadGateway {
				t.Errorf("got %d, want 502", status)
			}
			s.wantLog("refused", word)
		})
	}
}

func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	s := newStage(t, func(w http.ResponseWriter, c *call) { <-release },
		func(o *Options, _ *proxy.Options) { o.Timeout = 50 * time.Millisecond })
	if status, _, _ := s.refused(); status != http.StatusGatewayTimeout {
		t.Errorf("got %d, want 504", status)
	}
}

// Who finds no place among the requests under way waits as long as a request may take, and is then told to come back.
func TestBusy(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(http.ResponseWriter, *call) { t.Error("the application was asked") },
		func(o *Options, _ *proxy.Options) { o.InFlight, o.Timeout = 1, 50*time.Millisecond })
	s.bridge.current.Load().app.inFlight <- struct{}{}
	if status, header, _ := s.refused(); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("got %d with %v, want 503 with Retry-After", status, header)
	}
}

func TestDeadApplication(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	b := newBridge(t, "ws://"+address, nil)
	if _, err := b.Open(t.Context(), handshake()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("opened a session with a dead application: %v", err)
	}
}

// TLS follows the options of the upstream.
func TestTLS(t *testing.T) {
	t.Parallel()
	application := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))
	application.Config.ErrorLog = log.New(io.Discard, "", 0)
	application.StartTLS()
	t.Cleanup(application.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: application.Certificate().Raw})
	if err := os.WriteFile(ca, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	for options, want := range map[upstream.TLS]string{
		{}:                                     "certificate",
		{CA: ca}:                               "",
		{CA: ca, ServerName: "elsewhere.test"}: "elsewhere.test",
	} {
		group, err := upstream.New(upstream.Options{Servers: []upstream.Server{{URL: application.URL}}, TLS: options})
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(DefaultOptions(), Config{Route: "chat", Group: group})
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Open(t.Context(), handshake())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", options, err, want)
		}
		b.Close()
	}
}

// An application that said yes hears of the end, even when the client left before its upgrade.
func TestNeverStarted(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(w http.ResponseWriter, c *call) {
		respond(w, http.StatusOK, "application/json", `{"accept":{"user":"u1"}}`)
	}, nil)
	b := newBridge(t, s.application, func(o *Options) { o.Secret = append(o.Secret, oldKey) })
	h := handshake()
	h.Log = s.logger()
	session, err := b.Open(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	s.next(typeConnect)
	cause := ws.Cause{Kind: ws.ClientGone}
	session.Close(cause)
	session.(proxy.Reporter).Report(cause)
	if c := s.next(typeClose); c.Events[0].Seq != 1 || c.Events[0].Code != 1006 || c.Connection.User != "u1" {
		t.Errorf("the application was told %s", c.body)
	}
	s.quiet()
}
