package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"bridgehead/hub"
	"bridgehead/internal/metrics"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
	"bridgehead/ws"
)

// A street is a route with requests beside its sockets: a real server in front, and real servers behind.
type street struct {
	t       *testing.T
	proxy   *proxy.Proxy
	address string
	hub     *hub.Hub
	cut     context.CancelFunc
	log     *journal
	set     *metrics.Set
	front   *httptest.Server
}

// A journal keeps the lines of a log.
type journal struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// streetTerms are those of a route to servers at these addresses. change may be nil.
func streetTerms(t *testing.T, change func(*Options, *proxy.Terms), servers ...string) proxy.Terms {
	t.Helper()
	o := DefaultOptions()
	o.HTTP, o.Connect.Timeout = true, patience
	for _, server := range servers {
		o.To = append(o.To, "ws://"+server)
	}
	terms := proxy.Terms{Kind: "websocket", HasHost: true, Options: proxy.DefaultOptions()}
	if change != nil {
		change(&o, &terms)
	}
	group, err := upstream.New(o.To.Own())
	must(t, err)
	bridge, err := New(o, group)
	must(t, err)
	terms.Bridge = bridge
	t.Cleanup(bridge.requests.transport.CloseIdleConnections)
	return terms
}

// newStreet starts a route to servers at these addresses. change may be nil.
func newStreet(t *testing.T, change func(*Options, *proxy.Terms), servers ...string) *street {
	t.Helper()
	return newStreetOf(t, streetTerms(t, change, servers...))
}

func newStreetOf(t *testing.T, terms proxy.Terms) *street {
	t.Helper()
	cut, cancel := context.WithCancel(t.Context())
	s := &street{t: t, hub: hub.New(), cut: cancel, log: new(journal), set: metrics.New("test")}
	p, err := proxy.New(proxy.Config{
		Route: "app", Node: "n1", Hub: s.hub, Limits: policy.NewStore(10), Capacity: policy.NewCapacity(0), Metrics: s.set.Route("app"),
		Cut: cut, Log: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, terms)
	must(t, err)
	s.proxy = p
	s.front = httptest.NewUnstartedServer(p)
	s.front.Config.ReadTimeout = 3 * time.Second
	s.front.Start()
	s.address = s.front.Listener.Addr().String()
	t.Cleanup(func() { cancel(); s.front.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// app runs an HTTP server.
func app(t *testing.T, h http.HandlerFunc) (address string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// dial opens a connection to the route.
func (s *street) dial() (net.Conn, *bufio.Reader) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.address)
	must(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn, bufio.NewReader(conn)
}

// ask sends a request as it is written, with the lines of its head and then its body, and gives the answer.
func (s *street) ask(request string) (*http.Response, string) {
	s.t.Helper()
	conn, br := s.dial()
	head, body, _ := strings.Cut(request, "\n\n")
	io.WriteString(conn, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"+body)
	resp, err := http.ReadResponse(br, &http.Request{Method: strings.Fields(head)[0]})
	must(s.t, err)
	text, err := io.ReadAll(resp.Body)
	must(s.t, err)
	return resp, string(text)
}

// mirror answers with what it was asked.
func mirror(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("X-Backend", "here")
	fmt.Fprintf(w, "%s %s host=%s length=%d %s body=%q trailer=%v\n", r.Method, r.RequestURI, r.Host, r.ContentLength, r.TransferEncoding, body, r.Trailer)
	r.Header.Write(w)
}

func TestRequestsReachTheServersAsTheyAre(t *testing.T) {
	t.Parallel()
	s := newStreet(t, nil, app(t, mirror))
	for request, want := range map[string]string{
		"GET /a%2Fb//c?x=1;y=2&z HTTP/1.1\nHost: chat.example":                                   "GET /a%2Fb//c?x=1;y=2&z host=chat.example length=0 [] body=\"\"",
		"POST /p HTTP/1.1\nHost: x\nContent-Length: 4\n\nbody":                                   "POST /p host=x length=4 [] body=\"body\"",
		"PUT /p HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n4\r\nbody\r\n0\r\n\r\n":         "PUT /p host=x length=-1 [chunked] body=\"body\"",
		"PROPFIND /p HTTP/1.1\nHost: x":                                                          "PROPFIND /p host=x",
		"GET http://other.example/p HTTP/1.1\nHost: x":                                           "GET /p host=other.example",
		"GET /p HTTP/1.0\nHost: x":                                                               "GET /p host=x",
		"GET / HTTP/1.1\nHost: x\nAccept-Encoding: br":                                           "Accept-Encoding: br\r\n",
		"GET / HTTP/1.1\nHost: x\nX-Forwarded-For: 6.6.6.6\nX-Real_IP: 6.6.6.6":                  "X-Forwarded-For: 127.0.0.1\r\n",
		"GET / HTTP/1.1\nHost: x\nConnection: keep-alive, X-Real-IP, X-Connection-Id":            "X-Connection-Id: c_n1_",
		"GET / HTTP/1.1\nHost: x\nConnection: TE\nTE: trailers":                                  "Te: trailers\r\n",
		"POST /p HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 0":                     "POST /p host=x",
		"POST / HTTP/1.1\nHost: x\nOrigin: http://x\nContent-Length: 0\nCookie: a=1\nX-Own: y":   "Cookie: a=1\r\n",
		"DELETE / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nContent-Length: 3\n\n0\r\n\r\n": "DELETE / host=x length=-1 [chunked] body=\"\"",
	} {
		resp, body := s.ask(request)
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, want) || resp.Header.Get("X-Backend") != "here" {
			t.Errorf("%q: %s\n%s\nwant %s", request, resp.Status, body, want)
		}
		if strings.Contains(body, "6.6.6.6") || strings.Contains(body, "Go-http-client") {
			t.Errorf("%q: the server sees\n%s", request, body)
		}
	}
}

// A request that anybody may take for an upgrade is answered by the rules for sockets, or the server would see one that no policy has.
func TestNoUpgradePassesAsARequest(t *testing.T) {
	t.Parallel()
	s := newStreet(t, nil, app(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the server sees %s %s %v", r.Method, r.URL, r.Header)
	}))
	const handshake = "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
	for request, status := range map[string]int{
		"GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk":                                                            426,
		"GET / HTTP/1.1\nHost: x\nConnection: Upgrade, HTTP2-Settings\nHTTP2-Settings: AAMAAABk":                                                          426,
		"GET / HTTP/1.1\nHost: x\nHTTP2-Settings: AAMAAABk":                                                                                               426,
		"GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: foo/2":                                                                                    426,
		"GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade:":                                                                                          426,
		"GET / HTTP/1.1\nHost: x\nUpgrade: ,":                                                                                                             426,
		"GET / HTTP/1.1\nHost: x\nConnection: upgrade":                                                                                                    426,
		"GET / HTTP/1.1\nHost: x\nConnection: keep-alive, Upgrade\nUpgrade: h2c, h3c":                                                                     426,
		"GET / HTTP/1.1\nHost: x\n" + handshake:                                                                                                           426,
		"GET / HTTP/1.1\nHost: x\nSec-WebSocket-Key: x":                                                                                                   426,
		"GET / HTTP/1.1\nHost: x\nUpgrade: websocket\n" + handshake:                                                                                       400,
		"GET / HTTP/1.1\nHost: x\nUpgrade: WebSocket\nConnection: close\n" + handshake:                                                                    400,
		"GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: short":                           400,
		"GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 777":                                                    426,
		"GET / HTTP/1.0\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n" + handshake:                                                                  400,
		"POST / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 0\n" + handshake:                                              405,
		"GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 27\n" + handshake + "\nGET /admin HTTP/1.1\r\nHost: x\r\n\r\n": 400,
		"GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nTransfer-Encoding: chunked\n" + handshake + "\n0\r\n\r\n":                      400,
		"POST / HTTP/1.1\nHost: x\nUpgrade: h2c\nContent-Length: 0":                                                                                       405,
	} {
		resp, _ := s.ask(strings.ReplaceAll(request, "\n\n\n", "\n\n"))
		if resp.StatusCode != status || !resp.Close {
			t.Errorf("%q: %s, closes: %t; want %d and the end", request, resp.Status, resp.Close, status)
		}
	}
}

// Two requests on a connection are two, and each has its own policies.
func TestPipelinedRequestsAreAnsweredOneByOne(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	s := newStreet(t, nil, app(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.URL.Path+" "+string(body))
	}))
	conn, br := s.dial()
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	io.WriteString(conn, fmt.Sprintf("POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(smuggled), smuggled)+
		"POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+ // TE wins, and is all that the server sees
		"POST /3 HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\nContent-Length: 1\r\n\r\nx"+
		"GET /4 HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nGET /5 HTTP/1.1\r\nHost: x\r\n\r\n")
	for i, want := range []int{200, 200, 403, 426} {
		resp, err := http.ReadResponse(br, nil)
		must(t, err)
		io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != want {
			t.Errorf("request %d: %s, want %d", i+1, resp.Status, want)
		}
	}
	if _, err := br.ReadByte(); err == nil {
		t.Error("what came behind a refused upgrade was answered")
	}
	mu.Lock()
	defer mu.Unlock()
	if got, want := fmt.Sprint(seen), fmt.Sprint([]string{"POST /1 " + smuggled, "POST /2 "}); got != want {
		t.Errorf("the server saw %s, want %s", got, want)
	}
}

// A server may answer before it has read a body. What is left of that must not be read as another request.
func TestTheRestOfABodyIsNoRequest(t *testing.T) {
	t.Parallel()
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	s := newStreet(t, nil, app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/smuggled" {
			t.Error("it was read as a request")
		}
		w.WriteHeader(http.StatusTeapot)
	}))
	next := s.front.Config.Handler
	bounded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<30) // hides the body from net/http
		next.ServeHTTP(w, r)
	}))
	defer bounded.Close()
	for _, address := range []string{s.address, bounded.Listener.Addr().String()} {
		s.address = address
		conn, br := s.dial()
		go func() {
			sent := strings.Repeat(smuggled, 1<<20/len(smuggled))
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(sent), sent)
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") // is read if the whole body was
		}()
		for {
			resp, err := http.ReadResponse(br, nil)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays")
			}
			if err != nil {
				break
			}
			io.Copy(io.Discard, resp.Body)
			if resp.StatusCode != http.StatusTeapot && resp.StatusCode != http.StatusBadGateway {
				t.Errorf("status %s", resp.Status)
			}
		}
	}
}

// A client that was answered and does not send the rest of its body does not keep its connection.
func TestTheRestOfABodyIsNotAwaited(t *testing.T) {
	t.Parallel()
	url, _ := server(t, says("HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n"))
	s := newStreet(t, nil, strings.TrimPrefix(url, "ws://"))
	for range 3 {
		conn, br := s.dial()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n%s", strings.Repeat("x", 100_000))
		resp, err := http.ReadResponse(br, nil)
		must(t, err)
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusTeapot && resp.StatusCode != http.StatusBadGateway {
			t.Errorf("%s, %v", resp.Status, err)
		}
		if _, err := br.ReadByte(); err != io.EOF {
			t.Fatalf("the connection: %v, want its end", err)
		}
	}
}

// What the front refuses to read must not be read otherwise by a server.
func TestAmbiguousRequestsAreRefused(t *testing.T) {
	t.Parallel()
	s := newStreet(t, nil, app(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the server sees %s %s", r.Method, r.URL) }))
	for _, head := range []string{
		"Content-Length: 1\nContent-Length: 2", "Content-Length: 1, 1", "Content-Length: +1", "Content-Length: -1", "Content-Length : 1",
		"Transfer-Encoding: chunked, identity", "Transfer-Encoding: xchunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: \x0bchunked",
		"Transfer-Encoding: chunked\nTransfer-Encoding: chunked", "Host: y", " folded: x", "X-A: a\x00b", "X-A\x00: b", "Bad Name: x",
	} {
		if resp, _ := s.ask("POST / HTTP/1.1\nHost: x\n" + head + "\n\n0\r\n\r\n"); resp.StatusCode < 400 || !resp.Close {
			t.Errorf("%q: %s, closes: %t", head, resp.Status, resp.Close)
		}
	}
}

func TestAServersUpgradeIsRefused(t *testing.T) {
	t.Parallel()
	url, _ := server(t, hangsUp("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nevil"))
	s := newStreet(t, nil, strings.TrimPrefix(url, "ws://"))
	resp, body := s.ask("GET / HTTP/1.1\nHost: x")
	if resp.StatusCode != http.StatusBadGateway || strings.Contains(body, "evil") || !strings.Contains(s.log.String(), "must not upgrade") {
		t.Fatalf("%s %q\n%s", resp.Status, body, s.log)
	}
}

func TestServersThatFail(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l.Close()
	silent, _ := server(t, func(*net.TCPConn, string) {})
	stranger, _ := server(t, hangsUp("SSH-2.0-x\r\n"))
	for _, c := range []struct {
		server string
		status int
		log    string
	}{
		{l.Addr().String(), 502, "does the server run, and does it listen there?"},
		{strings.TrimPrefix(silent, "ws://"), 504, "timeout awaiting response headers"},
		{strings.TrimPrefix(stranger, "ws://"), 502, "malformed HTTP"},
	} {
		s := newStreet(t, func(o *Options, _ *proxy.Terms) { o.ResponseTimeout = soon }, c.server)
		resp, _ := s.ask("GET / HTTP/1.1\nHost: x") // without a body, whose writing could fail first
		if resp.StatusCode != c.status || !strings.Contains(s.log.String(), c.log) || !strings.Contains(s.log.String(), c.server) {
			t.Errorf("%s, want %d and %q\n%s", resp.Status, c.status, c.log, s.log)
		}
		if got := s.count("5xx"); got != "1" {
			t.Errorf("%s requests counted", got)
		}
	}
}

// count ends the street and gives the number of requests whose answer was of a class.
func (s *street) count(class string) string {
	s.front.Close()
	w := httptest.NewRecorder()
	s.set.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	_, behind, _ := strings.Cut(w.Body.String(), fmt.Sprintf("bridgehead_http_requests_total{class=%q,route=\"app\"} ", class))
	number, _, _ := strings.Cut(behind, "\n")
	return number
}

// A body is sent once, whatever becomes of its server; a request without one may be.
func TestABodyIsNeverSentTwice(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	posts := 0
	s := newStreet(t, nil, app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			return
		}
		io.Copy(io.Discard, r.Body)
		mu.Lock()
		posts++
		mu.Unlock()
		conn, _, _ := http.NewResponseController(w).Hijack()
		conn.Close()
	}))
	s.ask("GET / HTTP/1.1\nHost: x") // leaves a connection that is used again
	resp, _ := s.ask("POST / HTTP/1.1\nHost: x\nIdempotency-Key: 1\nContent-Length: 1\n\nx")
	mu.Lock()
	defer mu.Unlock()
	if resp.StatusCode != http.StatusBadGateway || posts != 1 {
		t.Fatalf("%s after %d posts", resp.Status, posts)
	}
}

// RFC 9110, section 6.5.
func TestTrailersPassBothWays(t *testing.T) {
	t.Parallel()
	s := newStreet(t, nil, app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.Copy(w, r.Body)
		w.Header().Set("X-Sum", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-All", fmt.Sprint(len(r.Trailer)))
	}))
	resp, body := s.ask("POST / HTTP/1.1\nHost: x\nTE: trailers\nTransfer-Encoding: chunked\nTrailer: X-Sum, X-Real-Ip\n\n" +
		"4\r\nbody\r\n0\r\nX-Sum: 42\r\nX-Real-Ip: 6.6.6.6\r\nX-Unannounced: 1\r\n\r\n")
	if body != "body" || resp.Trailer.Get("X-Sum") != "42" || resp.Trailer.Get("X-All") != "1" {
		t.Fatalf("%q, trailer %v", body, resp.Trailer)
	}
}

// Authentication replaces the request by a copy without tokens. What a trailer says of the user is nobody's word.
func TestTrailersPassBehindAuthentication(t *testing.T) {
	t.Parallel()
	endpoint := app(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User", "ann") })
	o := auth.DefaultForward()
	o.URL, o.Headers = "http://"+endpoint, []string{"X-User"}
	set, err := auth.NewSet(map[string]auth.Options{"sso": {Forward: &o}}, nil, auth.Setup{Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { set.Release(nil) })
	checker, err := set.Checker(auth.Use{Any: []string{"sso"}}, nil)
	must(t, err)
	s := newStreet(t, func(_ *Options, terms *proxy.Terms) { terms.Auth = checker }, app(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, string(body), r.Header["X-User"], r.Trailer)
	}))
	_, body := s.ask("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTrailer: X-Sum, X-User, X_user\n\n" +
		"4\r\nbody\r\n0\r\nX-Sum: 42\r\nX-User: eve\r\nX_user: eve\r\n\r\n")
	if body != "body[ann] map[X-Sum:[42]]" {
		t.Errorf("%q", body)
	}
}

// The time for a request is that for each part of its body, and not for the answer.
func TestStreamsGoOnBeyondTheTimeForARequest(t *testing.T) {
	t.Parallel()
	const parts = 6 // 600ms each, where a request has 3s
	s := newStreet(t, func(_ *Options, terms *proxy.Terms) { terms.Options.Socket.WriteTimeout = 3 * time.Second },
		app(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			control := http.NewResponseController(w)
			control.EnableFullDuplex()
			control.Flush()
			br := bufio.NewReader(r.Body)
			for range parts {
				line, err := br.ReadString('\n')
				if err != nil {
					return
				}
				io.WriteString(w, "data: "+line+"\n")
				control.Flush()
			}
			<-time.After(3500 * time.Millisecond) // longer than a request, and than a write, may take
			io.WriteString(w, "data: end\n\n")
		}))
	conn, br := s.dial()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	go func() {
		for i := range parts {
			<-time.After(600 * time.Millisecond)
			fmt.Fprintf(conn, "2\r\n%d\n\r\n", i)
		}
		io.WriteString(conn, "0\r\n\r\n")
	}()
	resp, err := http.ReadResponse(br, nil)
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if want := "data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\ndata: 5\n\ndata: end\n\n"; string(body) != want {
		t.Fatalf("%q", body)
	}
}

func TestAClientThatSendsNoMoreIsGivenUp(t *testing.T) {
	t.Parallel()
	s := newStreet(t, nil, app(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	for request, status := range map[string]int{
		"POST / HTTP/1.1\nHost: x\nContent-Length: 10\n\nx":                      408,
		"POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nzz\r\nbody\r\n": 400,
	} {
		if resp, _ := s.ask(request); resp.StatusCode != status || !resp.Close {
			t.Errorf("%q: %s, want %d", request, resp.Status, status)
		}
	}
}

func TestBodiesHaveTheListenersBound(t *testing.T) {
	t.Parallel()
	s := newStreet(t, nil, app(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	next := s.front.Config.Handler
	bounded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 10)
		next.ServeHTTP(w, r)
	}))
	defer bounded.Close()
	s.address = bounded.Listener.Addr().String()
	resp, _ := s.ask("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n10\r\n0123456789abcdef\r\n0\r\n\r\n")
	if resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
		t.Fatalf("status %s", resp.Status)
	}
}

// A client that does not read holds its server back, and then loses the answer.
func TestAClientThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	ended := make(chan int, 1)
	s := newStreet(t, func(_ *Options, terms *proxy.Terms) { terms.Options.Socket.WriteTimeout = 300 * time.Millisecond },
		app(t, func(w http.ResponseWriter, _ *http.Request) {
			sent, part := 0, make([]byte, 1<<20)
			for sent < 1<<30 {
				n, err := w.Write(part)
				if sent += n; err != nil {
					break
				}
			}
			ended <- sent
		}))
	conn, _ := s.dial()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case sent := <-ended:
		if sent >= 1<<29 {
			t.Fatalf("%d bytes were kept for it", sent)
		}
	case <-time.After(patience):
		t.Fatal("the answer goes on")
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	list := func(cors string, origins ...string) func(*Options, *proxy.Terms) {
		return func(o *Options, terms *proxy.Terms) { o.CORS, terms.Options.Origins = cors, origins }
	}
	address := app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://backend.example")
		w.Header().Set("Access-Control-Expose-Headers", "X-Own")
		w.WriteHeader(http.StatusAccepted)
	})
	const good, evil = "\nOrigin: https://good.example", "\nOrigin: https://evil.example"
	for _, c := range []struct {
		change      func(*Options, *proxy.Terms)
		request     string
		status      int
		origin      string // in Access-Control-Allow-Origin
		credentials string
	}{
		{list("backend", "https://good.example"), "GET / HTTP/1.1\nHost: x", 202, "https://backend.example", ""},
		{list("backend", "https://good.example"), "GET / HTTP/1.1\nHost: x" + good, 202, "https://backend.example", ""},
		{list("backend", "https://good.example"), "GET / HTTP/1.1\nHost: x" + evil, 403, "", ""}, // or polling would go round the policy
		{list("backend", "https://good.example"), "POST / HTTP/1.1\nHost: x\nContent-Length: 0" + evil, 403, "", ""},
		{list("backend", "https://good.example"), "OPTIONS / HTTP/1.1\nHost: x\nAccess-Control-Request-Method: PUT" + good, 202, "https://backend.example", ""},
		{list("backend"), "POST / HTTP/1.1\nHost: good.example\nContent-Length: 0" + good, 202, "https://backend.example", ""},
		{list("backend"), "POST / HTTP/1.1\nHost: x\nContent-Length: 0", 202, "https://backend.example", ""}, // no browser
		{list("origins", "https://good.example"), "GET / HTTP/1.1\nHost: x", 202, "", ""},
		{list("origins", "https://good.example"), "GET / HTTP/1.1\nHost: x" + good, 202, "https://good.example", "true"},
		{list("origins", "https://good.example"), "GET / HTTP/1.1\nHost: x" + evil, 403, "", ""},
		{list("origins", "https://good.example"), "OPTIONS / HTTP/1.1\nHost: x\nAccess-Control-Request-Method: PUT" + good, 204, "https://good.example", "true"},
		{list("origins", "https://good.example"), "OPTIONS / HTTP/1.1\nHost: x\nAccess-Control-Request-Method: PUT" + evil, 403, "", ""},
		{list("origins", "*"), "GET / HTTP/1.1\nHost: x" + evil, 202, "*", ""},
	} {
		resp, _ := newStreet(t, c.change, address).ask(c.request)
		h := resp.Header
		if resp.StatusCode != c.status || h.Get("Access-Control-Allow-Origin") != c.origin || h.Get("Access-Control-Allow-Credentials") != c.credentials {
			t.Errorf("%q: %s %v", c.request, resp.Status, h)
		}
		if c.status == 204 && h.Get("Access-Control-Allow-Methods") != "PUT" {
			t.Errorf("%q: %v", c.request, h)
		}
		if c.status == 202 && h.Get("Access-Control-Expose-Headers") != "X-Own" {
			t.Errorf("%q: %v", c.request, h)
		}
	}
}

// Limits are for sockets.
func TestRequestsAreNoHandshakes(t *testing.T) {
	t.Parallel()
	s := newStreet(t, func(_ *Options, terms *proxy.Terms) {
		terms.Options.MaxConnections = 1
		terms.Options.Limits = []policy.Rule{{Per: []string{"client.ip"}, Connections: 1, OnExceed: policy.Throttle}}
	}, app(t, mirror))
	for range 5 {
		if resp, _ := s.ask("GET / HTTP/1.1\nHost: x"); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
	if got := s.count("2xx"); got != "5" {
		t.Errorf("%s requests counted", got)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	here, on := make(chan bool), make(chan bool)
	s := newStreet(t, func(o *Options, _ *proxy.Terms) { o.MaxRequests = 1 },
		app(t, func(http.ResponseWriter, *http.Request) { here <- true; <-on }))
	conn, br := s.dial()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-here
	if resp, _ := s.ask("GET / HTTP/1.1\nHost: x"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("status %s", resp.Status)
	}
	close(on)
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the first: %v", err)
	}
}

// A drain waits for requests under way, and no longer than it may.
func TestADrainWaitsForRequests(t *testing.T) {
	t.Parallel()
	for _, cut := range []bool{false, true} {
		here, on := make(chan bool), make(chan bool)
		s := newStreet(t, nil, app(t, func(w http.ResponseWriter, r *http.Request) {
			here <- true
			select {
			case <-on:
			case <-r.Context().Done():
			}
		}))
		conn, br := s.dial()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		<-here
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		if err := s.hub.Drain(ctx, 0, ws.Cause{Kind: ws.ShuttingDown}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the drain did not wait: %v", err)
		}
		cancel()
		if resp, _ := s.ask("GET / HTTP/1.1\nHost: x"); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a newcomer: %s", resp.Status)
		}
		if cut {
			s.cut()
		} else {
			close(on)
		}
		must(t, s.hub.Drain(t.Context(), 0, ws.Cause{Kind: ws.ShuttingDown}))
		if resp, err := http.ReadResponse(br, nil); !cut && (err != nil || resp.StatusCode != http.StatusOK) {
			t.Errorf("it was not finished: %v", err)
		}
	}
}

// A reload is for new requests; those under way are finished where they are.
func TestARequestOutlivesAReload(t *testing.T) {
	t.Parallel()
	here, on := make(chan bool), make(chan bool)
	s := newStreet(t, nil, app(t, func(w http.ResponseWriter, _ *http.Request) {
		here <- true
		<-on
		io.WriteString(w, "old")
	}))
	conn, br := s.dial()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-here
	next, err := s.proxy.Prepare(streetTerms(t, nil, app(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "new") })))
	must(t, err)
	s.proxy.Apply(next)
	if _, body := s.ask("GET / HTTP/1.1\nHost: x"); body != "new" {
		t.Errorf("a new request is answered %q", body)
	}
	close(on)
	resp, err := http.ReadResponse(br, nil)
	must(t, err)
	if body, _ := io.ReadAll(resp.Body); string(body) != "old" {
		t.Errorf("the one under way is answered %q", body)
	}
}

func TestServersAreUsedInTurnAndConnectionsAgain(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{}
	h := func(name string) http.HandlerFunc {
		return func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			seen[name+" "+r.RemoteAddr]++
		}
	}
	s := newStreet(t, nil, app(t, h("one")), app(t, h("two")))
	for range 6 {
		s.ask("GET / HTTP/1.1\nHost: x")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 2 {
		t.Fatalf("%v, want one connection to each", seen)
	}
}

func TestTheOptionsOfRequests(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Options){
		"":                               func(o *Options) { o.HTTP = true },
		`to[0]: "ws://h:1/x" has a path`: func(o *Options) { o.HTTP, o.To = true, upstream.To{"ws://h:1/x"} },
		"cors: ":                         func(o *Options) { o.CORS = "all" },
		"max_requests: ":                 func(o *Options) { o.MaxRequests = -1 },
	} {
		o := DefaultOptions()
		o.To = upstream.To{"ws://h:1"}
		change(&o)
		var p yamlpos.Problems
		o.Validate(nil, &p)
		if got := p.Error(); !strings.Contains(got, want) || p.Len() > 1 || (p.Len() == 0) != (want == "") {
			t.Errorf("got %q, want one problem like %q", got, want)
		}
	}
}
