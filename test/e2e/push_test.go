package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
)

// pushers are the tokens of the applications, by the role that each has.
const pushers = `
push:
  address: "127.0.0.1:0"
  tokens:
    - {name: pusher, token: may-push, may: push}
    - {name: reader, token: may-read, may: read}
    - {name: closer, token: may-close, may: close}
    - {name: both, token: may-both, may: [push, read]}
`

// greet lets everybody in as ann, remembers the room, and answers messages.
func greet(e told) decision {
	switch {
	case e.Type == "connect":
		return decision{
			header: http.Header{},
			body: map[string]any{
				"accept": map[string]any{
					"user": "ann", "subprotocol": "chat.v1", "state": map[string]int{"count": 0},
					"headers": map[string]string{"Set-Cookie": "seen=1", "X-App": "here", "Connection": "close"},
				},
				"actions": []any{map[string]any{"send": map[string]any{"text": "welcome"}}},
			},
		}
	case e.Type == "message" && e.Text != nil && *e.Text == "bye":
		return decision{body: map[string]any{"actions": []any{map[string]any{"close": map[string]any{"code": 4000, "reason": "as you wish"}}}}}
	case e.Type == "message" && e.Text != nil:
		return decision{body: "you said " + *e.Text}
	case e.Type == "message":
		return decision{body: map[string]any{
			"actions": []any{map[string]any{"send": map[string]any{"data_base64": e.Data}}},
			"state":   map[string]int{"count": len(e.Data)},
		}}
	}
	return decision{}
}

func TestAnApplication(t *testing.T) {
	t.Parallel()
	app := newApplication(t, greet)
	e := start(t, pushers+`
routes:
  - name: rooms
    path: /rooms/{room}
    origins: ["https://page.example"]
    webhook: {to: "http://`+app.addr+`/hook?room={room}", secret: `+secrets()+`, forward_headers: [Cookie, x-lang]}
`)
	conn := e.dial("/rooms/blue%20one?a=1&b=%20", http.Header{
		"Origin": {"https://page.example"}, "Cookie": {"sid=7"}, "X-Lang": {"de"}, "X-Secret": {"no"},
	}, "chat.v2", "chat.v1")
	if conn.Subprotocol() != "chat.v1" {
		t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	hears(t, conn, "welcome")
	send(t, conn, "hello")
	hears(t, conn, "you said hello")
	if err := conn.WriteMessage(websocket.BinaryMessage, []byte{0, 0xff}); err != nil {
		t.Fatal(err)
	}
	if kind, data, err := conn.ReadMessage(); err != nil || kind != websocket.BinaryMessage || string(data) != "\x00\xff" {
		t.Errorf("the bytes came back as %q of type %d, %v", data, kind, err)
	}
	send(t, conn, "bye")
	if code, reason := closeCode(t, conn); code != 4000 || reason != "as you wish" {
		t.Errorf("closed with %d %q", code, reason)
	}

	connect, end := app.await("connect", 1), app.await("close", 1)
	if connect.Route != "rooms" || connect.URI != "/hook?room=blue+one" || connect.Method != "GET" || connect.Path != "/rooms/blue%20one" ||
		connect.Query != "a=1&b=%20" || connect.Origin != "https://page.example" || !connect.TLS ||
		fmt.Sprint(connect.Subprotocols) != "[chat.v2 chat.v1]" || fmt.Sprint(connect.Headers) != "map[cookie:sid=7 x-lang:de]" {
		t.Errorf("connect: %+v", connect)
	}
	c := connect.Connection
	if !strings.HasPrefix(c.ID, "c_") || c.RemoteIP != "127.0.0.1" || c.ConnectedAt.IsZero() || c.PushURL != "http://"+e.addr("push") {
		t.Errorf("connection: %+v", c)
	}
	if first := app.await("message", 1).Connection; first.User != "ann" || first.Subprotocol != "chat.v1" || string(first.State) != `{"count":0}` {
		t.Errorf("with a message came the connection %+v", first)
	}
	if string(end.Connection.State) != `{"count":2}` {
		t.Errorf("the state at the end is %s", end.Connection.State)
	}
	wantEnd(t, end, told{Code: 4000, Reason: "as you wish", Initiator: "backend", Clean: true, MessagesIn: 3, BytesIn: 5 + 2 + 3,
		MessagesOut: 3, BytesOut: int64(len("welcome") + len("you said hello") + 2)})
	if err := subset(e.closedLine("rooms"), map[string]any{"user": "ann", "cause": "backend closed", "by": "backend", "code": 4000}); err != nil {
		t.Error(err)
	}
	if err := e.terminate(); err != nil { // which waits until the application was told
		t.Errorf("exit: %v", err)
	}
	if n := len(app.heard("close")); n != 1 {
		t.Errorf("the application heard %d times of the end", n)
	}
}

// wantEnd compares what a close event says of the socket.
func wantEnd(t *testing.T, got, want told) {
	t.Helper()
	brief := func(e told) string {
		return fmt.Sprintf("code %d %q by %s, clean %v, in %d (%d bytes), out %d (%d bytes)",
			e.Code, e.Reason, e.Initiator, e.Clean, e.MessagesIn, e.BytesIn, e.MessagesOut, e.BytesOut)
	}
	if brief(got) != brief(want) || got.DurationMS < 0 || got.DurationMS > patience.Milliseconds() {
		t.Errorf("the close event says %s, want %s", brief(got), brief(want))
	}
}

func TestHowSocketsOfAnApplicationEnd(t *testing.T) {
	t.Parallel()
	app := newApplication(t, nil)
	e := start(t, pushers+`
routes: [{name: r, socket: {message_size: 1KiB}, webhook: {to: "http://`+app.addr+`/", secret: `+secrets()+`}}]
`)
	for i, c := range []struct {
		name string
		end  func(*websocket.Conn)
		want told
	}{
		{"client closes", func(conn *websocket.Conn) { hangUp(t, conn, 4321, "enough") },
			told{Code: 4321, Reason: "enough", Initiator: "client", Clean: true}},
		{"client closes without a code", func(conn *websocket.Conn) {
			conn.WriteMessage(websocket.CloseMessage, nil)
			wantClose(t, conn, 1005)
		}, told{Code: 1005, Initiator: "client", Clean: true}},
		{"client vanishes", func(conn *websocket.Conn) {
			vanish(conn.NetConn())
		}, told{Code: 1006, Reason: "client gone", Initiator: "client"}},
		{"client says too much", func(conn *websocket.Conn) {
			send(t, conn, strings.Repeat("x", 2000))
			wantClose(t, conn, 1009)
		}, told{Code: 1009, Reason: "message too big", Initiator: "limit", Clean: true}},
		{"API closes", func(conn *websocket.Conn) {
			send(t, conn, "in")
			app.await("message", 1)
			id := app.heard("connect")[4].Connection.ID
			call(t, "DELETE", "http://"+e.addr("push")+"/v1/connections/"+id+"?code=4009&reason=away+with+you", "may-close", "")
			wantClose(t, conn, 4009)
		}, told{Code: 4009, Reason: "away with you", Initiator: "gateway", Clean: true, MessagesIn: 1, BytesIn: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := e.dial("/", nil)
			c.end(conn)
			wantEnd(t, app.await("close", i+1), c.want)
		})
	}
}

func TestAnApplicationsRefusalReachesTheClient(t *testing.T) {
	t.Parallel()
	app := newApplication(t, func(e told) decision {
		status := http.StatusForbidden
		if _, err := fmt.Sscanf(e.Query, "status=%d", &status); err != nil {
			return decision{}
		}
		return decision{status: status, body: "because of " + e.Query,
			header: http.Header{"Www-Authenticate": {`Basic realm="x"`}, "Retry-After": {"7"}, "X-Internal": {"db1"}}}
	})
	hook := `webhook: {to: "http://` + app.addr + `/", secret: ` + secrets()
	e := start(t, `
routes:
  - {name: frank, path: /frank, `+hook+`, refusal_body: true}}
  - {name: curt, path: /curt, `+hook+`}}
`)
	for _, c := range []struct {
		path         string
		asked, given int
		body         string // its beginning
	}{
		{"/frank", 401, 401, "because of status=401"},
		{"/frank", 403, 403, "because of status=403"},
		{"/frank", 429, 429, "because of status=429"},
		{"/curt", 403, 403, ""},
		{"/frank", 302, 502, "the backend"},
		{"/frank", 500, 502, "the backend"},
		{"/curt", 503, 502, "the backend"},
	} {
		resp := e.refused(fmt.Sprintf("%s?status=%d", c.path, c.asked), nil)
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != c.given || !strings.HasPrefix(string(body), c.body) || c.path == "/curt" && strings.Contains(string(body), "because") {
			t.Errorf("%s answered %d reaches the client as %s %q, want %d %q", c.path, c.asked, resp.Status, body, c.given, c.body)
		}
		if resp.Header.Get("X-Internal") != "" || c.asked == 401 && resp.Header.Get("Www-Authenticate") == "" ||
			c.asked == 429 && resp.Header.Get("Retry-After") != "7" {
			t.Errorf("%s answered %d: the client gets %v", c.path, c.asked, resp.Header)
		}
	}
	hangUp(t, e.dial("/frank", nil), 1000, "")
	if err := e.terminate(); err != nil { // which waits until the application was told
		t.Errorf("exit: %v", err)
	}
	if n := len(app.heard("close")); n != 1 { // a client that was refused has no end
		t.Errorf("the application heard of %d ends, want that of the one who came in", n)
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	app := newApplication(t, greet)
	e := start(t, pushers+`
routes:
  - {name: app, path: /app, webhook: {to: "http://`+app.addr+`/", secret: `+secrets()+`}}
  - {name: other, path: /other, webhook: {to: "http://`+app.addr+`/", secret: `+secrets()+`}}
`)
	ann, bob, eve := e.dial("/app", nil, "chat.v1"), e.dial("/app", nil, "chat.v1"), e.dial("/other", nil, "chat.v1")
	for _, conn := range []*websocket.Conn{ann, bob, eve} {
		hears(t, conn, "welcome")
	}
	to := app.await("connect", 3).Connection
	base := to.PushURL // the application knows no other
	one := fmt.Sprintf(`{"to":{"connection":%q},`, app.heard("connect")[0].Connection.ID)
	for _, c := range []struct{ body, want string }{
		{one + `"text":"a text"}`, `{"dropped":[],"matched":1,"queued":1,"written":0}`},
		{one + `"json":{"a": [1, 2]}}`, `{"dropped":[],"matched":1,"queued":1,"written":0}`},
		{one + `"data_base64":"AP8=","wait":"queued"}`, `{"dropped":[],"matched":1,"queued":1,"written":0}`},
		{one + `"text":"in hand","wait":"written"}`, `{"dropped":[],"matched":1,"queued":1,"written":1}`},
		{`{"to":{"route":"app"},"text":"to all of it","wait":"written"}`, `{"dropped":[],"matched":2,"queued":2,"written":2}`},
		{`{"to":{"route":"nowhere"},"text":"to nobody"}`, `{"dropped":[],"matched":0,"queued":0,"written":0}`},
	} {
		status, answer, _ := call(t, "POST", base+"/v1/send", "may-push", c.body)
		if got, _ := json.Marshal(answer); status != http.StatusOK || string(got) != c.want {
			t.Errorf("%s is answered %d %s, want %s", c.body, status, got, c.want)
		}
	}
	for _, want := range []string{"a text", `{"a":[1,2]}`, "\x00\xff", "in hand", "to all of it"} { // in the order of the calls
		if got := receive(t, ann); got != want {
			t.Errorf("ann receives %q, want %q", got, want)
		}
	}
	if got := receive(t, bob); got != "to all of it" {
		t.Errorf("bob receives %q", got)
	}
	call(t, "POST", base+"/v1/send", "may-push", fmt.Sprintf(`{"to":{"connection":%q},"text":"to eve"}`, to.ID))
	if got := receive(t, eve); got != "to eve" {
		t.Errorf("eve, of another route, receives %q", got)
	}

	hangUp(t, ann, 1000, "")
	app.await("close", 1)
	e.closedLine("app")
	status, answer, _ := call(t, "POST", base+"/v1/send", "may-push", one+`"text":"too late"}`)
	if status != http.StatusGone || !strings.Contains(fmt.Sprint(answer["error"]), "is not open here") {
		t.Errorf("a push to a closed socket is answered %d %v, want 410", status, answer)
	}
}

func TestListingAndClosingConnections(t *testing.T) {
	t.Parallel()
	app := newApplication(t, greet)
	e := start(t, pushers+`
routes:
  - {name: app, path: /app, webhook: {to: "http://`+app.addr+`/", secret: `+secrets()+`}}
  - {name: echo, path: /echo, websocket: {to: "ws://`+backend(t, echo)+`"}}
`)
	conn := e.dial("/app", nil, "chat.v1")
	hears(t, conn, "welcome")
	send(t, conn, "one")
	hears(t, conn, "you said one")
	for range 2 {
		conn := e.dial("/echo", nil)
		send(t, conn, "here")
		receive(t, conn)
	}
	for _, base := range []string{"http://" + e.addr("push"), "http://" + e.addrs["admin"]} { // both serve these calls
		_, all, _ := call(t, "GET", base+"/v1/connections", "may-read", "")
		if n := len(all["connections"].([]any)); n != 3 || all["next"] != nil {
			t.Errorf("%d connections are listed, next %v", n, all["next"])
		}
		seen := map[any]bool{}
		for cursor := ""; len(seen) < 4; {
			_, page, _ := call(t, "GET", base+"/v1/connections?limit=1&cursor="+cursor, "may-read", "")
			seen[page["connections"].([]any)[0].(map[string]any)["id"]] = true
			if page["next"] == nil {
				break
			}
			cursor = page["next"].(string)
		}
		if len(seen) != 3 {
			t.Errorf("pages of one hold %d connections", len(seen))
		}
		for query, want := range map[string]int{"route=echo": 2, "route=app": 1, "user=ann": 1, "user=bob": 0, "route=echo&user=ann": 0} {
			_, some, _ := call(t, "GET", base+"/v1/connections?"+query, "may-read", "")
			if n := len(some["connections"].([]any)); n != want {
				t.Errorf("%s: %d connections, want %d", query, n, want)
			}
		}
	}

	base, id := "http://"+e.addr("push")+"/v1/connections/", app.await("connect", 1).Connection.ID
	status, shown, _ := call(t, "GET", base+id, "may-read", "")
	if err := subset(shown, map[string]any{
		"id": id, "route": "app", "kind": "webhook", "client": "127.0.0.1", "user": "ann", "subprotocol": "chat.v1",
		"messages_in": 1, "bytes_in": 3, "messages_out": 2, "bytes_out": len("welcome") + len("you said one"), "state": map[string]any{"count": 0},
	}); err != nil || status != http.StatusOK {
		t.Errorf("one connection: %d, %v", status, err)
	}
	for _, bad := range []string{"?code=1006", "?code=999", "?code=x", "?reason=" + strings.Repeat("x", 124), "?what=1"} {
		if status, answer, _ := call(t, "DELETE", base+id+bad, "may-close", ""); status != http.StatusBadRequest {
			t.Errorf("DELETE with %s is answered %d %v", bad, status, answer)
		}
	}
	if status, answer, _ := call(t, "DELETE", base+id, "may-close", `{"code":4001,"reason":"moderated"}`); status != http.StatusAccepted || answer["id"] != id {
		t.Errorf("DELETE is answered %d %v", status, answer)
	}
	if code, reason := closeCode(t, conn); code != 4001 || reason != "moderated" {
		t.Errorf("closed with %d %q", code, reason)
	}
	if err := subset(e.closedLine("app"), map[string]any{"cause": "closed by API", "by": "gateway", "code": 4001, "reason": "moderated"}); err != nil {
		t.Error(err)
	}
	for _, method := range []string{"GET", "DELETE"} {
		for _, gone := range []string{id, "c_never_was"} {
			token := map[string]string{"GET": "may-read", "DELETE": "may-close"}[method]
			if status, answer, _ := call(t, method, base+gone, token, ""); status != http.StatusGone {
				t.Errorf("%s of %s is answered %d %v, want 410", method, gone, status, answer)
			}
		}
	}
}

func TestRolesOfTokens(t *testing.T) {
	t.Parallel()
	e := start(t, pushers+`
routes: [{name: r, websocket: {to: "ws://127.0.0.1:9000"}}]
`)
	base, body := "http://"+e.addr("push"), `{"to":{"route":"r"},"text":"x"}`
	calls := []struct{ role, method, path, body string }{
		{"push", "POST", "/v1/send", body},
		{"read", "GET", "/v1/connections", ""},
		{"read", "GET", "/v1/connections/c_x", ""},
		{"close", "DELETE", "/v1/connections/c_x", ""},
	}
	for token, may := range map[string]string{"may-push": "push", "may-read": "read", "may-close": "close", "may-both": "push read"} {
		for _, c := range calls {
			status, answer, header := call(t, c.method, base+c.path, token, c.body)
			allowed := strings.Contains(may, c.role)
			if allowed == (status == http.StatusForbidden) {
				t.Errorf("%s %s with a token for %s is answered %d %v", c.method, c.path, may, status, answer)
			}
			if !allowed && !strings.Contains(header.Get("Www-Authenticate"), "insufficient_scope") {
				t.Errorf("%s %s with a token for %s: no challenge in %v", c.method, c.path, may, header)
			}
		}
	}
	for _, c := range calls {
		for token, challenge := range map[string]string{"": `Bearer realm="bridgehead"`, "unknown": "invalid_token"} {
			status, _, header := call(t, c.method, base+c.path, token, c.body)
			if status != http.StatusUnauthorized || !strings.Contains(header.Get("Www-Authenticate"), challenge) {
				t.Errorf("%s %s with the token %q is answered %d %v", c.method, c.path, token, status, header)
			}
		}
	}
	if status, _, _ := call(t, "GET", base+"/metrics", "may-both", ""); status != http.StatusNotFound {
		t.Errorf("the push listener answers calls of operators with %d", status)
	}
	if status, _, _ := call(t, "POST", "http://"+e.addrs["admin"]+"/v1/send", "", body); status != http.StatusOK {
		t.Errorf("a program of this machine is answered %d by the admin listener", status)
	}
	e.await(func(line map[string]any) bool { return line["msg"] == "API call refused" && line["level"] == "WARN" })
}

func TestSocketsThatTakeNoPushes(t *testing.T) {
	t.Parallel()
	e := start(t, pushers+`
routes:
  - {name: stream, path: /stream, tcp: {to: "`+echoTCP(t)+`"}}
  - {name: lines, path: /lines, tcp: {to: "`+lineBackend(t)+`", framing: line}}
  - {name: relay, path: /relay, websocket: {to: "ws://`+backend(t, echo)+`"}}
`)
	base := "http://" + e.addr("push") + "/v1/"
	for _, route := range []string{"stream", "lines", "relay"} {
		conn := e.dial("/"+route, nil)
		send(t, conn, "here")
		receive(t, conn)
		_, some, _ := call(t, "GET", base+"connections?route="+route, "may-read", "")
		id := some["connections"].([]any)[0].(map[string]any)["id"].(string)
		status, answer, _ := call(t, "POST", base+"send", "may-push", fmt.Sprintf(`{"to":{"connection":%q},"text":"never"}`, id))
		if status != http.StatusConflict || !strings.Contains(fmt.Sprint(answer["error"]), "push: true") {
			t.Errorf("%s: a push is answered %d %v, want 409 and what would take it", route, status, answer)
		}
		_, answer, _ = call(t, "POST", base+"send", "may-push", fmt.Sprintf(`{"to":{"route":%q},"text":"never","wait":"written"}`, route))
		want := fmt.Sprintf(`{"dropped":[{"connection":%q,"why":"no_push"}],"matched":1,"queued":0,"written":0}`, id)
		if got, _ := json.Marshal(answer); string(got) != want {
			t.Errorf("%s: a push to the route is answered %s, want %s", route, got, want)
		}
		send(t, conn, "still alive")
		if got := strings.TrimSpace(receive(t, conn)); got != "still alive" {
			t.Errorf("%s: received %q", route, got)
		}
	}
}

func TestPushesStandBetweenTheUpstreamsMessages(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	e := start(t, pushers+`
routes:
  - name: relay
    websocket:
      push: true
      to: "ws://`+backend(t, func(conn *websocket.Conn, _ *http.Request) {
		half := func(h ws.Header, text string) {
			h.Length = int64(len(text))
			conn.NetConn().Write(append(ws.AppendHeader(nil, h), text...))
		}
		half(ws.Header{Opcode: ws.Text}, "one half, ")
		<-proceed
		half(ws.Header{Fin: true, Opcode: ws.Continuation}, "the other half")
		echo(conn, nil)
	})+`"
`)
	raw := e.raw("/")
	if f, err := readFrame(raw); err != nil || f.fin || string(f.payload) != "one half, " {
		t.Fatalf("the first frame is %+v, %v", f, err)
	}
	base := "http://" + e.addr("push") + "/v1/send"
	status, answer, _ := call(t, "POST", base, "may-push", `{"to":{"route":"relay"},"text":"pushed"}`)
	if status != http.StatusOK || answer["queued"] != 1.0 {
		t.Fatalf("the push is answered %d %v", status, answer)
	}
	close(proceed)
	for _, want := range []frame{{ws.Continuation, true, []byte("the other half")}, {ws.Text, true, []byte("pushed")}} {
		if f, err := readFrame(raw); err != nil || f.op != want.op || !f.fin || string(f.payload) != string(want.payload) {
			t.Fatalf("the next frame is %+v, %v, want %+v", f, err, want)
		}
	}
	_, answer, _ = call(t, "POST", base, "may-push", `{"to":{"route":"relay"},"data_base64":"AAE=","wait":"written"}`)
	if answer["written"] != 1.0 {
		t.Errorf("while the upstream is silent a push is answered %v", answer)
	}
	if f, err := readFrame(raw); err != nil || f.op != ws.Binary || string(f.payload) != "\x00\x01" {
		t.Errorf("the pushed bytes are %+v, %v", f, err)
	}
	raw.Write(rawFrame(ws.Header{Fin: true, Opcode: ws.Text}, "and the relay goes on"))
	if got := wsReadFrame(t, raw); got != "and the relay goes on" {
		t.Errorf("got %q", got)
	}
}

func TestADrainTellsTheApplicationOfEverySocket(t *testing.T) {
	t.Parallel()
	app := newApplication(t, greet)
	e := start(t, pushers+`
drain: 2s
routes: [{name: r, webhook: {to: "http://`+app.addr+`/", secret: `+secrets()+`}}]
`)
	const count = 50
	for range count {
		conn := e.dial("/", nil, "chat.v1")
		hears(t, conn, "welcome")
		go conn.ReadMessage() // and so answers the close
	}
	if err := e.terminate(); err != nil {
		t.Errorf("exit: %v", err)
	}
	ended := map[string]bool{}
	for _, end := range app.heard("close") { // by now the program is gone
		ended[end.Connection.ID] = true
		wantEnd(t, end, told{Code: 1001, Reason: "shutting down", Initiator: "shutdown", Clean: true, MessagesOut: 1, BytesOut: 7})
	}
	if n := len(app.heard("close")); n != count || len(ended) != count {
		t.Errorf("the application heard of %d ends, of %d connections, want %d", n, len(ended), count)
	}
}

// A client that is about to be let in when the program ends hears of it, and so does the application that let it in.
func TestADrainWaitsForHandshakesUnderWay(t *testing.T) {
	t.Parallel()
	asked, hold := make(chan struct{}), make(chan struct{})
	app := newApplication(t, func(e told) decision {
		if e.Type == "connect" {
			close(asked)
			<-hold
		}
		return decision{}
	})
	e := start(t, `
drain: 5s
routes: [{name: r, webhook: {to: "http://`+app.addr+`/", secret: `+secrets()+`}}]
`)
	var dialling sync.WaitGroup
	defer dialling.Wait()
	dialling.Go(func() {
		if conn, _, err := e.dialer().Dial(e.url("/"), nil); err == nil {
			conn.ReadMessage()
			conn.Close()
		}
	})
	<-asked
	e.process.Process.Signal(syscall.SIGTERM)
	e.await(func(line map[string]any) bool { return line["msg"] == "draining" })
	close(hold)
	if err := e.wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	if n := len(app.heard("close")); n != 1 {
		t.Errorf("the application said yes, and heard of %d ends", n)
	}
}
