package demo

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// dialLine calls the line service and reads its greeting.
func dialLine(t *testing.T, b *Backends) *bufio.ReadWriter {
	t.Helper()
	conn, err := net.Dial("tcp", b.Line)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	call := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriterSize(conn, 0))
	if greeting, err := call.ReadString('\n'); !strings.HasPrefix(greeting, "200 ") {
		t.Fatalf("greeted with %q, %v", greeting, err)
	}
	return call
}

func TestLineServiceOverTCP(t *testing.T) {
	t.Parallel()
	call := dialLine(t, start(t))
	call.WriteString("ECHO one\r\nadd 2 3\nQUIT\r\nECHO never\r\n") // either line end, and commands that come together
	call.Flush()
	got, err := io.ReadAll(call)
	if want := "250 one\r\n250 5\r\n221 goodbye\r\n"; string(got) != want {
		t.Errorf("answered %q, %v, want %q", got, err, want)
	}
}

func TestLineServiceAnswers(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 1, 20, 12, 0, 0, 0, time.UTC)
	s := &lines{began: began}
	for line, want := range map[string]string{
		"HELP":        "214 HELP, TIME, ECHO text, ADD 2 3, UPTIME, QUIT",
		"time":        "250 2026-01-20T12:01:30Z",
		"Echo  a  b ": "250  a  b",
		"ECHO":        "250 ",
		"ADD 2 3":     "250 5",
		"ADD 1.5 -3":  "250 -1.5",
		"ADD":         "250 0",
		"ADD two":     `501 "two" is not a number`,
		"UPTIME":      "250 up for 1m30s",
		"QUIT":        "221 goodbye",
		"DANCE":       `500 unknown command "DANCE", HELP lists the commands`,
		"":            `500 unknown command "", HELP lists the commands`,
	} {
		got, more := s.answer(line, began.Add(90*time.Second))
		if got != want {
			t.Errorf("%q is answered %q, want %q", line, got, want)
		}
		if more == (line == "QUIT") {
			t.Errorf("%q: goes on is %v", line, more)
		}
	}
}

func TestLineServiceBoundsALine(t *testing.T) {
	t.Parallel()
	call := dialLine(t, start(t))
	call.WriteString(strings.Repeat("x", maxLine))
	call.Flush()
	if got, err := call.ReadString('\n'); got != "500 a line has at most 1024 bytes\r\n" {
		t.Errorf("answered %q, %v", got, err)
	}
}
