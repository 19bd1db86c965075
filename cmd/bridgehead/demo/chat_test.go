package demo

import (
	"cmp"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A client is a person in the chat.
type client struct{ *websocket.Conn }

func join(t *testing.T, b *Backends, name string) client {
	t.Helper()
	conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+b.Chat+"/chat?name="+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	c := client{conn}
	c.hears(t, "* "+cmp.Or(name, "guest-1")+" came in")
	return c
}

func (c client) say(t *testing.T, kind int, text string) {
	t.Helper()
	if err := c.WriteMessage(kind, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// hears reads until a message comes that begins so.
func (c client) hears(t *testing.T, want string) {
	t.Helper()
	for {
		_, data, err := c.ReadMessage()
		if err != nil {
			t.Fatalf("waiting for %q: %v", want, err)
		}
		if strings.HasPrefix(string(data), want) {
			return
		}
	}
}

// closed reads until the Close comes.
func (c client) closed(t *testing.T) (code int, reason string) {
	t.Helper()
	for {
		if _, _, err := c.ReadMessage(); err != nil {
			farewell, ok := errors.AsType[*websocket.CloseError](err)
			if !ok {
				t.Fatalf("waiting for a Close: %v", err)
			}
			return farewell.Code, farewell.Text
		}
	}
}

func TestChatEverybodyHearsEverybody(t *testing.T) {
	t.Parallel()
	b := start(t)
	ann := join(t, b, "ann")
	bob, guest := join(t, b, "bob"), join(t, b, "")
	ann.hears(t, "* guest-1 came in: ann, bob, guest-1 here")
	ann.say(t, websocket.TextMessage, "good morning")
	for _, c := range []client{ann, bob, guest} {
		c.hears(t, "ann: good morning")
	}
	bob.Close()
	ann.hears(t, "* bob left: ann, guest-1 here")
	ann.say(t, websocket.TextMessage, "/who")
	ann.hears(t, "* ann, guest-1 here")
}

func TestChatCloses(t *testing.T) {
	t.Parallel()
	b := start(t)
	for _, test := range []struct {
		rule       string
		kind       int
		text       string
		code       int
		wantReason string
	}{
		{"with the code and reason asked for", websocket.TextMessage, "/close 4001 see you", 4001, "see you"},
		{"without a reason", websocket.TextMessage, "/close 3000", 3000, ""},
		{"with a reason cut between runes", websocket.TextMessage, "/close 4002 " + strings.Repeat("é", 100), 4002, strings.Repeat("é", 61)},
		{"at a binary message", websocket.BinaryMessage, "x", 1003, "this chat takes text"},
		{"at a large message", websocket.TextMessage, strings.Repeat("x", maxChatMessage+1), 1009, ""},
	} {
		t.Run(test.rule, func(t *testing.T) {
			t.Parallel()
			c := join(t, b, "eve")
			c.say(t, test.kind, test.text)
			if code, reason := c.closed(t); code != test.code || reason != test.wantReason {
				t.Errorf("closed with %d %q, want %d %q", code, reason, test.code, test.wantReason)
			}
		})
	}
}

func TestChatAnswersUnknownCommands(t *testing.T) {
	t.Parallel()
	c := join(t, start(t), "ann")
	c.say(t, websocket.TextMessage, "/dance")
	c.hears(t, "* commands: /who, /close 4001 see you; everything else is said to all")
	for _, bad := range []string{"/close", "/close x", "/close 1000", "/close 5000 x"} {
		c.say(t, websocket.TextMessage, bad)
		c.hears(t, "* /close takes a code from 3000 to 4999 and a reason")
	}
}

// A member that does not read must not hold up the others, nor cost more than its queue.
func TestChatLosesAMemberThatDoesNotRead(t *testing.T) {
	t.Parallel()
	b := start(t)
	join(t, b, "deaf")
	ann := join(t, b, "ann")
	text := strings.Repeat("x", maxChatMessage)
	for {
		ann.say(t, websocket.TextMessage, text)
		_, heard, err := ann.ReadMessage() // in step, so that she herself is never too slow
		if err != nil {
			t.Fatal(err)
		}
		if string(heard) == "* deaf left: ann here" {
			return
		}
	}
}

func TestChatRefuses(t *testing.T) {
	t.Parallel()
	b := start(t)
	for _, test := range []struct {
		rule, query, origin string
		status              int
	}{
		{"a page from elsewhere", "", "https://evil.example", http.StatusForbidden},
		{"an origin without a host", "", "null", http.StatusForbidden},
		{"a long name", "?name=" + strings.Repeat("x", 41), "", http.StatusBadRequest},
		{"a name that forges lines", "?name=a%0Ab", "", http.StatusBadRequest},
		{"nobody from this machine", "", "https://localhost:8443", http.StatusSwitchingProtocols},
		{"nobody from this machine by its address", "", "http://127.0.0.1:8080", http.StatusSwitchingProtocols},
	} {
		t.Run(test.rule, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			if test.origin != "" {
				header.Set("Origin", test.origin)
			}
			conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+b.Chat+"/"+test.query, header)
			if err == nil {
				conn.Close()
			}
			if resp == nil || resp.StatusCode != test.status {
				t.Errorf("answered %v (%v), want %d", resp, err, test.status)
			}
		})
	}
}
