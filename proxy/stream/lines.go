package stream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"bridgehead/proxy"
	"bridgehead/proxy/pump"
	"bridgehead/ws"
)

// lines is a session in which a message is a line: toward the client without its end, toward the stream with CRLF.
type lines struct {
	conn   net.Conn
	op     ws.Opcode
	linger time.Duration

	client   *proxy.Client
	messages *pump.Messages
	ended    chan struct{} // closed when the stream has ended
	closed   atomic.Bool   // the client has closed: what is left is to deliver the stream's last lines
}

func newLines(conn net.Conn, op ws.Opcode, linger time.Duration) *lines {
	return &lines{conn: conn, op: op, linger: linger, ended: make(chan struct{})}
}

// Start begins one goroutine per direction.
func (s *lines) Start(c *proxy.Client) {
	s.client = c
	s.messages = pump.NewMessages(&c.Socket)
	c.Attach(s.messages)
	c.Go(s.toStream)
	c.Go(s.toClient)
}

// Close ends both sides.
func (s *lines) Close(cause ws.Cause) {
	if s.messages == nil {
		s.conn.Close()
		return
	}
	s.conn.SetDeadline(time.Now()) // wakes both directions
	defer time.AfterFunc(s.client.Options().CloseTimeout, func() { s.conn.Close() }).Stop()
	s.messages.Close(cause)
	<-s.ended
	pump.HangUp(s.conn)
}

// toStream writes the client's messages as lines until it closes. The stream learns of that by FIN and may go on for a while.
func (s *lines) toStream() {
	cause := s.messages.Serve(s.write)
	if cause.Kind == ws.ClientClosed && s.linger > 0 {
		s.closed.Store(true)
		s.awaitEnd()
	}
	s.client.End(cause)
}

func (s *lines) awaitEnd() {
	if err := pump.CloseWrite(s.conn); err != nil {
		return
	}
	select {
	case <-s.ended:
	case <-s.client.Ending.Done():
	case <-time.After(s.linger):
	}
}

// outgoing lends the buffers in which messages get the end of their line.
var outgoing = sync.Pool{New: func() any { return new([]byte) }}

// write sends one line. While it waits, the client is not read.
func (s *lines) write(m ws.Message) error {
	buf := outgoing.Get().(*[]byte)
	defer outgoing.Put(buf)
	line, err := appendLine((*buf)[:0], m.Data)
	if err != nil {
		return ws.Cause{Kind: ws.ClientContent, Err: err}
	}
	*buf = line
	var by time.Time
	if timeout := s.client.Options().WriteTimeout; timeout > 0 {
		by = time.Now().Add(timeout)
	}
	s.conn.SetWriteDeadline(by)
	if _, err := s.conn.Write(line); err != nil {
		return pump.StreamEnd(err)
	}
	return nil
}

// toClient sends each line of the stream until that ends.
func (s *lines) toClient() {
	defer close(s.ended)
	scanner := newScanner(s.conn, func() int { return int(s.client.Options().BackendMessageSize) })
	for scanner.Scan() {
		line := scanner.Bytes()
		if s.op == ws.Text {
			line = bytes.ToValidUTF8(line, []byte("\uFFFD"))
		}
		if err := s.messages.Write(ws.Message{Op: s.op, Data: line}); err != nil {
			s.client.EndBy(err)
			return
		}
	}
	if !s.closed.Load() {
		s.client.End(scanEnd(scanner.Err()))
	}
}

// scanEnd says why there are no more lines.
func scanEnd(err error) ws.Cause {
	switch {
	case err == nil:
		return pump.StreamEnd(io.EOF)
	case errors.Is(err, bufio.ErrTooLong):
		return ws.Cause{Kind: ws.BackendTooBig, Err: err}
	}
	return pump.StreamEnd(err)
}

// newScanner cuts a stream at LF, of which a CR before it is a part. A longer line than limit gives at the time is an error; 0 is no
// limit.
func newScanner(r io.Reader, limit func() int) *bufio.Scanner {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, math.MaxInt)
	scanner.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		advance, line, err := bufio.ScanLines(data, atEOF)
		size := len(line)
		if advance == 0 {
			size = len(data) - len("\r") // which may be a part of the end
		}
		if limit := limit(); limit > 0 && size > limit {
			return 0, nil, bufio.ErrTooLong
		}
		return advance, line, err
	})
	return scanner
}

// appendLine appends a message and the end of its line. A message may bring that end itself; an end inside it would make two
// lines of one message, past every rule about messages, and is refused.
func appendLine(dst, message []byte) ([]byte, error) {
	message = bytes.TrimSuffix(bytes.TrimSuffix(message, []byte("\n")), []byte("\r"))
	if bytes.ContainsAny(message, "\r\n") {
		return nil, errors.New("the message holds a line end; send each line as a message of its own")
	}
	return append(append(dst, message...), "\r\n"...), nil
}
