package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// lives opens a socket to an application that names its user, says a word and closes.
func (e *edge) lives(app *application) {
	e.t.Helper()
	conn := e.dial("/app", nil, "chat.v1")
	hears(e.t, conn, "welcome")
	send(e.t, conn, "hello")
	hears(e.t, conn, "you said hello")
	hangUp(e.t, conn, 4321, "good bye")
	app.await("close", 1)
}

func TestTwoLinesTellTheLifeOfASocket(t *testing.T) {
	t.Parallel()
	app := newApplication(t, greet)
	e := start(t, `
routes: [{name: app, path: /app, webhook: {to: "http://`+app.addr+`/", secret: `+secrets()+`}}]
`)
	e.lives(app)
	closed := e.closedLine("app")
	opened := e.await(func(line map[string]any) bool { return line["msg"] == "open" })
	who := map[string]any{
		"level": "INFO", "route": "app", "conn": app.await("connect", 1).Connection.ID, "client": "127.0.0.1", "user": "ann",
		"subprotocol": "chat.v1",
	}
	if err := subset(opened, who); err != nil {
		t.Errorf("the line at the open: %v", err)
	}
	what := map[string]any{
		"messages_in": 1, "bytes_in": 5, "messages_out": 2, "bytes_out": len("welcome") + len("you said hello"),
		"cause": "client closed", "by": "client", "code": 4321, "reason": "good bye",
	}
	maps.Copy(what, who)
	if err := subset(closed, what); err != nil {
		t.Errorf("the line at the end: %v", err)
	}
	if closed["duration"] == nil {
		t.Errorf("the line at the end tells no duration: %v", closed)
	}
	const keys = "by bytes_in bytes_out cause client code conn duration level messages_in messages_out msg reason route subprotocol time user"
	if got := strings.Join(slices.Sorted(maps.Keys(closed)), " "); got != keys {
		t.Errorf("the line at the end has the keys %s, want %s", got, keys)
	}
}

func TestTheLogAsText(t *testing.T) {
	t.Parallel()
	app := newApplication(t, greet)
	e := startIn(t, room(t), `
state: ./state
log: {level: info}
certificates: {internal: true}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true}]
admin: {address: "127.0.0.1:0"}
routes: [{name: app, path: /app, webhook: {to: "http://`+app.addr+`/", secret: `+secrets()+`}}]
`)
	e.lives(app)
	line := e.await(func(line map[string]any) bool { return fields(fmt.Sprint(line["msg"]))["msg"] == "closed" })
	text := fields(fmt.Sprint(line["msg"]))
	if err := subset(text, map[string]any{
		"level": "INFO", "route": "app", "client": "127.0.0.1", "user": "ann", "subprotocol": "chat.v1", "messages_in": 1, "bytes_in": 5,
		"messages_out": 2, "cause": "client closed", "by": "client", "code": 4321, "reason": "good bye",
	}); err != nil {
		t.Errorf("%v: %v", line["msg"], err)
	}
	if took, err := time.ParseDuration(fmt.Sprint(text["duration"])); err != nil || took < 0 || took > patience {
		t.Errorf("duration %v, %v", text["duration"], err)
	}
	for _, line := range e.log() {
		if strings.Contains(fmt.Sprint(line["msg"]), "level=DEBUG") {
			t.Errorf("at the level info the log says %v", line["msg"])
		}
	}
}

// private is a word that stands in everything that no log may show.
const private = "s3cr3t"

func TestTheLogKeepsSecrets(t *testing.T) {
	t.Parallel()
	broken := newApplication(t, func(e told) decision {
		if e.Type == "message" {
			return decision{status: http.StatusServiceUnavailable, body: private, header: http.Header{"X-Cookie": {private}}}
		}
		return decision{body: map[string]any{"accept": map[string]any{"state": private, "headers": map[string]any{"Set-Cookie": private, "Bad": private}}}}
	})
	gone := listen(t)
	gone.Close()
	refusing := httpBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "https://elsewhere.example/?token="+private)
		w.WriteHeader(http.StatusFound)
	})
	hook := "{to: \"http://" + broken.addr + "/?key=" + private + "\", secret: " + secrets() + ", forward_headers: [cookie, authorization], retries: 1}"
	e := start(t, strings.ReplaceAll(pushers, "may-push", private+"-push")+`
routes:
  - {name: relay, path: /relay, websocket: {to: "ws://`+backend(t, echo)+`/?key=`+private+`", headers: {set: {X-Key: "`+private+`"}}}}
  - {name: lines, path: /lines, tcp: {to: "`+lineBackend(t)+`", framing: line}}
  - {name: hook, path: /hook, webhook: `+hook+`}
  - {name: gone, path: /gone, websocket: {to: "ws://`+gone.Addr().String()+`/?key=`+private+`"}}
  - {name: deaf, path: /deaf, webhook: {to: "http://`+gone.Addr().String()+`/?key=`+private+`", secret: `+secrets()+`}}
  - {name: moved, path: /moved, websocket: {to: "ws://`+refusing+`/?key=`+private+`"}}
  - {name: away, path: /away, webhook: {to: "http://`+refusing+`/?key=`+private+`"}}
  - {name: strict, path: /strict, origins: ["https://page.example"], websocket: {to: "ws://127.0.0.1:1"}}
  - {name: rare, path: /rare, limits: [{per: query.token, connections: 1}, {per: cookie.sid, connections: 1}], websocket: {to: "ws://`+backend(t, echo)+`"}}
`)
	carries := http.Header{"Cookie": {"sid=" + private}, "Authorization": {"Bearer " + private}, "X-Api-Key": {private}}
	query := "?token=" + private
	for _, path := range []string{"/relay", "/lines", "/rare"} {
		conn := e.dial(path+query, carries)
		send(t, conn, private)
		receive(t, conn)
		if path == "/rare" {
			go conn.ReadMessage() // it stays, so that the next one is too many
			continue
		}
		hangUp(t, conn, 1000, "")
		e.closedLine(path[1:])
	}
	conn := e.dial("/hook"+query, carries)
	send(t, conn, private)
	wantClose(t, conn, 1011) // the application answers 503 until the retries are used up
	e.closedLine("hook")
	for _, path := range []string{"/gone", "/deaf", "/moved", "/away", "/rare", "/nowhere"} {
		e.refused(path+query, carries)
	}
	carries.Set("Origin", "https://evil.example")
	e.refused("/strict"+query, carries)
	e.ask("POST /relay" + query + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\n" + private)
	e.ask("GET /relay" + query + " HTTP/1.1\r\nHost: localhost\r\nCookie: " + private + "\r\nnot a header\r\n\r\n")
	for _, token := range []string{private + "-push", private} {
		call(t, "POST", "http://"+e.addr("push")+"/v1/send", token, `{"to":{"route":"relay"},"text":"`+private+`"}`)
		call(t, "GET", "http://"+e.addr("push")+"/v1/connections?user="+private, token, "")
	}
	if err := e.terminate(); err != nil {
		t.Errorf("exit: %v", err)
	}

	for _, line := range e.log() {
		text, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		for what, secret := range map[string]string{"private word": private, "new key": newKey[6:], "old key": oldKey[6:], "token": "may-read"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("a line shows the %s: %s", what, text)
			}
		}
	}
}

func TestTheFileOfAProblemIsNotShownWithItsSecrets(t *testing.T) {
	t.Parallel()
	dir := room(t)
	write(t, dir, "config.yaml", `
state: ./state
listeners: [{address: "127.0.0.1:0"}]
routes:
  - {name: a, webhook: {to: "http://x", secret: whsec_`+private+`}}
  - {name: b, webhook: {to: "http://x", secret: [{key: `+private+`}]}}
push: {address: "127.0.0.1:0", tokens: [{name: a, token: "`+private+` with spaces", may: push}, {name: b, token: {x: `+private+`}, may: [`+private[:2]+`]}]}
`)
	out, err := exec.Command(program, "check", "-c", dir+"/config.yaml").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "config.yaml:5:") || strings.Contains(string(out), private) {
		t.Errorf("%v:\n%s", err, out)
	}
}
