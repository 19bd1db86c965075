package connect

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"bridgehead/ws"
)

// A bubble is a session on fake time, whose server says what a test lets it.
type bubble struct {
	server *bufio.ReadWriter
	out    bytes.Buffer
	err    error
	ended  chan struct{}         // the session is over; out and err may be read
	stop   [2]context.CancelFunc // what Ctrl-C does the first and the second time
}

// inBubble runs a session over a pipe. Its input has ended, unless it is given.
func inBubble(t *testing.T, o Options, in io.Reader) *bubble {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	b := &bubble{server: bufio.NewReadWriter(bufio.NewReader(far), bufio.NewWriterSize(far, 0)), ended: make(chan struct{})}
	go func() {
		r, err := http.ReadRequest(b.server.Reader)
		if err == nil {
			far.Write(ws.AppendAnswer(nil, r.Header.Get("Sec-WebSocket-Key"), ws.Answer{}))
		}
	}()
	dialer := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return near, nil }}
	conn, _, err := dialer.Dial("ws://pipe/", nil)
	if err != nil {
		t.Fatal(err)
	}
	var ctx, now context.Context
	ctx, b.stop[0] = context.WithCancel(t.Context())
	now, b.stop[1] = context.WithCancel(t.Context())
	s := newSession(&o, &socket{conn, &tail{}}, newScreen(&o, Terminal{In: in, Out: &b.out, Notes: io.Discard}))
	go func() {
		defer close(b.ended)
		b.err = s.run(ctx, now)
	}()
	return b
}

// says sends a text message after a pause.
func (b *bubble) says(after time.Duration, text string) {
	<-time.After(after)
	b.server.Write(ws.AppendFrame(nil, ws.Text, []byte(text), false))
	b.server.Flush()
}

// wantClose reads a Close, at this moment.
func (b *bubble) wantClose(t *testing.T) {
	t.Helper()
	head := make([]byte, 2+4+2)
	if _, err := io.ReadFull(b.server, head); err != nil || head[0] != 0x88 {
		t.Fatalf("the client sent % x, %v, want a Close", head, err)
	}
}

func (b *bubble) answersClose() {
	b.server.Write(ws.AppendCloseFrame(nil, ws.CodeNormal, "", false))
	b.server.Flush()
}

func TestTheWaitBeginsAnewWithEachMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := inBubble(t, Options{Wait: time.Second}, strings.NewReader(""))
		b.says(900*time.Millisecond, "one")
		b.says(900*time.Millisecond, "two")
		b.wantClose(t)
		if took := time.Since(began); took != 2800*time.Millisecond {
			t.Errorf("closed after %v, want a second after the last message", took)
		}
		b.answersClose()
		<-b.ended
		wantError(t, b.err, "")
		if b.out.String() != "one\ntwo\n" {
			t.Errorf("shown %q", b.out.String())
		}
	})
}

func TestItMayWaitForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := inBubble(t, Options{Wait: -1, Count: 1}, strings.NewReader(""))
		b.says(24*time.Hour, "one")
		b.wantClose(t)
		b.answersClose()
		<-b.ended
		wantError(t, b.err, "")
	})
}

func TestItWaitsForNothingWhileThereIsInput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		b := inBubble(t, Options{Wait: time.Second}, r)
		b.says(time.Hour, "one")
		w.Close()
		began := time.Now()
		b.wantClose(t)
		if took := time.Since(began); took != time.Second {
			t.Errorf("closed %v after the end of the input, want 1s", took)
		}
		b.answersClose()
		<-b.ended
		wantError(t, b.err, "")
	})
}

func TestAServerThatDoesNotAnswerTheClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := inBubble(t, Options{}, strings.NewReader(""))
		b.wantClose(t)
		began := time.Now()
		<-b.ended
		wantError(t, b.err, "the server did not answer the close within 5s")
		if took := time.Since(began); took != closeTimeout {
			t.Errorf("ended after %v, want %v", took, closeTimeout)
		}
	})
}

func TestCtrlCTwiceWhileTheServerDoesNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := inBubble(t, Options{}, strings.NewReader("hi\n"))
		synctest.Wait() // until it is stuck in a write
		b.stop[0]()
		synctest.Wait()
		b.stop[1]()
		began := time.Now()
		<-b.ended
		wantError(t, b.err, "interrupted before the server answered")
		if took := time.Since(began); took != 0 {
			t.Errorf("ended after %v, want at once", took)
		}
	})
}

// A write that fails says less than the Close that is about to be read.
func TestTheServersCloseIsToldAfterAWriteFailed(t *testing.T) {
	t.Parallel()
	var o Options
	s := newSession(&o, &socket{nil, &tail{}}, newScreen(&o, Terminal{}))
	s.closed <- &websocket.CloseError{Code: websocket.CloseInternalServerErr, Text: "x"}
	err := s.hangUp(t.Context(), ending{err: io.ErrClosedPipe, lost: true})
	wantError(t, err, `closed by the server: 1011 internal error, "x"`)
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	sent := time.Date(2026, 1, 20, 12, 0, 0, 0, time.UTC)
	s := &session{ping: "a", pinged: sent}
	for i, c := range []struct{ payload, want string }{
		{"b", ""}, // nobody asked for it
		{"a", " after 1.23ms"},
		{"a", ""}, // the second
	} {
		if got := s.roundTrip(c.payload, sent.Add(1234567*time.Nanosecond)); got != c.want {
			t.Errorf("pong %d %q: %q, want %q", i, c.payload, got, c.want)
		}
	}
}

func TestRemaining(t *testing.T) {
	t.Parallel()
	for left, want := range map[time.Duration]string{
		-time.Hour:      "which is over",
		25 * time.Hour:  "in 25h0m0s",
		100 * time.Hour: "in 4 days",
	} {
		if got := remaining(left); got != want {
			t.Errorf("%v: %q, want %q", left, got, want)
		}
	}
}
