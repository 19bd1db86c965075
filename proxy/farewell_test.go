package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/ws"
)

// closing is a stage whose route tells refusals by a Close.
func closing(change func(*parts, *fakeBridge)) func(*parts, *fakeBridge) {
	return func(c *parts, b *fakeBridge) {
		c.Options.Refuse = byClose
		c.Farewell = policy.NewCapacity(100)
		if change != nil {
			change(c, b)
		}
	}
}

// A farewell is the client's end of a socket that was closed at once.
type farewell struct {
	*stage
	answer *http.Response
	close  ws.CloseFrame
	br     *bufio.Reader
	conn   net.Conn
	since  time.Time // before it was asked for
}

// dismissed asks for a socket that has to be opened and closed, and checks that nobody but the listener has it meanwhile.
func (s *stage) dismissed(lines ...string) *farewell {
	s.t.Helper()
	f := &farewell{stage: s, since: time.Now()}
	f.answer, f.br, f.conn = s.ask(lines...)
	if f.answer.StatusCode != http.StatusSwitchingProtocols || f.answer.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		s.t.Fatalf("answered %s %v", f.answer.Status, f.answer.Header)
	}
	var head [2]byte
	if _, err := io.ReadFull(f.br, head[:]); err != nil || head[0] != 0x88 || head[1] > ws.MaxControlPayload {
		s.t.Fatalf("no Close follows, but % x, %v", head, err)
	}
	payload := make([]byte, head[1])
	if _, err := io.ReadFull(f.br, payload); err != nil {
		s.t.Fatal(err)
	}
	var err error
	if f.close.Code, f.close.Reason, err = ws.ParseClose(payload); err != nil {
		s.t.Fatal(err)
	}
	s.isFree()
	return f
}

// end answers the Close, and wants the connection to end in good order and nothing to stay behind.
func (f *farewell) end() {
	f.t.Helper()
	_, err := f.conn.Write(ws.AppendCloseFrame(nil, f.close.Code, f.close.Reason, true))
	if err == nil {
		_, err = f.br.ReadByte()
	}
	if err != io.EOF && time.Since(f.since) < courtesy { // a machine may be too slow to be waited for
		f.t.Errorf("the connection ended with %v", err)
	}
	f.conn.Close()
	f.leaves()
}

// leaves waits until nobody is told anything any more.
func (s *stage) leaves() {
	s.t.Helper()
	until(s.t, func() bool { return s.proxy.Farewell.Len() == 0 })
	s.isFree()
}

// until waits for something that has to become so.
func until(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); {
		if time.Now().After(deadline) {
			t.Fatal("it never came to be")
		}
		pause := time.NewTimer(time.Millisecond)
		<-pause.C
	}
}

// Each refusal has its code and a reason that says no more than the code; it is counted and logged as ever, and keeps nothing.
func TestRefusalsByAClose(t *testing.T) {
	t.Parallel()
	bridge := func(status int, header http.Header) func(*parts, *fakeBridge) {
		return failing(fmt.Errorf("x: %w", &Refusal{Status: status, Reason: "upstream", Header: header, Body: []byte("secret")}))
	}
	again := func(s *stage) { // the first attempt passes
		c, _, _ := s.accepted()
		c.End(ws.Cause{Kind: ws.Kicked})
		await(s.t, c.Done())
		s.bridge.opened.Store(0)
	}
	denied := func(status int) func(*parts, *fakeBridge) {
		return func(c *parts, _ *fakeBridge) {
			c.Auth = askedBy(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://login.example/")
				w.WriteHeader(status)
			})
		}
	}
	for _, c := range []struct {
		name    string
		change  func(*parts, *fakeBridge)
		prepare func(*stage)
		line    string // of the handshake
		code    ws.Code
		text    string
		reason  string // for the metrics
		asked   int64  // how often the bridge was
	}{
		{"a page of another host", nil, nil, "Origin:https://evil.example", 4403, "not allowed", "origin", 0},
		{"no page where one is needed", func(c *parts, _ *fakeBridge) { c.Options.RequireOrigin = true }, nil, "", 4403, "not allowed", "origin", 0},
		{"too many attempts", func(c *parts, _ *fakeBridge) {
			c.Options.Limits = []policy.Rule{{Per: []string{"client.ip"}, ConnectRate: unit.Rate{Rate: 1. / 90, Burst: 1}}}
		}, again, "", 4429, "too many connections, retry in 90 s", "limit", 0},
		{"the route is full", func(c *parts, _ *fakeBridge) { c.Options.MaxConnections = 1 },
			(*stage).hold, "", 1013, "not available now, retry in 5 s", "capacity", 0},
		{"the program ends", func(c *parts, _ *fakeBridge) { drain(c.Hub) }, nil, "", 1013, "not available now, retry in 5 s", "draining", 0},
		{"the endpoint says no", denied(401), nil, "", 4401, "authentication needed", "authentication refused", 0},
		{"the endpoint leads to a login", denied(302), nil, "", 4401, "authentication needed", "authentication refused", 0},
		{"the endpoint finds the request bad", denied(400), nil, "", 4401, "authentication needed", "authentication refused", 0},
		{"the endpoint knows the client", denied(403), nil, "", 4403, "not allowed", "authentication refused", 0},
		{"the endpoint counts", denied(429), nil, "", 4429, "too many connections", "authentication refused", 0},
		{"the endpoint is broken", denied(500), nil, "", 1013, "not available now", "authentication endpoint", 0},
		{"the backend is dead", failing(errors.New("10.0.0.7:9000: refused")), nil, "", 1013, "not available now", "backend", 1},
		{"the backend is slow", failing(context.DeadlineExceeded), nil, "", 1013, "not available now", "backend timeout", 1},
		{"the backend asks who", bridge(401, nil), nil, "", 4401, "authentication needed", "upstream", 1},
		{"the backend leads elsewhere", bridge(307, nil), nil, "", 4401, "authentication needed", "upstream", 1},
		{"the backend finds the request bad", bridge(400, nil), nil, "", 4400, "bad request", "upstream", 1},
		{"the backend finds nothing", bridge(404, nil), nil, "", 4404, "not found", "upstream", 1},
		{"the backend says what nobody knows", bridge(455, nil), nil, "", 4455, "refused", "upstream", 1},
		{"the backend counts", bridge(429, http.Header{"Retry-After": {"7"}}), nil, "", 4429, "too many connections, retry in 7 s", "upstream", 1},
		{"the backend is broken", bridge(500, nil), nil, "", 1011, "internal error", "upstream", 1},
		{"the backend is full until a date", bridge(503, http.Header{"Retry-After": {"Wed, 21 Oct 2037 07:28:00 GMT"}}), nil, "",
			1013, "not available now", "upstream", 1},
		{"the backend tells more than a time", bridge(503, http.Header{"Retry-After": {"7 (db-3 is down)"}}), nil, "",
			1013, "not available now", "upstream", 1},
		{"the bridge panics", func(_ *parts, b *fakeBridge) { b.open = func(context.Context, *Handshake) error { panic("oh no") } },
			nil, "", 1011, "internal error", "internal", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, closing(c.change))
			if c.prepare != nil {
				c.prepare(s)
			}
			f := s.dismissed(strings.Fields(c.line)...)
			if (f.close != ws.CloseFrame{Code: c.code, Reason: c.text}) {
				t.Errorf("closed with %d %q", f.close.Code, f.close.Reason)
			}
			for name := range f.answer.Header {
				if !slices.Contains([]string{"Upgrade", "Connection", "Sec-Websocket-Accept"}, name) {
					t.Errorf("the 101 has %s: %q", name, f.answer.Header[name])
				}
			}
			f.end()
			if line := s.log.line(t, "refused"); line["reason"] != c.reason || line["code"] != float64(c.code) || line["status"] == 101. {
				t.Errorf("logged as %v", line)
			}
			if asked := s.bridge.opened.Load(); asked != c.asked {
				t.Errorf("the bridge was asked %d times, want %d", asked, c.asked)
			}
			open := 0
			if c.prepare != nil && c.reason == "limit" {
				open = 1
			}
			s.counted(`refusals_total{reason="`+c.reason+`",route="chat"} 1`, fmt.Sprintf(`refusals_closed_total{code="%d",route="chat"} 1`, c.code),
				`connections{route="chat"} 0`, fmt.Sprintf(`handshakes_total{outcome="accepted",route="chat"} %d`, open))
		})
	}
}

// What a Close cannot tell, or nobody would hear, is told by the status, and so is everything on a route that asks for no more.
func TestRefusalsThatStayAStatus(t *testing.T) {
	t.Parallel()
	asking := func(scheme string) func(*parts, *fakeBridge) {
		return failing(&Refusal{Status: 401, Reason: "upstream", Header: http.Header{"Www-Authenticate": {scheme}}})
	}
	for _, c := range []struct {
		name   string
		change func(*parts, *fakeBridge)
		lines  []string
		status int
	}{
		{"no handshake", nil, []string{"Sec-WebSocket-Version: 8"}, 400},
		{"two keys", nil, []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, 400},
		{"the client has left", failing(context.Canceled), nil, 499},
		{"a question for the browser", asking(`Basic realm="x"`), nil, 401},
		{"one of several questions", asking(`Bearer, NTLM`), nil, 401},
		{"status", func(c *parts, _ *fakeBridge) { c.Options.Refuse = byStatus }, []string{"Origin: https://evil.example"}, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, closing(c.change))
			if resp, _ := s.refused(c.lines...); resp.StatusCode != c.status {
				t.Errorf("answered %s", resp.Status)
			}
			if line := s.log.line(t, "refused"); line["code"] != nil {
				t.Errorf("logged as %v", line)
			}
		})
	}
	t.Run("a page", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, closing(nil))
		resp, err := http.Get(s.server.URL + "/chat")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUpgradeRequired {
			t.Errorf("answered %s", resp.Status)
		}
	})
	for name, c := range map[string]struct {
		scheme string
		lines  []string
	}{
		"a question for a script":       {`Bearer realm="basic or digest"`, nil},
		"an answer that was not enough": {`Basic realm="x"`, []string{"Authorization: Basic eDp5"}},
	} {
		t.Run("but "+name, func(t *testing.T) {
			t.Parallel()
			f := newStage(t, closing(asking(c.scheme))).dismissed(c.lines...)
			if f.close.Code != 4401 {
				t.Errorf("closed with %d", f.close.Code)
			}
			f.end()
		})
	}
}

// keyed is a checker of the key "good", which may stand among the subprotocols.
func keyed(t *testing.T, keeps bool) *auth.Checker {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys")
	const sum = "770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c" // of "good"
	if err := os.WriteFile(file, []byte("ann sha256:"+sum+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := auth.DefaultAPIKey()
	key.File, key.Token = file, []string{"header.x-api-key", "subprotocol.bearer"}
	o := auth.DefaultOptions()
	o.APIKey, o.ForwardToken = &key, keeps
	set, err := auth.NewSet(map[string]auth.Options{"keys": o}, nil, auth.Setup{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Release(nil) })
	c, err := set.Checker(auth.Use{Any: []string{"keys"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Browsers fail a socket before its Close if none of their subprotocols is chosen. What is chosen is never a token.
func TestTheSubprotocolOfARefusal(t *testing.T) {
	t.Parallel()
	foreign, dead := "Origin: https://evil.example", failing(errors.New("dead"))
	for _, c := range []struct {
		name    string
		auth    bool
		keeps   bool
		change  func(*parts, *fakeBridge)
		offered string
		line    string
		code    ws.Code
		chosen  string
	}{
		{"none is offered", false, false, nil, "", foreign, 4403, ""},
		{"the first", false, false, nil, "b.v1, a.v2", foreign, 4403, "b.v1"},
		{"no token is sought", false, false, nil, "bearer, good", foreign, 4403, "bearer"},
		{"before the token was read", true, false, nil, "bearer, good, chat", foreign, 4403, "bearer"},
		{"another before the token", true, false, nil, "chat, bearer, good", foreign, 4403, "bearer"},
		{"a wrong token", true, false, nil, "bearer, wrong", "", 4401, "bearer"},
		{"no token", true, false, nil, "chat", "", 4401, "chat"},
		{"two that differ", true, false, nil, "bearer, good", "X-Api-Key: other", 4401, "bearer"},
		{"two markers", true, false, nil, "bearer, good, bearer, other", "", 4401, "bearer"},
		{"a token that was taken out", true, false, dead, "bearer, good", "", 1013, "bearer"},
		{"a token that was not", true, true, dead, "bearer, good, chat", "", 1013, "bearer"},
		{"a token elsewhere", true, false, dead, "chat", "X-Api-Key: good", 1013, "chat"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, closing(func(p *parts, b *fakeBridge) {
				if c.auth {
					p.Auth = keyed(t, c.keeps)
				}
				if c.change != nil {
					c.change(p, b)
				}
			}))
			lines := []string{"Sec-WebSocket-Extensions: permessage-deflate"}
			for name, value := range map[string]string{"Sec-WebSocket-Protocol: ": c.offered, "": c.line} {
				if value != "" {
					lines = append(lines, name+value)
				}
			}
			f := s.dismissed(lines...)
			chosen := f.answer.Header["Sec-Websocket-Protocol"]
			if f.close.Code != c.code || strings.Join(chosen, ",") != c.chosen || len(chosen) > 1 || f.answer.Header["Sec-Websocket-Extensions"] != nil {
				t.Errorf("closed with %d, %v", f.close.Code, f.answer.Header)
			}
			f.end()
		})
	}
}

// A login that is to be begun may need its cookie.
func TestCookiesOfARefusal(t *testing.T) {
	t.Parallel()
	s := newStage(t, closing(func(c *parts, _ *fakeBridge) {
		c.Auth = askedBy(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Set-Cookie"] = []string{"state=1; HttpOnly", "old=; Max-Age=0"}
			w.Header().Set("Www-Authenticate", "Bearer")
			w.Header().Set("Location", "/login")
			http.Error(w, "who are you?", http.StatusUnauthorized)
		})
	}))
	f := s.dismissed()
	h := f.answer.Header
	if !slices.Equal(h["Set-Cookie"], []string{"state=1; HttpOnly", "old=; Max-Age=0"}) || h["Location"] != nil || h["Www-Authenticate"] != nil {
		t.Errorf("%v", h)
	}
	f.end()
}

// Beyond the bound the status tells it, and there is room again when a client has gone.
func TestFarewellsAreBounded(t *testing.T) {
	t.Parallel()
	s := newStage(t, closing(func(c *parts, _ *fakeBridge) { c.Farewell = policy.NewCapacity(1) }))
	const foreign = "Origin: https://evil.example"
	s.proxy.Farewell.Acquire() // as for another client
	if resp, _ := s.refused(foreign); resp.StatusCode != http.StatusForbidden {
		t.Errorf("answered %s", resp.Status)
	}
	s.proxy.Farewell.Release()
	for range 3 {
		s.dismissed(foreign).end()
	}
	s.counted(`refusals_total{reason="origin",route="chat"} 4`, `refusals_closed_total{code="4403",route="chat"} 3`)
}

// Whoever does not answer is left, and so is whoever vanishes, sends no frames, or far too much.
func TestFarewellsEnd(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(f *farewell){
		"silent":   func(f *farewell) { f.br.ReadByte() },
		"vanished": func(f *farewell) { f.conn.(*net.TCPConn).SetLinger(0); f.conn.Close() },
		"gone":     func(f *farewell) { f.conn.Close() },
		"no frame": func(f *farewell) { io.WriteString(f.conn, "GET / HTTP/1.1\r\n\r\n") },
		"too much": func(f *farewell) {
			message := ws.AppendFrame(nil, ws.Binary, make([]byte, 1<<20), true)
			for _, err := f.conn.Write(message); err == nil; {
				_, err = f.conn.Write(message)
			}
		},
		"a message first": func(f *farewell) {
			f.conn.Write(ws.AppendFrame(nil, ws.Text, make([]byte, 100_000), true))
			f.end()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newStage(t, closing(nil)).dismissed("Origin: https://evil.example")
			f.t = t
			act(f)
			f.leaves()
		})
	}
}

// What a client sends with its handshake is not read as another request.
func TestFramesBehindARefusedHandshake(t *testing.T) {
	t.Parallel()
	s := newStage(t, closing(nil))
	conn := s.dial()
	frames := ws.AppendCloseFrame(ws.AppendFrame(nil, ws.Text, []byte("GET / HTTP/1.1\r\n\r\n"), true), 1000, "", true)
	io.WriteString(conn, handshake("Origin: https://evil.example")+string(frames))
	answer, err := io.ReadAll(conn)
	if text := string(answer); err != nil || strings.Count(text, "HTTP/1.1") != 1 || !strings.HasSuffix(text, "\x11\x33not allowed") {
		t.Errorf("%q, %v", answer, err)
	}
	s.leaves()
}

// A drain waits for those who are being told.
func TestADrainWaitsForFarewells(t *testing.T) {
	t.Parallel()
	s := newStage(t, closing(nil))
	s.dismissed("Origin: https://evil.example") // and says nothing
	s.drain()
	if n := s.proxy.Farewell.Len(); n > 0 {
		t.Errorf("%d are left", n)
	}
}

func TestAWriterThatHidesItsConnection(t *testing.T) {
	t.Parallel()
	s := newStage(t, closing(nil))
	w := httptest.NewRecorder()
	s.proxy.ServeHTTP(w, foreignHandshake())
	if w.Code != http.StatusInternalServerError {
		t.Errorf("answered %d", w.Code)
	}
	s.leaves()
}

// foreignHandshake is that of a page which may not open a socket.
func foreignHandshake() *http.Request {
	r := httptest.NewRequest("GET", "/chat", nil)
	for name, value := range map[string]string{
		"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		"Origin": "https://evil.example",
	} {
		r.Header.Set(name, value)
	}
	return r
}

// New terms count for the next handshake.
func TestRefuseFollowsTheTerms(t *testing.T) {
	t.Parallel()
	s := newStage(t, closing(nil))
	const foreign = "Origin: https://evil.example"
	s.dismissed(foreign).end()
	next := s.proxy.terms.Load().Terms
	next.Options.Refuse = byStatus
	prepared, err := s.proxy.Prepare(next)
	if err != nil {
		t.Fatal(err)
	}
	s.proxy.Apply(prepared)
	if resp, _ := s.refused(foreign); resp.StatusCode != http.StatusForbidden {
		t.Errorf("answered %s", resp.Status)
	}
}

// An explanation says what the client would read.
func TestExplainedFarewells(t *testing.T) {
	t.Parallel()
	s := newStage(t, closing(nil))
	r := foreignHandshake()
	told := func() (all []string) {
		for _, v := range s.proxy.Explain(r) {
			if v.Refusal != nil {
				all = append(all, fmt.Sprint(v.Subject, " ", v.Refusal.Status, " ", v.Close))
			}
		}
		return all
	}
	if got := told(); !slices.Equal(got, []string{"origin 403 &{4403 not allowed}"}) {
		t.Errorf("%q", got)
	}
	r.Header.Del("Sec-WebSocket-Key")
	if got := told(); !slices.Equal(got, []string{"handshake 400 <nil>", "origin 403 &{4403 not allowed}"}) {
		t.Errorf("%q", got)
	}
}
