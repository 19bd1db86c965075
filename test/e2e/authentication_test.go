package e2e

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const tokenSecret = "0123456789abcdef0123456789abcdef"

// signedToken is a token of the secret above.
func signedToken(t *testing.T, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	mac := hmac.New(sha256.New, []byte(tokenSecret))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// tokenFor is good for an hour.
func tokenFor(t *testing.T, user string, more map[string]any) string {
	t.Helper()
	claims := map[string]any{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(claims, more)
	return signedToken(t, claims)
}

// seen is what an upstream got of a handshake.
type seen struct {
	Query        string
	Header       http.Header
	Subprotocols []string
}

// mirror is an upstream that first says what it got, and then echoes.
func mirror(t *testing.T) string {
	t.Helper()
	return backend(t, func(conn *websocket.Conn, r *http.Request) {
		if conn.WriteJSON(seen{r.URL.RawQuery, r.Header, websocket.Subprotocols(r)}) == nil {
			echo(conn, r)
		}
	})
}

func mirrored(t *testing.T, conn *websocket.Conn) (s seen) {
	t.Helper()
	if err := json.Unmarshal([]byte(receive(t, conn)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

const byToken = `
authenticators:
  id:
    jwt: {secret: ` + tokenSecret + `, token: [header.authorization, cookie.session, query.token, subprotocol.bearer]}
    forward_claims: [tenant]
`

func TestATokenAtEachPlace(t *testing.T) {
	t.Parallel()
	e := start(t, byToken+`
routes:
  - name: r
    path: /*
    auth: id
    origins: [https://good.example, "*"]
    websocket: {to: "ws://`+mirror(t)+`", headers: {set: {X-User: "{user}", X-Tenant: "{claim.tenant}"}}}
`)
	token := tokenFor(t, "ann", map[string]any{"tenant": "acme"})
	good, foreign := http.Header{"Origin": {"https://good.example"}}, http.Header{"Origin": {"https://evil.example"}}
	cookie := func(h http.Header) http.Header {
		h = h.Clone()
		h.Set("Cookie", "a=1; session="+token)
		return h
	}
	for name, c := range map[string]struct {
		path         string
		header       http.Header
		subprotocols []string
		status       int // 0: let in
		chosen       string
	}{
		"header":              {"/?a=1", http.Header{"Authorization": {"Bearer " + token}}, nil, 0, ""},
		"query":               {"/?a=1&token=" + token, nil, nil, 0, ""},
		"subprotocol":         {"/?a=1", foreign, []string{"bearer", token, "chat"}, 0, "bearer"},
		"cookie":              {"/?a=1", cookie(good), nil, 0, ""},
		"foreign cookie":      {"/?a=1", cookie(foreign), nil, 401, ""},
		"cookie of no page":   {"/?a=1", cookie(http.Header{}), nil, 401, ""},
		"two that disagree":   {"/?token=x", http.Header{"Authorization": {"Bearer " + token}}, nil, 400, ""},
		"nothing":             {"/", nil, nil, 401, ""},
		"a name that is set":  {"/", http.Header{"X-User": {"ann"}}, nil, 401, ""},
		"a token of nobody":   {"/?token=" + token + "x", nil, nil, 401, ""},
		"an expired token":    {"/?token=" + signedToken(t, map[string]any{"sub": "ann", "exp": 1}), nil, nil, 401, ""},
		"a token without alg": {"/?token=e30.e30.", nil, nil, 401, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.status != 0 {
				resp := e.refused(c.path, c.header)
				if resp.StatusCode != c.status || c.status == 401 && resp.Header.Get("Www-Authenticate") == "" {
					t.Errorf("answered %s %v", resp.Status, resp.Header)
				}
				return
			}
			conn := e.dial(c.path, c.header, c.subprotocols...)
			got := mirrored(t, conn)
			all := got.Query + " " + strings.Join(got.Subprotocols, ",")
			for name, values := range got.Header {
				all += " " + name + strings.Join(values, ",")
			}
			if got.Header.Get("X-User") != "ann" || got.Header.Get("X-Tenant") != "acme" || conn.Subprotocol() != c.chosen {
				t.Errorf("subprotocol %q, upstream got %+v", conn.Subprotocol(), got)
			}
			if strings.Contains(all, token) || strings.Contains(all, "bearer") || got.Query != "a=1" || len(got.Subprotocols) != len(c.subprotocols)/3 {
				t.Errorf("the upstream got the token: %s", all)
			}
		})
	}
	e.await(func(line map[string]any) bool { return line["msg"] == "open" && line["user"] == "ann" })
	refused := e.await(func(line map[string]any) bool { return line["msg"] == "refused" && line["reason"] == "token expired" })
	if refused["error"] != "id: the token has expired" {
		t.Errorf("%v", refused)
	}
	_, metrics := e.get("/metrics")
	for _, want := range []string{`reason="no token"`, `reason="token invalid"`, `reason="token ambiguous"`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	_, list := e.get("/v1/connections")
	if !strings.Contains(list, `"tenant":"acme"`) {
		t.Errorf("the list of connections lacks the claim: %s", list)
	}
	log, err := json.Marshal(e.log())
	if err != nil {
		t.Fatal(err)
	}
	signature := token[strings.LastIndexByte(token, '.')+1:]
	for place, text := range map[string]string{"log": string(log), "metrics": metrics, "list": list} {
		if strings.Contains(text, signature) {
			t.Errorf("the token stands in the %s", place)
		}
	}
}

// What a client writes between the lines reaches neither the authenticators nor the backend.
func TestSmuggledHeaders(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	e := start(t, `
authenticators:
  id: {jwt: {secret: `+tokenSecret+`, token: [header.authorization, header.x-token, cookie.session, query.token, subprotocol.bearer]}}
routes:
  - name: r
    path: /*
    auth: id
    websocket: {to: "ws://`+backend(t, func(_ *websocket.Conn, r *http.Request) { got <- r.Header })+`", headers: {set: {X-User: "{user}"}}}
`)
	ann, bob := tokenFor(t, "ann", nil), tokenFor(t, "bob", nil)
	for name, c := range map[string]struct {
		path   string
		lines  []string
		status int // 101: let in, as ann
	}{
		"a name in lower case":               {"/", []string{"authorization: Bearer " + ann}, 101},
		"two spellings of a name":            {"/", []string{"Authorization: Bearer " + ann, "AUTHORIZATION: Bearer " + bob}, 400},
		"two in a line":                      {"/", []string{"Authorization: Bearer " + ann + ", Bearer " + bob}, 401},
		"a space before the colon":           {"/", []string{"Authorization : Bearer " + ann}, 400},
		"an underscore":                      {"/", []string{"X_Token: " + ann}, 401},
		"an underscore beside the real one":  {"/", []string{"X-Token: " + ann, "X_Token: " + bob, "x.token: " + bob}, 101},
		"two headers that disagree":          {"/", []string{"X-Token: " + ann, "Authorization: Bearer " + bob}, 400},
		"a header and the query":             {"/?token=" + bob, []string{"X-Token: " + ann}, 400},
		"the query twice":                    {"/?token=" + ann + "&t%6Fken=" + bob, nil, 400},
		"the query in another case":          {"/?Token=" + ann, nil, 401},
		"the query behind a semicolon":       {"/?a=1;token=" + ann, nil, 401},
		"a cookie twice":                     {"/", []string{"Origin: http://localhost", "Cookie: session=" + ann + "; session=" + bob}, 400},
		"two lines of cookies":               {"/", []string{"Origin: http://localhost", "Cookie: session=" + ann, "cookie: session=" + bob}, 400},
		"a cookie of no page beside a token": {"/", []string{"Cookie: session=" + bob, "X-Token: " + ann}, 101},
		"two lines of subprotocols":          {"/", []string{"Sec-WebSocket-Protocol: bearer, " + ann, "sec-websocket-protocol: bearer, " + bob}, 400},
		"the user's name":                    {"/", []string{"X-Token: " + ann, "X-User: eve", "x-user: eve"}, 101},
		"the user's name as CGI has it":      {"/", []string{"X-Token: " + ann, "X_User: eve", "x.user: eve", "x_USER: eve"}, 101},
		"the user's name for one hop":        {"/", []string{"X-Token: " + ann, "Connection: X-User, X-Token"}, 101},
		"two origins":                        {"/", []string{"X-Token: " + ann, "Origin: http://localhost", "origin: http://evil.example"}, 403},
		"two hosts":                          {"/", []string{"X-Token: " + ann, "host: evil.example"}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", e.addrs["ws"])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(conn, handshake(c.path, c.lines...))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status {
				t.Fatalf("answered %s, want %d", resp.Status, c.status)
			}
			if c.status != http.StatusSwitchingProtocols {
				return
			}
			var users []string
			for name, values := range <-got {
				if strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name)) == "x-user" {
					users = append(users, values...)
				}
				if all := name + strings.Join(values, " "); strings.Contains(all, ann) || strings.Contains(all, bob) {
					t.Errorf("the backend got a token in %s", name)
				}
			}
			if len(users) != 1 || users[0] != "ann" {
				t.Errorf("the backend is told of the users %q", users)
			}
		})
	}
}

func TestTheUserCountsForLimitsAndRequirements(t *testing.T) {
	t.Parallel()
	e := start(t, byToken+`
routes:
  - name: r
    path: /t/{tenant}
    auth: id
    require: {claim.tenant: "{tenant}"}
    limits: [{per: user, connections: 1}, {per: claim.tenant, connections: 2}]
    websocket: {to: "ws://`+backend(t, echo)+`"}
`)
	as := func(user string) http.Header {
		return http.Header{"Authorization": {"Bearer " + tokenFor(t, user, map[string]any{"tenant": "acme"})}}
	}
	first := e.dial("/t/acme", as("ann"))
	if resp := e.refused("/t/acme", as("ann")); resp.StatusCode != 429 {
		t.Errorf("ann again: %s", resp.Status)
	}
	if resp := e.refused("/t/globex", as("bob")); resp.StatusCode != 403 {
		t.Errorf("another tenant: %s", resp.Status)
	}
	e.dial("/t/acme", as("bob"))
	if resp := e.refused("/t/acme", as("cy")); resp.StatusCode != 429 {
		t.Errorf("a third of the tenant: %s", resp.Status)
	}
	hangUp(t, first, 1000, "")
	e.closedLine("r")
	e.dial("/t/acme", as("cy"))
}

func TestASocketEndsWithItsToken(t *testing.T) {
	t.Parallel()
	e := start(t, `
authenticators:
  id: {jwt: {secret: `+tokenSecret+`, leeway: off}}
  policy: {jwt: {secret: `+tokenSecret+`, leeway: off}, close_code: 1008}
  kept: {jwt: {secret: `+tokenSecret+`, leeway: off}, on_expiry: keep}
routes:
  - {name: ends, path: /ends, auth: id, websocket: {to: "ws://`+backend(t, echo)+`"}}
  - {name: policy, path: /policy, auth: policy, tcp: {to: "`+tcpBackend(t, copyBack)+`"}}
  - {name: kept, path: /kept, auth: kept, websocket: {to: "ws://`+backend(t, echo)+`"}}
`)
	until := time.Now().Add(10 * time.Second)
	soon := http.Header{"Authorization": {"Bearer " + signedToken(t, map[string]any{"sub": "ann", "exp": float64(until.UnixMilli()) / 1000})}}
	ends, policy, kept := e.dial("/ends", soon), e.dial("/policy", soon), e.dial("/kept", soon)
	for _, c := range []struct {
		conn *websocket.Conn
		code int
	}{{ends, 4401}, {policy, 1008}} {
		if code, reason := closeCode(t, c.conn); code != c.code || reason != "authentication expired" {
			t.Errorf("closed with %d %q, want %d", code, reason, c.code)
		}
	}
	if time.Now().Before(until.Add(-time.Second)) { // by another clock than that of the program's timers
		t.Error("they were closed before")
	}
	if line := e.closedLine("ends"); line["cause"] != "token expired" || line["by"] != "gateway" {
		t.Errorf("%v", line)
	}
	send(t, kept, "still here")
	if receive(t, kept) != "still here" {
		t.Error("the socket that is kept is not")
	}
	if resp := e.refused("/ends", soon); resp.StatusCode != 401 {
		t.Errorf("with the old token: %s", resp.Status)
	}
}

// An endpoint decides, is asked again, and ends the socket of a session that is over.
func TestASessionThatIsOver(t *testing.T) {
	t.Parallel()
	var over atomic.Bool
	endpoint := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case over.Load() || r.Header.Get("Cookie") == "":
			http.Redirect(w, r, "https://login.example/?back="+url.QueryEscape(r.Header.Get("X-Original-Url")), http.StatusFound)
		default:
			w.Header().Set("X-User", "ann")
			w.Header().Set("Set-Cookie", "session=2")
		}
	})
	e := start(t, `
authenticators: {sso: {forward: {url: "http://`+endpoint+`/auth", user: X-User, headers: X-User, recheck: 1s}}}
routes:
  - {name: r, host: localhost, path: /ws, auth: sso, origins: https://good.example, websocket: {to: "ws://`+mirror(t)+`"}}
`)
	header := http.Header{"Origin": {"https://good.example"}, "Cookie": {"session=1"}, "X-User": {"eve"}, "X_user": {"eve"}}
	dialer := e.anyHost()
	conn, resp, err := dialer.Dial("wss://localhost/ws", header)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := mirrored(t, conn); resp.Header.Get("Set-Cookie") != "session=2" || got.Header.Get("X-User") != "ann" || got.Header["X_user"] != nil {
		t.Errorf("the client got %v, the upstream %v", resp.Header, got.Header)
	}
	over.Store(true)
	if code, reason := closeCode(t, conn); code != 4401 || reason != "authentication withdrawn" {
		t.Errorf("closed with %d %q", code, reason)
	}
	_, resp, err = dialer.Dial("wss://localhost/ws", header)
	if err == nil || resp.StatusCode != 302 || resp.Header.Get("Location") != "https://login.example/?back="+url.QueryEscape("https://localhost/ws") {
		t.Errorf("%v, %+v", err, resp)
	}
}

// Requests beside the sockets, and files, are for those who may come in too.
func TestNothingOfARouteIsOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "page.html", "hello")
	app := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-User")+r.Header.Get("Authorization")+r.URL.RawQuery)
	})
	e := start(t, byToken+`
defaults: {auth: id}
routes:
  - {name: pages, path: "/pages/*", files: {dir: "`+filepath.ToSlash(dir)+`"}}
  - {name: open, path: "/open/*", auth: none, files: {dir: "`+filepath.ToSlash(dir)+`"}}
  - {name: app, path: "/*", websocket: {to: "ws://`+app+`", http: true, headers: {set: {X-User: "{user}"}}}}
`)
	get := func(path, method string, header http.Header) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+e.addrs["ws"]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(r.Header, header)
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	token := tokenFor(t, "ann", nil)
	bearer, session := http.Header{"Authorization": {"Bearer " + token}}, http.Header{"Cookie": {"session=" + token}}
	from := func(origin string) http.Header {
		return http.Header{"Cookie": {"session=" + token}, "Origin": {origin}}
	}
	own := "http://" + e.addrs["ws"]
	for _, c := range []struct {
		path, method string
		header       http.Header
		status       int
		body         string
	}{
		{"/pages/page.html", "GET", nil, 401, ""}, {"/pages/page.html", "GET", bearer, 200, "hello"}, {"/pages/page.html", "GET", session, 200, "hello"},
		{"/pages/page.html", "GET", from("https://evil.example"), 401, ""}, {"/pages/../pages/page.html", "GET", nil, 404, ""},
		{"/open/page.html", "GET", nil, 200, "hello"}, {"/open/page.html", "GET", http.Header{"Authorization": {"Bearer x"}}, 200, "hello"},
		{"/api", "GET", nil, 401, ""}, {"/api", "POST", nil, 401, ""}, {"/api?a=1", "GET", bearer, 200, "anna=1"}, {"/api?token=" + token + "&a=1", "POST", nil, 200, "anna=1"},
		{"/api", "GET", session, 200, "ann"}, {"/api", "POST", session, 401, ""}, {"/api", "POST", from(own), 200, "ann"}, {"/api", "POST", from("https://evil.example"), 403, ""},
	} {
		if status, body := get(c.path, c.method, c.header); status != c.status || c.status == 200 && body != c.body {
			t.Errorf("%s %s %v: %d %q, want %d %q", c.method, c.path, c.header, status, body, c.status, c.body)
		}
	}
}

func TestAReloadOfAuthenticatorsDrainsTheirRoutes(t *testing.T) {
	t.Parallel()
	routes := `
routes:
  - {name: r, path: /r, auth: id, websocket: {to: "ws://` + backend(t, echo) + `"}}
  - {name: other, path: /other, auth: keys, websocket: {to: "ws://` + backend(t, echo) + `"}}
`
	sum := sha256.Sum256([]byte("the-key"))
	keys := write(t, t.TempDir(), "keys.txt", "ci sha256:"+hex.EncodeToString(sum[:])+"\n")
	section := func(user string) string {
		return `
authenticators:
  id: {jwt: {secret: ` + tokenSecret + `, user: ` + user + `}}
  keys: {api_key: {file: "` + filepath.ToSlash(keys) + `"}}
`
	}
	e := start(t, section("sub")+routes)
	file := e.process.Args[3]
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	token := http.Header{"Authorization": {"Bearer " + tokenFor(t, "ann", map[string]any{"name": "Ann"})}}
	drains, stays := e.dial("/r", token), e.dial("/other", http.Header{"X-Api-Key": {"the-key"}})
	if err := os.WriteFile(file, bytes.Replace(was, []byte("user: sub"), []byte("user: name"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	status, diff := e.reload()
	if status != 200 {
		t.Fatalf("%d %v", status, diff)
	}
	wantClose(t, drains, 1012)
	send(t, stays, "still here")
	if receive(t, stays) != "still here" {
		t.Error("the socket of the other route is disturbed")
	}
	e.dial("/r", token)
	e.await(func(line map[string]any) bool { return line["msg"] == "open" && line["user"] == "Ann" })
	if err := os.WriteFile(file, bytes.Replace(was, []byte(keys), []byte(keys+".gone"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, diff := e.reload(); status != 422 {
		t.Errorf("a file that is not there: %d %v", status, diff)
	}
	send(t, stays, "and now")
	if receive(t, stays) != "and now" {
		t.Error("a reload that failed disturbs a socket")
	}
}

// endBy asks the API to end sockets.
func (e *edge) endBy(body string) (status int, answer string) {
	e.t.Helper()
	resp, err := http.Post("http://"+e.addrs["admin"]+"/v1/connections/close", "application/json", strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestEndsByTheAPI(t *testing.T) {
	t.Parallel()
	e := start(t, byToken+`
routes: [{name: r, path: "/*", auth: id, websocket: {to: "ws://`+backend(t, echo)+`"}}]
`)
	conns := map[string]*websocket.Conn{}
	for _, user := range []string{"ann", "bob", "cy", "di"} {
		conns[user] = e.dial("/", http.Header{"Authorization": {"Bearer " + tokenFor(t, user, map[string]any{"jti": "j-" + user})}})
	}
	for body, want := range map[string]int{
		`{}`: 400, `{"code": 4000}`: 400, `{"user": ""}`: 400, `{"address": "x"}`: 400, `{"user": "ann", "code": 1005}`: 400, `{"all": true}`: 400, `[]`: 400,
	} {
		if status, answer := e.endBy(body); status != want {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
	for _, c := range []struct {
		body    string
		matched int
		ended   []string
		code    int
	}{
		{`{"user": "nobody"}`, 0, nil, 0},
		{`{"user": "ann", "route": "other"}`, 0, nil, 0},
		{`{"address": "203.0.113.0/24"}`, 0, nil, 0},
		{`{"user": "ann", "route": "r", "code": 4401, "reason": "revoked"}`, 1, []string{"ann"}, 4401},
		{`{"jti": "j-bob"}`, 1, []string{"bob"}, 1000},
		{`{"subject": "cy", "address": "127.0.0.1"}`, 1, []string{"cy"}, 1000},
		{`{"address": "127.0.0.0/8", "code": 4000}`, 1, []string{"di"}, 4000},
	} {
		status, answer := e.endBy(c.body)
		var got struct{ Matched int }
		if err := json.Unmarshal([]byte(answer), &got); err != nil || status != 202 || got.Matched != c.matched {
			t.Fatalf("%s: %d %s", c.body, status, answer)
		}
		for _, user := range c.ended {
			wantClose(t, conns[user], c.code)
			e.await(func(line map[string]any) bool { return line["msg"] == "closed" && line["user"] == user })
		}
	}
}

// A client that has just been let in, and whose backend or endpoint takes its time, is ended as soon as its socket is open.
func TestAnEndReachesAHandshakeUnderWay(t *testing.T) {
	t.Parallel()
	came, goOn := make(chan string), make(chan struct{})
	hold := func(what string) {
		came <- what
		select {
		case <-goOn:
		case <-time.After(patience):
		}
	}
	endpoint := httpBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-User", "ann")
		hold("endpoint")
	})
	server := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			hold("server")
		}
		upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		echo(conn, r)
	})
	e := start(t, byToken+`
  sso: {forward: {url: "http://`+endpoint+`", user: X-User}}
routes:
  - {name: r, path: "/slow", auth: id, websocket: {to: "ws://`+server+`"}}
  - {name: asks, path: "/asks", auth: sso, websocket: {to: "ws://`+server+`"}}
`)
	token := http.Header{"Authorization": {"Bearer " + tokenFor(t, "ann", nil)}}
	bob := http.Header{"Authorization": {"Bearer " + tokenFor(t, "bob", nil)}}
	dialed := make(chan *websocket.Conn, 1)
	for path, header := range map[string]http.Header{"/slow": token, "/asks": nil, "/slow?bob": bob} {
		go func() {
			conn, _, err := e.dialer().Dial(e.url(path), header)
			if err != nil {
				t.Error(err)
			}
			dialed <- conn
		}()
		<-came
		if status, answer := e.endBy(`{"user": "ann", "code": 4403, "reason": "signed out"}`); status != 202 {
			t.Fatalf("%d %s", status, answer)
		}
		goOn <- struct{}{}
		conn := <-dialed
		if conn == nil {
			return
		}
		defer conn.Close()
		if header.Get("Authorization") == bob.Get("Authorization") {
			send(t, conn, "still here")
			if receive(t, conn) != "still here" {
				t.Error("another user's socket is not there")
			}
			continue
		}
		if code, reason := closeCode(t, conn); code != 4403 || reason != "signed out" {
			t.Errorf("%s: closed with %d %q", path, code, reason)
		}
	}
}

func TestWhoIsExplained(t *testing.T) {
	t.Parallel()
	e := start(t, byToken+`  sso: {forward: {url: "http://127.0.0.1:1/auth"}}
  links: {signed_url: {secret: `+tokenSecret+`}}
routes:
  - {name: r, path: "/r/{tenant}", auth: {any: [id, links]}, require: {claim.tenant: "{tenant}"}, limits: [{per: user, connections: 3}, {per: query.token, connections: 9}], websocket: {to: "ws://127.0.0.1:1"}}
  - {name: sso, path: /sso, auth: sso, websocket: {to: "ws://127.0.0.1:1"}}
  - {name: open, path: /open, websocket: {to: "ws://127.0.0.1:1"}}
`)
	token := tokenFor(t, "ann", map[string]any{"tenant": "acme"})
	for _, c := range []struct {
		path   string
		args   []string
		status int
		texts  []string
	}{
		{"/r/acme", []string{"--token", token}, 101, []string{`user \"ann\" by the token in header.authorization`, "per user = ann: at most 3 open"}},
		{"/r/acme?token=" + token, nil, 101, []string{`user \"ann\" by the token in query.token`, "per query.token = ***"}},
		{"/r/globex", []string{"--token", token}, 403, []string{`claim.tenant is [\"acme\"], and the route requires [\"globex\"]`}},
		{"/r/acme", nil, 401, []string{"id: there is no token in header.authorization, cookie.session"}},
		{"/r/acme", []string{"-H", "Cookie:session=" + token, "--origin", "https://evil.example"}, 403, []string{"the cookie session does not count"}},
		{"/r/acme?token=" + token + "x", nil, 401, []string{"no key of ours has signed"}},
		{"/sso", nil, 101, []string{"it depends on what http://127.0.0.1:1/auth answers"}},
		{"/open", nil, 101, []string{"none: the route asks nobody who it is"}},
	} {
		told, got := e.explain(c.path, c.args...)
		if told.Status != c.status {
			t.Errorf("%s %q: %d, want %d: %s", c.path, c.args, told.Status, c.status, got.stdout)
		}
		for _, text := range c.texts {
			if !strings.Contains(got.stdout, text) {
				t.Errorf("%s %q lacks %q: %s", c.path, c.args, text, got.stdout)
			}
		}
		if signature := token[strings.LastIndexByte(token, '.')+1:]; strings.Contains(got.stdout+got.stderr, signature) {
			t.Errorf("%s %q shows the token: %s", c.path, c.args, got.stdout)
		}
	}
}

// Webhooks and streams are told who the client is.
func TestBackendsAreToldWhoItIs(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	hook := httpBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked <- string(body)
	})
	e := start(t, byToken+`
defaults: {auth: id}
routes:
  - {name: hook, path: /hook, webhook: {to: "http://`+hook+`/", forward_headers: [Authorization, Cookie]}}
  - {name: stream, path: /stream, tcp: {to: "`+tcpBackend(t, copyBack)+`", preamble: proxy-v2, message: binary}}
`)
	token := tokenFor(t, "ann", map[string]any{"tenant": "acme", "level": 5})
	e.dial("/hook?a=1&token="+token, nil)
	var envelope struct {
		Connection struct {
			User   string
			Claims map[string]any
		}
		Events []struct{ Query string }
	}
	body := <-asked
	if err := json.Unmarshal([]byte(body), &envelope); err != nil || envelope.Connection.User != "ann" || envelope.Connection.Claims["tenant"] != "acme" ||
		envelope.Events[0].Query != "a=1" || strings.Contains(body, token) {
		t.Errorf("%v: %s", err, body)
	}
	conn := e.dial("/stream", nil, "bearer", token)
	header := receive(t, conn)
	for _, want := range []string{"\xe1\x00\x03ann", "\xe2\x00\x11" + `{"tenant":"acme"}`} {
		if !strings.Contains(header, want) {
			t.Errorf("the header lacks %q: %q", want, header)
		}
	}
	if conn.Subprotocol() != "bearer" {
		t.Errorf("subprotocol %q", conn.Subprotocol())
	}
}

func TestPasswordsAndLinksByTheCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	made := command(t, dir, "auth", "key", "ci")
	lines := strings.Split(strings.TrimSpace(made.stdout), "\n")
	if made.code != 0 || len(lines) != 2 {
		t.Fatalf("%+v", made)
	}
	write(t, dir, "keys.txt", lines[1]+"\n")
	config := `
authenticators:
  keys: {api_key: {file: "` + filepath.ToSlash(filepath.Join(dir, "keys.txt")) + `"}}
  links: {signed_url: {secret: ` + tokenSecret + `}}
routes:
  - {name: r, path: "/*", auth: {any: [keys, links]}, websocket: {to: "ws://` + mirror(t) + `", headers: {set: {X-User: "{user}"}}}}
`
	e := start(t, config)
	if got := mirrored(t, e.dial("/", http.Header{"Authorization": {"Bearer " + lines[0]}})); got.Header.Get("X-User") != "ci" {
		t.Errorf("%+v", got)
	}
	made = command(t, dir, "auth", "sign", "-c", e.process.Args[3], "--user", "ann", "--for", "1h", e.url("/ws?room=5"))
	link, err := url.Parse(strings.TrimSpace(made.stdout))
	if err != nil || made.code != 0 {
		t.Fatalf("%+v %v", made, err)
	}
	if got := mirrored(t, e.dial(link.RequestURI(), nil)); got.Header.Get("X-User") != "ann" || got.Query != "room=5&user=ann" {
		t.Errorf("%+v", got)
	}
	if resp := e.refused(strings.Replace(link.RequestURI(), "room=5", "room=6", 1), nil); resp.StatusCode != 401 {
		t.Errorf("%s", resp.Status)
	}
	seconds, err := strconv.ParseInt(link.Query().Get("expires"), 10, 64)
	if left := time.Until(time.Unix(seconds, 0)); err != nil || left > time.Hour || left < 50*time.Minute {
		t.Errorf("good for %s, %v", left, err)
	}
}

// A provider signs tokens by keys that it changes all the time, and publishes those that are good.
type provider struct {
	every   int // tokens that one key signs
	overlap int // tokens of the next key until it is withdrawn
	fetches int // of the published keys
	rotated int // how often the key has changed

	mu   sync.Mutex     // guards all
	done sync.Cond      // that a token has been used
	keys []*providerKey // those that are published; the last one signs
}

type providerKey struct {
	id           string
	private      ed25519.PrivateKey
	issued, held int // tokens, and those of them that are not used yet
}

func newProvider(every, overlap int) *provider {
	p := &provider{every: every, overlap: overlap}
	p.done.L = &p.mu
	p.addLocked()
	return p
}

func (p *provider) addLocked() {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	p.keys = append(p.keys, &providerKey{id: fmt.Sprint("key-", p.rotated), private: private})
}

// token gives a token that is good until it is used: no key is withdrawn while there is a token of it that is not.
func (p *provider) token(t *testing.T) (text string, used func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.keys[len(p.keys)-1]
	for p.overlap == 0 && last.issued == p.every && last.held > 0 {
		p.done.Wait()
		last = p.keys[len(p.keys)-1]
	}
	if last.issued == p.every {
		p.rotated++
		if p.overlap == 0 {
			p.keys = nil
		}
		p.addLocked()
	}
	last = p.keys[len(p.keys)-1]
	last.issued++
	last.held++
	payload, err := json.Marshal(map[string]any{"sub": "ann", "aud": "chat", "exp": time.Now().Add(time.Hour).Unix()})
	if err != nil {
		t.Error(err)
	}
	text = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","kid":"`+last.id+`"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	text += "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(last.private, []byte(text)))
	return text, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		last.held--
		if first := p.keys[0]; len(p.keys) > 1 && first.held == 0 && p.keys[1].issued >= p.overlap {
			p.keys = p.keys[1:]
		}
		p.done.Broadcast()
	}
}

// ServeHTTP answers with the keys that are good now.
func (p *provider) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetches++
	var keys []string
	for _, k := range p.keys {
		public := base64.RawURLEncoding.EncodeToString(k.private.Public().(ed25519.PublicKey))
		keys = append(keys, `{"kty":"OKP","crv":"Ed25519","use":"sig","kid":"`+k.id+`","x":"`+public+`"}`)
	}
	_, _ = io.WriteString(w, `{"keys":[`+strings.Join(keys, ",")+`]}`)
}

// A provider changes its keys every few hundred handshakes: no client with a good token is refused, and the provider is hardly asked.
func TestKeysThatChangeUnderLoad(t *testing.T) {
	t.Parallel()
	for name, overlap := range map[string]int{"the old key is good for a while": 100, "the old key is withdrawn at once": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(200, overlap)
			e := start(t, `
authenticators: {id: {jwt: {jwks_url: "http://`+httpBackend(t, p.ServeHTTP)+`/keys", audience: chat}}}
routes: [{name: r, path: /*, auth: id, limits: [], websocket: {to: "ws://`+backend(t, echo)+`"}}]
`)
			var left atomic.Int64
			left.Store(1100)
			var clients sync.WaitGroup
			for range 16 {
				clients.Go(func() {
					for left.Add(-1) >= 0 && !t.Failed() {
						token, used := p.token(t)
						dialer := websocket.Dialer{HandshakeTimeout: 2 * patience}
						conn, resp, err := dialer.Dial("ws://"+e.addrs["ws"]+"/", http.Header{"Authorization": {"Bearer " + token}})
						used()
						if err != nil {
							t.Errorf("%v, answered %+v", err, resp)
							continue
						}
						conn.Close()
					}
				})
			}
			clients.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.rotated != 5 || p.fetches < p.rotated || p.fetches > 2*p.rotated+2 {
				t.Errorf("the keys changed %d times and were fetched %d times", p.rotated, p.fetches)
			}
		})
	}
}

// An endpoint that takes its time costs those who wait for it, and nobody else.
func TestOthersComeInWhileAnEndpointHangs(t *testing.T) {
	t.Parallel()
	asked, goOn := make(chan struct{}, 10), make(chan struct{})
	endpoint := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-goOn:
		case <-time.After(2 * patience):
			w.WriteHeader(http.StatusForbidden)
		}
	})
	to := backend(t, echo)
	e := start(t, byToken+`
  sso: {forward: {url: "http://`+endpoint+`", in_flight: 2, timeout: 1m}}
routes:
  - {name: sso, path: /sso, auth: sso, websocket: {to: "ws://`+to+`"}}
  - {name: id, path: /id, auth: id, websocket: {to: "ws://`+to+`"}}
  - {name: either, path: /either, auth: {any: [id, sso]}, websocket: {to: "ws://`+to+`"}}
  - {name: open, path: /open, websocket: {to: "ws://`+to+`"}}
`)
	waiting := make(chan error)
	for range 4 { // two ask, and two wait for their turn
		go func() {
			dialer := e.dialer()
			dialer.HandshakeTimeout = 2 * patience
			conn, _, err := dialer.Dial(e.url("/sso"), nil)
			if err == nil {
				conn.Close()
			}
			waiting <- err
		}()
	}
	<-asked
	<-asked
	token := http.Header{"Authorization": {"Bearer " + tokenFor(t, "ann", nil)}}
	for _, path := range []string{"/id", "/either", "/open"} {
		conn := e.dial(path, token)
		send(t, conn, "hello")
		if receive(t, conn) != "hello" {
			t.Errorf("%s is not there", path)
		}
	}
	select {
	case err := <-waiting:
		t.Errorf("one who waits was answered before the endpoint was: %v", err)
	case <-asked:
		t.Error("more than two questions are under way")
	default:
	}
	close(goOn)
	for range 4 {
		if err := <-waiting; err != nil {
			t.Errorf("one who has waited: %v", err)
		}
	}
}

// Who a client is may stand in the certificate that its listener asks for.
func TestACertificateSaysWhoComes(t *testing.T) {
	t.Parallel()
	dir := room(t)
	cert, key := makePair(t, 1, "device-5.example")
	write(t, dir, "devices.pem", string(cert))
	e := startIn(t, dir, modern(`
state: ./state
certificates: {internal: true}
listeners: [{name: wss, address: "127.0.0.1:0", client_ca: {files: devices.pem, optional: true}, tls: true}]
admin: {address: "127.0.0.1:0"}
authenticators: {devices: {mtls: {user: dns}}}
routes:
  - {name: files, host: localhost, path: /files/*, auth: devices, files: {dir: .}}
  - {name: r, host: localhost, auth: devices, websocket: {to: "ws://`+mirror(t)+`", headers: {set: {X-User: "{user}"}}}}
`))
	e.wantStatus(t, http.StatusUnauthorized, "wss://localhost/", nil)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	d := e.anyHost()
	d.TLSClientConfig.Certificates = []tls.Certificate{pair}
	conn, _, err := d.Dial("wss://localhost/", http.Header{"X-User": {"boss"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if users := mirrored(t, conn).Header["X-User"]; len(users) != 1 || users[0] != "device-5.example" {
		t.Errorf("the backend is told of %q", users)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: d.TLSClientConfig, DialContext: d.NetDialContext}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://localhost/files/devices.pem")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("a file: %s", resp.Status)
	}
}
