package auth

import (
	"bufio"
	"context"
	"encoding/pem"
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
	"sync/atomic"
	"testing"
	"time"

	"bridgehead/policy"
)

// An oracle is an endpoint that decides, and counts how often it is asked.
type oracle struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
	mu     sync.Mutex
	last   http.Header
}

func newOracle(t testing.TB, answer http.HandlerFunc) *oracle {
	t.Helper()
	o := new(oracle)
	o.answer.Store(&answer)
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.asked.Add(1)
		o.mu.Lock()
		o.last = r.Header.Clone()
		o.mu.Unlock()
		(*o.answer.Load())(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

// says makes it answer otherwise from now on.
func (o *oracle) says(answer http.HandlerFunc) { o.answer.Store(&answer) }

func (o *oracle) header() http.Header {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

func yes(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-User", "ann")
	w.Header().Set("X-Email", "ann@example.com")
	w.Header().Add("Set-Cookie", "session=renewed; HttpOnly")
}

// asking is a checker that asks an endpoint.
func asking(t testing.TB, url string, change func(*Forward)) *Checker {
	t.Helper()
	o := DefaultForward()
	o.URL, o.User, o.Headers, o.Claims = url, "x-user", []string{"X-User", "x-role"}, map[string]string{"email": "X-Email"}
	if change != nil {
		change(&o)
	}
	return only(t, Options{Forward: &o})
}

func TestAnEndpointLetsIn(t *testing.T) {
	t.Parallel()
	o := newOracle(t, yes)
	c := asking(t, o.URL, nil)
	f := facts("http://chat.example.com/ws/5?a=1", "Authorization: Bearer x", "Cookie: session=1", "X-Secret: s", "Origin: https://a.example",
		"X-User: eve", "X_user: eve", "X-Role: admin", "x.role: admin", "Connection: Upgrade, x-user, X_Role", "X-Forwarded-Uri: /public")
	f.TLS = true
	id := admit(t, c, f)
	if f.User != "ann" || strings.Join(f.Claims.Texts("email"), "") != "ann@example.com" || id.Cookies[0] != "session=renewed; HttpOnly" || !id.Expires.IsZero() {
		t.Errorf("user %q, claims %v, %+v", f.User, f.Claims, id)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer x", "Cookie": "session=1", "Origin": "https://a.example", "X-Forwarded-Method": "GET", "X-Forwarded-Proto": "https",
		"X-Forwarded-Host": "chat.example.com", "X-Forwarded-Uri": "/ws/5?a=1", "X-Forwarded-For": "192.0.2.7",
		"X-Original-Url": "https://chat.example.com/ws/5?a=1", "User-Agent": "bridgehead", "X-Secret": "", "Connection": "",
	} {
		if got := strings.Join(o.header()[name], "|"); got != want {
			t.Errorf("the endpoint got %s %q, want %q", name, got, want)
		}
	}
	// The upstream sees the endpoint's word alone: no spelling of the client's, and none that its Connection header deletes.
	h := f.Request.Header
	if h.Get("X-User") != "ann" || h["X_user"] != nil || h["X-Role"] != nil || h[strings.ToLower("X.Role")] != nil || strings.Contains(strings.ToLower(h.Get("Connection")), "x") {
		t.Errorf("the upstream sees %v", h)
	}
}

func TestCookiesOfForeignPagesAreNotSentToTheEndpoint(t *testing.T) {
	t.Parallel()
	o := newOracle(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") == "" {
			w.WriteHeader(401)
		}
	})
	c := asking(t, o.URL, func(o *Forward) { o.Cache = time.Minute })
	admit(t, c, facts("/ws", "Cookie: session=1"))
	d := refuse(t, c, facts("/ws", "Cookie: session=1"), errors.New("the page is foreign"), reasonRefused, "the client's cookies were not sent: the page is foreign")
	if d.Status != 401 || o.header()["Cookie"] != nil {
		t.Errorf("answered %d, the endpoint got %v", d.Status, o.header())
	}
}

func TestAnEndpointThatDoesNotLetIn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		status int
		reason string
		body   string
		header string // Name: value
	}{
		"no": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Www-Authenticate", "X y")
			http.Error(w, "go away", http.StatusUnauthorized)
		},
			401, reasonRefused, "go away\n", "Www-Authenticate: X y"},
		"forbidden": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, 403, reasonRefused, "", ""},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "state", Value: "1"})
			http.Redirect(w, r, "https://id.example.com/login", http.StatusFound)
		}, 302, reasonRefused, `<a href="https://id.example.com/login">Found</a>.` + "\n\n", "Location: https://id.example.com/login"},
		"too many":           {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "7"); w.WriteHeader(429) }, 429, reasonRefused, "", "Retry-After: 7"},
		"other headers stay": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Server", "x"); w.WriteHeader(403) }, 403, reasonRefused, "", "Server: "},
		"huge refusal": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			_, _ = w.Write(make([]byte, largestRefusal+1))
		}, 403, reasonRefused, "", "Content-Type: "},
		"broken":           {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "stack trace", 500) }, 502, reasonEndpoint, "authentication is not possible now\n", ""},
		"status of nobody": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(600) }, 502, reasonEndpoint, "authentication is not possible now\n", ""},
		"hangs up":         {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, reasonEndpoint, "authentication is not possible now\n", ""},
		"silent":           {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 504, reasonEndpoint, "authentication is not possible now\n", ""},
		"silent in the refusal": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(403)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, 504, reasonEndpoint, "authentication is not possible now\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := asking(t, newOracle(t, test.answer).URL, func(o *Forward) {
				if strings.HasPrefix(name, "silent") {
					o.Timeout = 50 * time.Millisecond
				}
			})
			d := refuse(t, c, facts("/ws", "Authorization: Bearer top-secret"), nil, test.reason, "id: http://")
			key, value, _ := strings.Cut(test.header, ": ")
			if d.Status != test.status || string(d.Body) != test.body || d.Header.Get(key) != value || strings.Contains(sprint(d), "top-secret") {
				t.Errorf("answered %d %v %q", d.Status, d.Header, d.Body)
			}
		})
	}
	gone := newOracle(t, yes)
	gone.Close()
	refuse(t, asking(t, gone.URL, nil), facts("/ws"), nil, reasonEndpoint, "cannot be asked")
}

// A body that never ends costs neither memory nor time.
func TestAnEndpointWithAHugeYes(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	o := newOracle(t, func(w http.ResponseWriter, r *http.Request) {
		for chunk := make([]byte, 64<<10); r.Context().Err() == nil && sent.Load() < 1<<30; {
			n, err := w.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	c := asking(t, o.URL, nil)
	for range 3 {
		admit(t, c, facts("/ws"))
	}
	if n := sent.Load(); n > 64<<20 {
		t.Errorf("%d bytes were taken of the answers", n)
	}
}

// A yes that goes on for ever without saying more holds nobody up.
func TestAnEndpointThatDoesNotEndItsYes(t *testing.T) {
	t.Parallel()
	o := newOracle(t, func(w http.ResponseWriter, r *http.Request) {
		yes(w, r)
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("begin"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	c := asking(t, o.URL, func(o *Forward) { o.InFlight, o.Timeout = 1, time.Hour })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 3 { // each waits for the one before
			if f := facts("/ws"); admitted(c, f) != nil || f.User != "ann" {
				t.Errorf("%q is let in", f.User)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("a client waits for the end of a yes")
	}
}

func admitted(c *Checker, f *policy.Facts) error {
	_, err := c.Admit(background(), f, nil)
	return err
}

// Servers that are no better than they should be.
func TestWhatEndpointsSayOnTheWire(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("X-Big: "+strings.Repeat("x", 1000)+"\r\n", 1000)
	for name, test := range map[string]struct {
		answer string // and the connection is closed
		user   string // "": it is not let in
		status int
		text   string
	}{
		"HTTP/1.0":                       {"HTTP/1.0 200 OK\r\nX-User: ann\r\n\r\nwelcome", "ann", 0, ""},
		"HTTP/1.0 that refuses":          {"HTTP/1.0 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nno", "", 403, "answered 403"},
		"a yes that breaks off":          {"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 100\r\n\r\nhalf", "ann", 0, ""},
		"a chunk that breaks off":        {"HTTP/1.1 200 OK\r\nX-User: ann\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\nhalf", "ann", 0, ""},
		"a no that breaks off":           {"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\n<p>half", "", 403, "answered 403"},
		"headers that break off":         {"HTTP/1.1 200 OK\r\nX-User: ann\r\nX-Us", "", 502, "cannot be asked"},
		"a header that breaks off":       {"HTTP/1.1 200 OK\r\nX-User: ann\r\n", "", 502, "cannot be asked"},
		"1 MB of headers":                {"HTTP/1.1 200 OK\r\nX-User: ann\r\n" + big + "\r\n", "", 502, "cannot be asked"},
		"1 MB of headers before others":  {"HTTP/1.1 103 Early Hints\r\n" + big + "\r\nHTTP/1.1 200 OK\r\nX-User: ann\r\n\r\n", "", 502, "cannot be asked"},
		"hints before it decides":        {"HTTP/1.1 103 Early Hints\r\nX-User: eve\r\n\r\nHTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n", "ann", 0, ""},
		"another protocol":               {"SSH-2.0-OpenSSH\r\n", "", 502, "cannot be asked"},
		"HTTP/0.9":                       {"<html>welcome</html>", "", 502, "cannot be asked"},
		"a switch of protocols":          {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\nX-User: ann\r\n\r\n", "", 502, "neither yes nor no"},
		"two lengths":                    {"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "", 502, "cannot be asked"},
		"a name with a line break in it": {"HTTP/1.1 200 OK\r\nX-User: ann\r\n boss\r\nContent-Length: 0\r\n\r\n", "ann boss", 0, ""}, // RFC 9112, section 5.2
		"nothing":                        {"", "", 502, "cannot be asked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := asking(t, speaker(t, test.answer), func(o *Forward) { o.Timeout = patience })
			for range 2 { // the second finds what the first has left
				f := facts("/ws", "Connection: Upgrade")
				if test.user == "" {
					reason := reasonEndpoint
					if test.status < 500 {
						reason = reasonRefused
					}
					if d := refuse(t, c, f, nil, reason, test.text); d.Status != test.status || strings.Contains(string(d.Body), "half") {
						t.Errorf("answered %d %q", d.Status, d.Body)
					}
					continue
				}
				if admit(t, c, f); f.User != test.user {
					t.Errorf("user %q", f.User)
				}
			}
		})
	}
}

// speaker gives the URL of a server that says the same to all requests, whatever they are, and hangs up.
func speaker(t *testing.T, answer string) string {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, answer)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// Over HTTP/2, headers have the same bound.
func TestHeadersOverHTTP2AreBounded(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("asked by %s", r.Proto)
		}
		yes(w, r)
		for i := 0; r.URL.Path == "/big" && i < 1000; i++ {
			w.Header().Set(fmt.Sprint("X-Big-", i), strings.Repeat("x", 1000))
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := write(t, "ca.pem", certificatePEM(s.Certificate().Raw))
	trusting := func(o *Forward) { o.CA = ca }
	admit(t, asking(t, s.URL, trusting), facts("/ws"))
	refuse(t, asking(t, s.URL+"/big", trusting), facts("/ws"), nil, reasonEndpoint, "cannot be asked")
}

func certificatePEM(raw []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
}

// The file of authorities is read again when it changes.
func TestAuthoritiesAreReadAgain(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(yes))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.StartTLS()
	t.Cleanup(s.Close)
	right, wrong := certificatePEM(s.Certificate().Raw), certificatePEM(selfSignedBy(edKey()))
	log := new(book)
	f := DefaultForward()
	f.URL, f.CA, f.User = s.URL, write(t, "ca.pem", wrong), "X-User"
	set := must(NewSet(map[string]Options{"id": {Forward: &f}}, nil, Setup{Log: log.logger()}))
	t.Cleanup(func() { set.Release(nil) })
	c := must(set.Checker(Use{Any: []string{"id"}}, nil))
	replace := func(content, logged string) {
		t.Helper()
		if err := os.WriteFile(f.CA+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(f.CA+".new", f.CA); err != nil {
			t.Fatal(err)
		}
		log.waitFor(t, logged)
		log.empty()
	}
	refuse(t, c, facts("/ws"), nil, reasonEndpoint, "unknown authority")
	replace(right, "authorities read again")
	admit(t, c, facts("/ws"))
	replace("no certificate", "the old ones stay")
	admit(t, c, facts("/ws"))
	replace(wrong, "authorities read again") // the connection that is there counts no more
	refuse(t, c, facts("/ws"), nil, reasonEndpoint, "unknown authority")
}

func TestQuestionsAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	o := newOracle(t, func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		for before := most.Load(); n > before && !most.CompareAndSwap(before, n); before = most.Load() {
		}
		timer := time.NewTimer(time.Millisecond)
		<-timer.C
		now.Add(-1)
	})
	c := asking(t, o.URL, func(o *Forward) { o.InFlight, o.Timeout = 3, patience })
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := c.Admit(t.Context(), facts("/ws"), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 || o.asked.Load() != 50 {
		t.Errorf("%d questions at once of %d", most.Load(), o.asked.Load())
	}
	// One that finds no place in time is told so.
	hang := newOracle(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c = asking(t, hang.URL, func(o *Forward) { o.InFlight, o.Timeout = 1, 200*time.Millisecond })
	for range 2 {
		wg.Go(func() {
			if _, err := c.Admit(t.Context(), facts("/ws"), nil); err == nil {
				t.Error("let in by an endpoint that says nothing")
			}
		})
	}
	wg.Wait()
}

func TestAYesIsRememberedForTheSameQuestionAlone(t *testing.T) {
	t.Parallel()
	o := newOracle(t, yes)
	c := asking(t, o.URL, func(o *Forward) { o.Cache = 5 * time.Minute })
	for range 5 {
		f := facts("/ws?a=1", "Cookie: session=1")
		if id := admit(t, c, f); f.User != "ann" || f.Request.Header.Get("X-User") != "ann" || len(id.Cookies) != 1 {
			t.Errorf("%q %v", f.User, f.Request.Header)
		}
	}
	if o.asked.Load() != 1 {
		t.Errorf("asked %d times, want 1", o.asked.Load())
	}
	other := facts("/ws?a=1", "Cookie: session=1")
	other.Client = other.Client.Next()
	secure := facts("/ws?a=1", "Cookie: session=1")
	secure.TLS = true
	for i, f := range []func() *Identity{
		func() *Identity { return admit(t, c, facts("/ws?a=2", "Cookie: session=1")) },
		func() *Identity { return admit(t, c, facts("/ws?a=1", "Cookie: session=2")) },
		func() *Identity { return admit(t, c, facts("/ws?a=1", "Cookie: session=1", "Authorization: x")) },
		func() *Identity { return admit(t, c, facts("/ws?a=1", "Cookie: session=1", "Origin: https://x")) },
		func() *Identity { return admit(t, c, facts("http://other/ws?a=1", "Cookie: session=1")) },
		func() *Identity { return admit(t, c, other) },
		func() *Identity { return admit(t, c, secure) },
	} {
		f()
		if got := o.asked.Load(); got != int64(i+2) {
			t.Errorf("question %d: asked %d times, want %d", i, got, i+2)
		}
	}
	o.says(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	for range 2 { // a no is not remembered
		refuse(t, c, facts("/no"), nil, reasonRefused, "403")
	}
	if got := o.asked.Load(); got != 10 {
		t.Errorf("asked %d times, want 10", got)
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	t.Parallel()
	c, now := newCache(time.Minute), time.Now()
	for i := range mostCached * 2 {
		c.put([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, new(Identity), now)
	}
	if len(c.known) > mostCached {
		t.Errorf("%d are remembered", len(c.known))
	}
	sum := [32]byte{1, 2, 3, 4}
	c.put(sum, new(Identity), now)
	if c.get(sum, now.Add(59*time.Second)) == nil || c.get(sum, now.Add(time.Minute)) != nil {
		t.Error("what is remembered is not forgotten after a minute")
	}
	for i := range mostCached {
		c.put([32]byte{byte(i), byte(i >> 8), 1, 1}, new(Identity), now.Add(2*time.Minute))
	}
	if len(c.known) > mostCached {
		t.Errorf("%d are remembered", len(c.known))
	}
}

func TestAskingAgain(t *testing.T) {
	t.Parallel()
	o := newOracle(t, yes)
	c := asking(t, o.URL, func(o *Forward) { o.Recheck, o.Cache = time.Minute, time.Minute })
	begin := func() Recheck {
		id := admit(t, c, facts("/ws", "Cookie: session=1"))
		if len(id.Rechecks) != 1 || id.Rechecks[0].Every != time.Minute || id.Rechecks[0].Code != 4401 {
			t.Fatalf("%+v", id.Rechecks)
		}
		return id.Rechecks[0]
	}
	r := begin()
	before := o.asked.Load()
	if err := r.Ask(background()); err != nil || o.asked.Load() != before+1 || o.header().Get("Cookie") != "session=1" {
		t.Errorf("%v, asked %d times", err, o.asked.Load()-before)
	}
	o.says(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User", "bob") })
	if err := r.Ask(background()); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("of another user: %v", err)
	}
	o.says(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) })
	if err := begin().Ask(background()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("refused: %v", err)
	}
	o.says(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	r = begin()
	for i, want := range []bool{true, true, false} {
		if err := r.Ask(background()); (err == nil) != want {
			t.Errorf("miss %d: %v", i, err)
		}
	}
	r = begin()
	_, _ = r.Ask(background()), r.Ask(background())
	o.says(yes)
	_ = r.Ask(background()) // it has come back: the misses are forgotten
	o.says(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	if err := r.Ask(background()); err != nil {
		t.Errorf("one miss after a yes: %v", err)
	}
}

func TestAnEndpointThatIsReplaced(t *testing.T) {
	t.Parallel()
	asked := make(chan bool)
	o := newOracle(t, func(_ http.ResponseWriter, r *http.Request) { close(asked); <-r.Context().Done() })
	f := DefaultForward()
	f.URL, f.Timeout = o.URL, patience
	set := must(NewSet(map[string]Options{"id": {Forward: &f}}, nil, Setup{Log: new(book).logger()}))
	c := must(set.Checker(Use{Any: []string{"id"}}, nil))
	done := make(chan error)
	go func() {
		_, err := c.Admit(context.Background(), facts("/ws"), nil)
		done <- err
	}()
	<-asked
	set.Release(nil)
	if d, ok := errors.AsType[*Denied](<-done); !ok || d.Status != http.StatusServiceUnavailable {
		t.Errorf("%v", d)
	}
}
