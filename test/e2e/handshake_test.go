package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// ask sends text over TLS and reads one answer.
func (e *edge) ask(text string) (resp *http.Response, body string) {
	e.t.Helper()
	_, br := e.say(text)
	return answered(e.t, br, "")
}

// ends waits until the server ends the connection.
func ends(t *testing.T, br *bufio.Reader) {
	t.Helper()
	if _, err := br.ReadByte(); err != io.EOF {
		t.Errorf("the connection lives on: %v", err)
	}
}

func TestHandshakeRules(t *testing.T) {
	t.Parallel()
	e := start(t, `
routes:
  - {name: r, path: /r, websocket: {to: "ws://`+backend(t, echo)+`"}}
  - {name: other, host: other.example, path: /o, websocket: {to: "ws://`+backend(t, echo)+`"}}
`)
	good := handshake("/r")
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, c := range []struct {
		name, text string
		status     int
		header     string // of the answer, that must be there
	}{
		{"as it should be", good, 101, "Sec-WebSocket-Accept"},
		{"tokens in any case and company", replace("Connection: Upgrade", "Connection: keep-alive, uPGRADE"), 101, ""},
		{"no route", handshake("/none"), 404, ""},
		{"route of another host", handshake("/o"), 404, ""},
		{"no handshake at all", "GET /r HTTP/1.1\r\nHost: x\r\n\r\n", 426, "Sec-WebSocket-Version"},
		{"POST", replace("GET", "POST"), 405, "Allow"},
		{"plain CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 405, ""},
		{"HTTP/1.0", replace("HTTP/1.1", "HTTP/1.0"), 400, ""},
		{"no Host", replace("Host: localhost\r\n", ""), 400, ""},
		{"two Hosts", replace("Host: localhost", "Host: localhost\r\nHost: other.example"), 400, ""},
		{"other upgrade", replace("Upgrade: websocket", "Upgrade: h2c"), 426, ""},
		{"old version", replace("Version: 13", "Version: 8"), 426, "Sec-WebSocket-Version"},
		{"two versions", replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8"), 400, ""},
		{"short key", replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400, ""},
		{"two keys", replace("Upgrade: websocket", "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, ""},
		{"content length", replace("Upgrade: websocket", "Upgrade: websocket\r\nContent-Length: 5") + "hello", 400, ""},
		{"chunked body", replace("Upgrade: websocket", "Upgrade: websocket\r\nTransfer-Encoding: chunked") + "0\r\n\r\n", 400, ""},
		{"header too large", replace("Upgrade: websocket", "Upgrade: websocket\r\nX: "+strings.Repeat("x", 128<<10)), 431, ""},
		{"name with a space", replace("Upgrade: websocket", "Upgrade : websocket"), 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, br := e.say(c.text)
			resp, body := answered(t, br, "")
			if resp.StatusCode != c.status {
				t.Fatalf("status %s %q, want %d", resp.Status, body, c.status)
			}
			if c.header != "" && resp.Header.Get(c.header) == "" {
				t.Fatalf("no %s in %v", c.header, resp.Header)
			}
			if c.status != 101 && strings.Contains(c.text, "Upgrade:") {
				ends(t, br)
			}
		})
	}
}

func TestPipelinedRequestsAroundAnUpgradeDoNotMix(t *testing.T) {
	t.Parallel()
	hits := make(chan string, 10)
	e := start(t, `
routes:
  - {name: r, path: /r, websocket: {to: "ws://`+httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		hits <- r.Method + " " + r.URL.Path
		w.WriteHeader(http.StatusForbidden)
	})+`"}}
`)
	// A second request behind a refused upgrade must reach nobody.
	_, br := e.say(handshake("/r") + "GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n")
	answered(t, br, "")
	ends(t, br)
	if hit := <-hits; hit != "GET /r" {
		t.Fatalf("the upstream saw %s", hit)
	}
	select {
	case hit := <-hits:
		t.Fatalf("the upstream saw %s too", hit)
	default:
	}
	// A request before an upgrade is answered, and then the upgrade is.
	_, br = e.say("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n" + handshake("/r"))
	if resp, _ := answered(t, br, ""); resp.StatusCode != http.StatusNotFound {
		t.Fatalf("status %s", resp.Status)
	}
	if resp, _ := answered(t, br, ""); resp.StatusCode != http.StatusForbidden {
		t.Fatalf("status %s", resp.Status)
	}
	if hit := <-hits; hit != "GET /r" {
		t.Fatalf("the upstream saw %s", hit)
	}
}

func TestOriginTricks(t *testing.T) {
	t.Parallel()
	up := backend(t, echo)
	e := start(t, `
routes:
  - {name: listed, host: listed.example, origins: ["https://app.example", "https://*.wild.example", "http://localhost:*"], websocket: {to: "ws://`+up+`"}}
  - {name: same, host: same.example, websocket: {to: "ws://`+up+`"}}
  - {name: strict, host: strict.example, require_origin: true, websocket: {to: "ws://`+up+`"}}
  - {name: any, websocket: {to: "ws://`+up+`"}}
`)
	for _, c := range []struct {
		host, origin string // origins separated by | stand in headers of their own; "-" is none
		allowed      bool
	}{
		{"listed.example", "https://app.example", true},
		{"listed.example", "https://app.example:443", true},
		{"listed.example", "-", true},
		{"listed.example", "https://a.wild.example", true},
		{"listed.example", "http://localhost:5173", true},
		{"listed.example", "https://listed.example", false}, // a list replaces the default
		{"listed.example", "http://app.example", false},     // scheme
		{"listed.example", "https://app.example:8443", false},
		{"listed.example", "https://app.example.evil.com", false}, // suffix
		{"listed.example", "https://evilapp.example", false},      // prefix
		{"listed.example", "https://app.example@evil.com", false}, // userinfo
		{"listed.example", "https://evil.com/https://app.example", false},
		{"listed.example", "https://evil.com?https://app.example", false},
		{"listed.example", "https://app.example ", true}, // white space around a value is no part of it (RFC 9110, 5.5)
		{"listed.example", "null", false},
		{"listed.example", "", false},
		{"listed.example", "https://wild.example", false},
		{"listed.example", "https://wild.example.evil.com", false},
		{"listed.example", "https://app.example|https://evil.com", false}, // two headers
		{"listed.example", "https://app.example https://evil.com", false},
		{"same.example", "https://same.example", true},
		{"same.example", "http://same.example", true}, // TLS may end in front of us
		{"same.example:8443", "https://same.example:8443", true},
		{"same.example:8443", "https://same.example", false},
		{"same.example", "https://sub.same.example", false},
		{"same.example", "https://SAME.example", true},
		{"same.example", "null", false},
		{"strict.example", "-", false},
		{"strict.example", "https://strict.example", true},
		{"localhost", "http://localhost", true},
		{"127.0.0.1:9", "http://127.0.0.1:9", true},
		{"rebound.example", "http://rebound.example", false}, // DNS rebinding: the page's own name leads here
		{"rebound.example", "-", true},
	} {
		t.Run(fmt.Sprintf("%s from %s", c.host, c.origin), func(t *testing.T) {
			var lines []string
			if c.origin != "-" {
				for origin := range strings.SplitSeq(c.origin, "|") {
					lines = append(lines, "Origin: "+origin)
				}
			}
			resp, body := e.ask(strings.Replace(handshake("/", lines...), "Host: localhost", "Host: "+c.host, 1))
			want := http.StatusForbidden
			if c.allowed {
				want = http.StatusSwitchingProtocols
			}
			if resp.StatusCode != want {
				t.Fatalf("status %s %q, want %d", resp.Status, body, want)
			}
		})
	}
	line := e.await(func(line map[string]any) bool { return line["msg"] == "refused" && line["reason"] == "origin" })
	if text := line["error"].(string); !strings.Contains(text, `under origins of route "listed"`) {
		t.Fatalf("the log names no mend: %s", text)
	}
}
