package connect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

const (
	maxReceived  = 64 << 20        // bytes of a message, when it is inflated
	closeTimeout = 5 * time.Second // for the server's answer to our Close
)

// errInterrupted is for whoever did not want to wait.
var errInterrupted = errors.New("interrupted before the server answered the close")

// A session is a socket from its opening to its end. Two goroutines carry messages, one each way; run decides when it is over.
type session struct {
	socket  *socket
	show    *screen
	options *Options

	news     chan struct{} // filled by each message
	enough   chan error    // all was shown that is to be shown, or it could not be
	closed   chan error    // how the socket ended; then receive is over
	input    chan ending   // how the input ended; then transmit is over
	received atomic.Int64  // messages

	mu     sync.Mutex // guards the following
	ping   string     // the payload of our last ping
	pinged time.Time
}

// An ending says why it is time to end the socket.
type ending struct {
	farewell []byte // the payload of the Close that was asked for; nil: one with 1000
	err      error  // what went wrong
	lost     bool   // the socket takes no more: how it ended will be known soon
}

func newSession(o *Options, conn *socket, show *screen) *session {
	return &session{
		socket: conn, show: show, options: o,
		news: make(chan struct{}, 1), enough: make(chan error, 1), closed: make(chan error, 1), input: make(chan ending, 1),
	}
}

// run goes on until the socket has ended, see Client.Run.
func (s *session) run(ctx, now context.Context) error {
	stop := context.AfterFunc(now, func() { s.socket.Close() }) // wakes whoever waits for the server
	defer stop()
	s.watchControls()
	go s.receive()
	go s.transmit()

	silence := time.NewTimer(time.Hour)
	silence.Stop()
	defer silence.Stop()
	for input, drained := s.input, false; ; {
		select {
		case err := <-s.closed:
			return s.verdict(err)
		case err := <-s.enough:
			return s.hangUp(now, ending{err: err})
		case end := <-input:
			if end.lost || end.err != nil || end.farewell != nil || s.show.Typed {
				return s.hangUp(now, end)
			}
			input, drained = nil, true
			s.await(silence)
		case <-s.news:
			if drained {
				s.await(silence)
			}
		case <-silence.C:
			return s.hangUp(now, ending{err: s.missing()})
		case <-ctx.Done():
			return s.hangUp(now, ending{})
		}
	}
}

// await begins to wait for another message.
func (s *session) await(silence *time.Timer) {
	if s.options.Wait >= 0 {
		silence.Reset(s.options.Wait)
	}
}

// missing is an error if fewer messages came than were asked for.
func (s *session) missing() error {
	if n, want := s.received.Load(), int64(s.options.Count); n < want {
		return fmt.Errorf("%d of %d messages came", n, want)
	}
	return nil
}

// hangUp sends a Close, unless the socket takes nothing, and waits for the socket's end.
func (s *session) hangUp(now context.Context, end ending) error {
	ours := !end.lost && s.sayGoodbye(end.farewell)
	select {
	case err := <-s.closed:
		switch {
		case now.Err() != nil:
			return errInterrupted
		case !ours:
			return s.verdict(err)
		}
		s.tellClosed(err)
		return end.err
	case <-time.After(closeTimeout):
		return cmp.Or(end.err, fmt.Errorf("the server did not answer the close within %v", closeTimeout))
	case <-now.Done():
		return errInterrupted
	}
}

// sayGoodbye sends a Close and tells whether it is the first.
func (s *session) sayGoodbye(payload []byte) bool {
	if payload == nil {
		payload = websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	}
	err := s.socket.WriteControl(websocket.CloseMessage, payload, time.Now().Add(closeTimeout))
	return !errors.Is(err, websocket.ErrCloseSent)
}

// tellClosed tells how the server answered our Close.
func (s *session) tellClosed(err error) {
	if answer, ok := s.socket.closeOf(err); ok {
		s.show.note("closed: " + describe(answer))
	} else {
		s.show.note("closed; the server hung up without an answer to it")
	}
}

// verdict is what is to be said of a socket that the server has ended.
func (s *session) verdict(err error) error {
	frame, ok := s.socket.closeOf(err)
	if !ok {
		return fmt.Errorf("the socket broke: %s", lost(err))
	}
	text := "closed by the server: " + describe(frame)
	if frame.Code != websocket.CloseNormalClosure && frame.Code != websocket.CloseNoStatusReceived {
		return errors.New(text)
	}
	if missing := s.missing(); missing != nil {
		return fmt.Errorf("%s; %w", text, missing)
	}
	s.show.note(text)
	return nil
}

// receive shows what comes until the socket ends.
func (s *session) receive() {
	for over := false; ; {
		kind, data, err := s.read()
		if err != nil {
			s.closed <- err
			return
		}
		if over {
			continue // only the Close is of interest
		}
		err = s.show.message(kind, data)
		n := s.received.Add(1)
		if errors.Is(err, syscall.EPIPE) { // nobody reads any more, as behind head
			err, over = nil, true
		}
		if over = over || err != nil || n == int64(s.options.Count); over {
			s.enough <- err
		}
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
}

// read reads a message. Gorilla's own limit counts bytes before they are inflated.
func (s *session) read() (kind int, data []byte, err error) {
	kind, r, err := s.socket.NextReader()
	if err != nil {
		return 0, nil, err
	}
	data, err = io.ReadAll(io.LimitReader(r, maxReceived+1))
	if err == nil && len(data) > maxReceived {
		s.sayGoodbye(websocket.FormatCloseMessage(websocket.CloseMessageTooBig, ""))
		err = fmt.Errorf("a message is longer than %d bytes", maxReceived)
	}
	return kind, data, err
}

// watchControls shows pings and pongs; gorilla answers the pings.
func (s *session) watchControls() {
	answer := s.socket.PingHandler()
	s.socket.SetPingHandler(func(payload string) error {
		s.show.control("ping" + quoted(payload) + ", answered")
		return answer(payload)
	})
	s.socket.SetPongHandler(func(payload string) error {
		s.show.control("pong" + quoted(payload) + s.roundTrip(payload, time.Now()))
		return nil
	})
}

// quoted is the payload of a ping or a pong, if it has one.
func quoted(payload string) string {
	if payload == "" {
		return ""
	}
	return " " + strconv.Quote(payload)
}

// roundTrip says how long our last ping took, if this is its pong.
func (s *session) roundTrip(payload string, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pinged.IsZero() || payload != s.ping {
		return ""
	}
	took := now.Sub(s.pinged)
	s.pinged = time.Time{}
	return " after " + took.Round(10*time.Microsecond).String()
}
