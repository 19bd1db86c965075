package connect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const (
	maxSent = 16 << 20 // bytes of a line or a file
	chunk   = 32 << 10 // bytes of a message of --binary, at most
)

// transmit sends what is typed or piped until that ends.
func (s *session) transmit() {
	if s.options.Binary {
		s.input <- s.sendChunks()
	} else {
		s.input <- s.sendLines()
	}
}

// sendChunks sends what each read brings.
func (s *session) sendChunks() ending {
	buf := make([]byte, chunk)
	for {
		n, err := s.show.In.Read(buf)
		if n > 0 {
			if err := s.send(frame{websocket.BinaryMessage, buf[:n]}); err != nil {
				return ending{err: err, lost: true}
			}
		}
		if err == io.EOF {
			return ending{}
		}
		if err != nil {
			return ending{err: fmt.Errorf("read the input: %w", err)}
		}
	}
}

// sendLines sends each line, or does what it says.
func (s *session) sendLines() ending {
	lines := bufio.NewScanner(s.show.In)
	lines.Buffer(nil, maxSent+1) // with its end
	s.show.ready()
	for number := 1; lines.Scan(); number++ {
		s.show.typed()
		f, err := s.frame(lines.Text())
		switch {
		case err != nil && !s.show.Typed:
			return ending{err: fmt.Errorf("line %d of the input: %w", number, err)}
		case err != nil:
			s.show.note(err.Error())
		case f.kind == helpFrame:
			s.show.note(helpText)
		case f.kind == websocket.CloseMessage:
			return ending{farewell: f.data}
		default:
			if err := s.send(f); err != nil {
				return ending{err: err, lost: true}
			}
		}
		s.show.ready()
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return ending{err: fmt.Errorf("a line of the input is longer than %d bytes: send it in pieces, with --binary", maxSent)}
	case err != nil:
		return ending{err: fmt.Errorf("read the input: %w", err)}
	default:
		return ending{}
	}
}

// frame is what a line is to be sent as.
func (s *session) frame(line string) (frame, error) {
	if s.show.Typed || s.options.Commands {
		return parse(line)
	}
	return text(line)
}

// send sends anything but a Close.
func (s *session) send(f frame) error {
	var err error
	switch f.kind {
	case websocket.PingMessage:
		s.mu.Lock()
		s.ping, s.pinged = string(f.data), time.Now()
		s.mu.Unlock()
		fallthrough
	case websocket.PongMessage:
		err = s.socket.WriteControl(f.kind, f.data, time.Now().Add(closeTimeout))
	default:
		err = s.socket.WriteMessage(f.kind, f.data)
	}
	if err != nil {
		return fmt.Errorf("send a message: %s", lost(err))
	}
	return nil
}

// lost says how a connection broke.
func lost(err error) string {
	if websocket.IsCloseError(err, websocket.CloseAbnormalClosure) {
		return "the server hung up without a close (1006)"
	}
	return strings.TrimPrefix(err.Error(), "websocket: ")
}
