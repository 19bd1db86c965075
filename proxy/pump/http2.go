package pump

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"
)

// A StreamWriter is the ResponseWriter of an HTTP/2 stream, made to behave as that of an HTTP/1.1 connection. A write deadline ends the
// write that waits for the client then, and the stream with it, but nothing as long as none waits; and no header that speaks of a
// connection goes out (RFC 9113, section 8.2.2), so that an answer which would end one ends its stream alone. SetWriteDeadline may be
// called at once with everything else.
type StreamWriter struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration // for each write, as long as nobody has set a deadline
	sent     bool          // the header is on its way
	asked    bool          // for a socket that nobody has opened yet

	mu      sync.Mutex // guards the following
	set     bool       // by is somebody's
	by      time.Time  // zero: there is no deadline
	writing bool
	timer   *time.Timer // nil: it was never needed
}

// NewStreamWriter wraps the ResponseWriter of an HTTP/2 stream. patience is what a write may take as long as no deadline is set. socket
// tells that the request asks for a socket: any 2xx would open it there (RFC 9110, section 9.3.6), so that until NewStream does those
// of others, such as of a file, are a 400.
func NewStreamWriter(w http.ResponseWriter, socket bool, patience time.Duration) *StreamWriter {
	return &StreamWriter{ResponseWriter: w, control: http.NewResponseController(w), asked: socket, patience: patience}
}

// Finish bounds what net/http still writes when the handler returns. It is called last.
func (w *StreamWriter) Finish() { _ = w.control.SetWriteDeadline(time.Now().Add(w.patience)) }

// Unwrap is for http.ResponseController.
func (w *StreamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader is http.ResponseWriter's.
func (w *StreamWriter) WriteHeader(status int) {
	w.sent = w.sent || status >= http.StatusOK
	for _, name := range []string{"Connection", "Upgrade", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding"} {
		w.Header().Del(name)
	}
	if w.asked && status >= http.StatusOK && status < http.StatusMultipleChoices {
		status = http.StatusBadRequest
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write is http.ResponseWriter's.
func (w *StreamWriter) Write(p []byte) (int, error) {
	if !w.sent {
		w.WriteHeader(http.StatusOK)
	}
	if err := w.begin(); err != nil {
		return 0, err
	}
	defer w.end()
	return w.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (w *StreamWriter) FlushError() error {
	if !w.sent {
		w.WriteHeader(http.StatusOK)
	}
	if err := w.begin(); err != nil {
		return err
	}
	defer w.end()
	return w.control.Flush()
}

// SetWriteDeadline is for http.ResponseController.
func (w *StreamWriter) SetWriteDeadline(by time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set, w.by = true, by
	if w.writing {
		w.armLocked()
	}
	return nil
}

func (w *StreamWriter) begin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !w.set {
		w.by = now.Add(w.patience)
	}
	if !w.by.IsZero() && !now.Before(w.by) {
		return os.ErrDeadlineExceeded
	}
	w.writing = true
	w.armLocked()
	return nil
}

func (w *StreamWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = false
	if w.timer != nil {
		w.timer.Stop()
	}
}

// armLocked has the write that is under way end at its deadline.
func (w *StreamWriter) armLocked() {
	switch {
	case w.by.IsZero() && w.timer == nil:
	case w.by.IsZero():
		w.timer.Stop()
	case w.timer == nil:
		w.timer = time.AfterFunc(time.Until(w.by), w.expire)
	default:
		w.timer.Reset(time.Until(w.by))
	}
}

// expire resets the stream if a write waits beyond its deadline: that alone ends the write. (net/http does it at once for a deadline
// that lies in the past.)
func (w *StreamWriter) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writing && !w.by.IsZero() && !time.Now().Before(w.by) {
		_ = w.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

// A Stream is the connection of a socket that came over HTTP/2: what the client sends is the body of its request, what it is sent that
// of the answer. The handler that made it must not return before Done. The end of its sending half is the handler's return, so it has
// no halves to close: after Close the client is told the end of the stream, and of a write that waited its reset.
type Stream struct {
	w             http.ResponseWriter
	control       *http.ResponseController
	body          io.ReadCloser
	local, remote net.Addr

	closing chan struct{} // closed by Close
	done    chan struct{}

	mu     sync.Mutex // guards the following
	closed bool
	uses   int       // calls that are under way
	writes int       // of these, Writes
	by     time.Time // the deadline for writes
	late   bool      // it has ended one
}

// NewStream opens the socket that an HTTP/2 request asks for: it gives its connection. The header goes out with the first write. w is
// a StreamWriter.
func NewStream(w http.ResponseWriter, r *http.Request) *Stream {
	if w, ok := w.(*StreamWriter); ok {
		w.asked = false
	}
	s := &Stream{
		w: w, control: http.NewResponseController(w), body: r.Body, remote: new(net.TCPAddr),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		s.remote = net.TCPAddrFromAddrPort(peer)
	}
	if s.local, _ = r.Context().Value(http.LocalAddrContextKey).(net.Addr); s.local == nil {
		s.local = new(net.TCPAddr)
	}
	return s
}

// Done is closed when the stream is closed and nobody uses the request any more.
func (s *Stream) Done() <-chan struct{} { return s.done }

// use begins a call. It reports false when the stream is closed.
func (s *Stream) use() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.uses++
	}
	return !s.closed
}

func (s *Stream) unuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses--
	s.tellDoneLocked()
}

func (s *Stream) tellDoneLocked() {
	if s.closed && s.uses == 0 {
		close(s.done)
	}
}

// Read is net.Conn's. The end of the client's half is io.EOF.
func (s *Stream) Read(p []byte) (int, error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.unuse()
	n, err := s.body.Read(p)
	if err != nil && err != io.EOF && s.isLate() {
		s.leaveToWriter()
	}
	return n, s.failure("read", err)
}

// isLate tells whether a write has waited too long, which has reset the stream.
func (s *Stream) isLate() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late || s.writes > 0 && !s.by.IsZero() && !time.Now().Before(s.by)
}

// leaveToWriter gives the write whose deadline has reset the stream the time to say so first: to the reader it looks as if the client
// had left.
func (s *Stream) leaveToWriter() {
	timer := time.NewTimer(goodbye)
	defer timer.Stop()
	select {
	case <-s.closing:
	case <-timer.C:
	}
}

// Write is net.Conn's. It returns when all is on its way to the client, or its deadline has ended the stream.
func (s *Stream) Write(p []byte) (int, error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.unuse()
	s.countWrite(1, nil)
	n, err := s.w.Write(p)
	if err == nil {
		err = s.control.Flush()
	}
	s.countWrite(-1, err)
	return n, s.failure("write", err)
}

func (s *Stream) countWrite(n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes += n
	s.late = s.late || errors.Is(err, os.ErrDeadlineExceeded)
}

// failure makes an error one of the network.
func (s *Stream) failure(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "http2", Source: s.local, Addr: s.remote, Err: err}
}

// Close is net.Conn's. Reads and writes that wait are ended; nobody else may close the stream's request.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	close(s.closing)
	_ = s.body.Close()
	_ = s.control.SetWriteDeadline(time.Unix(1, 0))
	s.tellDoneLocked()
	return nil
}

// SetDeadline is net.Conn's.
func (s *Stream) SetDeadline(by time.Time) error {
	_ = s.SetReadDeadline(by)
	return s.SetWriteDeadline(by)
}

// SetReadDeadline is net.Conn's, but that a deadline which has passed is the end of the reading half.
func (s *Stream) SetReadDeadline(by time.Time) error { return s.ifOpen(s.control.SetReadDeadline, by) }

// SetWriteDeadline is net.Conn's, but that a deadline which ends a write ends the stream.
func (s *Stream) SetWriteDeadline(by time.Time) error {
	s.mu.Lock()
	s.by = by
	s.mu.Unlock()
	return s.ifOpen(s.control.SetWriteDeadline, by)
}

func (s *Stream) ifOpen(set func(time.Time) error, by time.Time) error {
	if !s.use() {
		return net.ErrClosed
	}
	defer s.unuse()
	return set(by)
}

// LocalAddr is net.Conn's: that of the connection which carries the stream.
func (s *Stream) LocalAddr() net.Addr { return s.local }

// RemoteAddr is net.Conn's: that of the connection which carries the stream.
func (s *Stream) RemoteAddr() net.Addr { return s.remote }
