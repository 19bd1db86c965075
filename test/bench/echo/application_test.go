//go:build linux

package echo

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func post(contentType, body string) string {
	return fmt.Sprintf("POST /webhook HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", contentType, len(body), body)
}

// Both forms are answered with what was said, on one connection, also byte by byte and one behind the other.
func TestApplication(t *testing.T) {
	t.Parallel()
	conn, err := net.Dial("tcp", serve(t).HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cases := []struct{ contentType, body, answer string }{
		{nativeForm, `{"events":[{"type":"connect"}]}`, "204  "},
		{nativeForm, `{"events":[{"type":"message","text":"hello"}]}`, "200 text/plain hello"},
		{nativeForm, `{"events":[{"type":"message","text":""}]}`, "200 text/plain "},
		{nativeForm, `{"events":[{"type":"message","data_base64":"AAE="}]}`, "200 application/octet-stream \x00\x01"},
		{nativeForm, `{"events":[{"type":"message","text":"a"},{"type":"message","data_base64":"AAE="}]}`,
			`200 application/json {"actions":[{"send":{"text":"a"}},{"send":{"data_base64":"AAE="}}]}`},
		{eventsForm, "OPEN\r\n", "200 application/websocket-events OPEN\r\n"},
		{eventsForm, "TEXT 5\r\nhello\r\nBINARY 2\r\n\r\n\r\nPING\r\nTEXT 0\r\n\r\n",
			"200 application/websocket-events TEXT 5\r\nhello\r\nBINARY 2\r\n\r\n\r\nTEXT 0\r\n\r\n"},
		{eventsForm, "TEXT A\r\n0123456789\r\nCLOSE 2\r\n\x03\xe8\r\n", "200 application/websocket-events TEXT A\r\n0123456789\r\nCLOSE 2\r\n\x03\xe8\r\n"},
		{eventsForm, "DISCONNECT\r\n", "200 application/websocket-events "},
	}
	var all strings.Builder
	for _, c := range cases {
		all.WriteString(post(c.contentType, c.body))
	}
	for _, step := range []int{1, all.Len()} {
		go func() {
			for rest := all.String(); len(rest) > 0; rest = rest[min(step, len(rest)):] {
				io.WriteString(conn, rest[:min(step, len(rest))])
			}
		}()
		br := bufio.NewReader(conn)
		for _, c := range cases {
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if got := fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("Content-Type"), body); got != c.answer || err != nil {
				t.Errorf("%s: %q, want %q (%v)", c.body, got, c.answer, err)
			}
		}
	}
}

// What is no such request ends the connection and nothing else.
func TestApplicationRefuses(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, request := range []string{
		"nonsense\r\n\r\n", post("text/plain", "x"), post(nativeForm, "{"), post(eventsForm, "TEXT 9\r\nshort\r\n"), post(eventsForm, "TEXT -1\r\n"),
		post(eventsForm, "OPEN"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", s.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, request)
		if answer, err := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("%q is answered %q (%v)", request, answer, err)
		}
		conn.Close()
	}
}
