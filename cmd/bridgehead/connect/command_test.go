package connect

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line string
		kind int
		data string
		err  string
	}{
		{"hello", websocket.TextMessage, "hello", ""},
		{" /hello", websocket.TextMessage, " /hello", ""},
		{"//hello", websocket.TextMessage, "/hello", ""},
		{"", websocket.TextMessage, "", ""},
		{"/ping", websocket.PingMessage, "", ""},
		{"/ping a b", websocket.PingMessage, "a b", ""},
		{"/pong " + strings.Repeat("x", 125), websocket.PongMessage, strings.Repeat("x", 125), ""},
		{"/ping " + strings.Repeat("x", 126), 0, "", "126 bytes, where a ping or pong has room for 125"},
		{"/hex 00ff", websocket.BinaryMessage, "\x00\xff", ""},
		{"/hex 0x0, 0xff", 0, "", "is not hex"},
		{"/hex 0", 0, "", "is not hex: write two digits for each byte"},
		{"/hex", websocket.BinaryMessage, "", ""},
		{"/binary text", websocket.BinaryMessage, "text", ""},
		{"/file", 0, "", "name a file"},
		{"/close", websocket.CloseMessage, "\x03\xe8", ""},
		{"/close 4000", websocket.CloseMessage, "\x0f\xa0", ""},
		{"/close  4000  so long ", websocket.CloseMessage, "\x0f\xa0so long", ""},
		{"/close 1005", websocket.CloseMessage, "", ""},
		{"/close 1006", 0, "", `code "1006" may not be sent: use one of`},
		{"/close 70000", 0, "", `code "70000" may not be sent`},
		{"/close bye", 0, "", `code "bye" may not be sent`},
		{"/close 4000 " + strings.Repeat("x", 124), 0, "", "124 bytes of reason, where a Close has room for 123"},
		{"/close 4000 \xff", 0, "", "the reason is not UTF-8"},
		{"/", 0, "", "/ is no command"},
		{"/Ping", 0, "", "/Ping is no command: /help lists them, and // sends a line that begins with a slash"},
		{"/help", helpFrame, "", ""},
	} {
		f, err := parse(c.line)
		wantError(t, err, c.err)
		if err == nil && (f.kind != c.kind || string(f.data) != c.data) {
			t.Errorf("%q is %d %q, want %d %q", c.line, f.kind, f.data, c.kind, c.data)
		}
	}
}

// Whatever is typed, what is sent keeps RFC 6455.
func FuzzParse(f *testing.F) {
	for _, line := range []string{"a", "/ping a", "/hex 00,0xff", "/close 4000 é", "/binary \xff", "//", "/file"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.HasPrefix(line, "/file ") {
			return // that depends on the machine
		}
		got, err := parse(line)
		if err != nil {
			return
		}
		switch got.kind {
		case websocket.TextMessage:
			if !utf8.Valid(got.data) {
				t.Errorf("%q is text that is not UTF-8", line)
			}
		case websocket.PingMessage, websocket.PongMessage, websocket.CloseMessage:
			if _, _, err := ws.ParseClose(got.data); got.kind == websocket.CloseMessage && err != nil || len(got.data) > ws.MaxControlPayload {
				t.Errorf("%q is a control frame with %q: %v", line, got.data, err)
			}
		}
	})
}
