package ws

import "fmt"

// A ProtocolError says how a peer broke the protocol.
type ProtocolError struct {
	Code   Code   // what the peer is to be told: 1002, 1003, 1007, 1008 or 1009
	Reason string // for the Close frame and the log
}

// Error gives the reason and the code.
func (e *ProtocolError) Error() string { return fmt.Sprintf("%s (close code %d)", e.Reason, e.Code) }

func protocolError(reason string) error { return &ProtocolError{CodeProtocolError, reason} }

// A Filter watches the frames that one peer sends while they pass on to the other: it checks, counts and limits them in flight,
// and tells its driver where something may be put between. It works in place on the driver's buffer and keeps nothing but an
// incomplete header or control frame, so that a frame streams through however long it is. The fields are set before the first
// Pass; MaxMessage and MaxFragments may change between two. A Filter is not safe for concurrent use.
//
// How a stream is cut into chunks changes nothing in what passes, which events come and how it ends.
type Filter struct {
	FromClient   bool   // the peer is a client: its frames must be masked, a server's must not be (RFC 6455, section 5.1)
	Deflate      bool   // permessage-deflate was negotiated: RSV1 may stand on the first frame of a message (RFC 7692, section 6)
	MaxFragments int32  // the most frames of one message, checked before a frame passes; 0: no limit
	MaxMessage   int64  // greatest sum of the payload lengths of a message, in bytes on the wire, checked before a frame passes; 0: no limit
	Strip        bool   // toward a byte stream: the payload of data frames alone passes, unmasked. Otherwise frames pass as they came
	CheckText    bool   // text messages must be UTF-8, checked while they stream; not to be combined with Deflate
	Only         Opcode // Text or Binary: data messages of the other type are an error; 0: both pass

	// Control is called for each complete ping and pong with its payload, unmasked, which it must neither change nor keep. It
	// returns whether the frame passes on; with Strip none does. nil lets all pass.
	Control func(op Opcode, payload []byte) bool

	left      int64   // bytes of the current data frame's payload that did not pass yet
	size      int64   // declared payload bytes of the current message
	fragments int32   // frames of the current message
	key       [4]byte // of the current data frame
	pos       uint8   // in the key
	fin       bool    // the current data frame is its message's last
	open      bool    // a data message has begun and not ended
	text      bool    // and is text to be checked
	over      bool    // a Close or an error ended the stream
	utf8      UTF8
	kept      uint8       // how much of held is
	held      *incomplete // kept from the last chunk; nil: nothing ever was
	err       error
}

// An incomplete header or control frame.
type incomplete [MaxHeaderSize + MaxControlPayload]byte

// Passed is what came of one chunk.
type Passed struct {
	Out []byte // what goes on; it aliases the chunk

	// Frame and Message are the last offsets in Out behind a frame, where a control frame may be put between, and behind a frame
	// where no message is open, where a data message may be put as well; -1: none, as always with Strip. The beginning of Out is
	// never reported: whether it is such a place was known from what went before.
	Frame, Message int

	Frames   int         // frames whose header, or all of whose bytes if they are control frames, ended in this chunk; dropped ones too
	Messages int         // data messages that ended in this chunk
	Bytes    int         // data payload that passed, in bytes on the wire
	Close    *CloseFrame // the peer's Close: the last thing in Out, but for Strip; what came behind it was discarded
}

// Pass takes one chunk, which must begin with what Held gave. The error is a *ProtocolError: Out then holds all that came before
// the offence, and the Filter is finished, as it is after a Close: further calls let nothing pass.
func (f *Filter) Pass(chunk []byte) (Passed, error) {
	f.kept = 0
	p := Passed{Frame: -1, Message: -1}
	if f.over {
		return p, f.err
	}
	c := cursor{buf: chunk}
	if err := f.run(&c, &p); err != nil {
		f.err, f.over = err, true
	}
	p.Out = c.buf[c.start:c.out]
	return p, f.err
}

// Held copies what was kept back from the last chunk, at most MaxHeaderSize+MaxControlPayload bytes, to the front of buf and
// returns its length. The caller reads behind it and passes all of it.
func (f *Filter) Held(buf []byte) int {
	if f.kept == 0 {
		return 0
	}
	return copy(buf, f.held[:f.kept])
}

// MidFrame reports whether what passed so far ends inside a frame: nothing but the rest of it may follow. With Strip no frames
// pass, and it is false.
func (f *Filter) MidFrame() bool { return f.left > 0 && !f.Strip }

// MidMessage reports whether what passed so far ends inside a data message, perhaps between two of its frames: no other data
// message may follow. With Strip it is false.
func (f *Filter) MidMessage() bool { return f.open && !f.Strip }

// run takes frame after frame until the chunk is used up or the stream ends.
func (f *Filter) run(c *cursor, p *Passed) error {
	for c.in < len(c.buf) && !f.over {
		var err error
		if f.left > 0 {
			err = f.payload(c, p)
		} else {
			err = f.frame(c, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// frame takes what stands between two payloads: the header of a data frame, or a whole control frame. What is not all there is
// kept for the next chunk.
func (f *Filter) frame(c *cursor, p *Passed) error {
	rest := c.rest()
	var h Header
	size, err := h.parse(rest)
	if err != nil {
		return err
	}
	if size == 0 {
		f.hold(c)
		return nil
	}
	if err := f.check(&h); err != nil {
		return err
	}
	if !h.Opcode.IsControl() {
		return f.begin(c, p, &h, size)
	}
	size += int(h.Length)
	if len(rest) < size {
		f.hold(c)
		return nil
	}
	return f.control(c, p, &h, rest[:size])
}

// hold keeps the rest of the chunk for the next.
func (f *Filter) hold(c *cursor) {
	if f.held == nil {
		f.held = new(incomplete)
	}
	f.kept = uint8(copy(f.held[:], c.rest()))
	c.in = len(c.buf)
}

// check applies the rules for a header that depend on the peer, on what was negotiated and on what came before.
func (f *Filter) check(h *Header) error {
	switch {
	case h.Masked && !f.FromClient:
		return protocolError("masked frame from a server")
	case !h.Masked && f.FromClient:
		return protocolError("unmasked frame from a client")
	case h.RSV1 && !f.Deflate:
		return protocolError("compression bit set, but compression was not negotiated")
	case h.Opcode.IsControl():
		return nil
	case h.Opcode == Continuation && !f.open:
		return protocolError("continuation of no message")
	case h.Opcode != Continuation && f.open:
		return protocolError("new message inside a fragmented one")
	case h.Opcode == Text && f.Only == Binary:
		return &ProtocolError{CodeUnsupportedData, "text message where only binary is taken"}
	case h.Opcode == Binary && f.Only == Text:
		return &ProtocolError{CodeUnsupportedData, "binary message where only text is taken"}
	case f.MaxFragments > 0 && h.Opcode == Continuation && f.fragments >= f.MaxFragments:
		return &ProtocolError{CodePolicyViolation, fmt.Sprintf("message of more than %d fragments", f.MaxFragments)}
	case f.MaxMessage > 0 && h.Length > f.MaxMessage-f.size:
		return &ProtocolError{CodeTooBig, fmt.Sprintf("message longer than %d bytes", f.MaxMessage)}
	}
	return nil
}

// begin lets the header of a data frame pass and makes the frame the current one.
func (f *Filter) begin(c *cursor, p *Passed, h *Header, size int) error {
	if f.Strip {
		c.skip(size)
	} else {
		c.pass(size)
	}
	if h.Opcode != Continuation {
		f.open = true
		f.fragments = 0
		f.text = f.CheckText && h.Opcode == Text
	}
	p.Frames++
	f.fragments++
	f.fin = h.Fin
	f.size += h.Length
	f.left = h.Length
	f.key, f.pos = h.Mask, 0
	if f.left == 0 {
		return f.end(c, p)
	}
	return nil
}

// payload lets pass what the chunk has of the current data frame's payload.
func (f *Filter) payload(c *cursor, p *Passed) error {
	data := c.rest()
	if int64(len(data)) > f.left {
		data = data[:f.left]
	}
	valid := f.look(data)
	c.pass(valid)
	p.Bytes += valid
	f.left -= int64(valid)
	if valid < len(data) {
		return &ProtocolError{CodeInvalidPayload, "text is not UTF-8"}
	}
	if f.left == 0 {
		return f.end(c, p)
	}
	return nil
}

// look unmasks data if it is to pass so, or must be looked at, and returns how many bytes of it may pass: all, unless it is text
// that ceases to be UTF-8.
func (f *Filter) look(data []byte) int {
	pos := int(f.pos)
	if f.FromClient && (f.Strip || f.text) {
		f.pos = uint8(Mask(data, f.key, pos))
	}
	if !f.text {
		return len(data)
	}
	valid := f.utf8.feed(data)
	if f.FromClient && !f.Strip {
		Mask(data, f.key, pos)
	}
	return valid
}

// end ends the current data frame, and its message if it is the last.
func (f *Filter) end(c *cursor, p *Passed) error {
	if f.fin {
		f.open = false
		f.size = 0
		if f.text && !f.utf8.Complete() {
			return &ProtocolError{CodeInvalidPayload, "text ends inside a UTF-8 sequence"}
		}
		p.Messages++
	}
	f.boundary(c, p)
	return nil
}

// boundary notes that Out so far ends behind a frame.
func (f *Filter) boundary(c *cursor, p *Passed) {
	if f.Strip {
		return
	}
	p.Frame = c.out - c.start
	if !f.open {
		p.Message = p.Frame
	}
}

// control takes a whole control frame: the header h and what follows it at the end of frame.
func (f *Filter) control(c *cursor, p *Passed, h *Header, frame []byte) error {
	p.Frames++
	payload := frame[len(frame)-int(h.Length):]
	if h.Opcode == Close {
		return f.close(c, p, h, frame, payload)
	}
	passes := !f.Strip
	if f.Control != nil {
		Mask(payload, h.Mask, 0)
		passes = f.Control(h.Opcode, payload) && passes
		Mask(payload, h.Mask, 0)
	}
	if !passes {
		c.skip(len(frame))
		return nil
	}
	c.pass(len(frame))
	f.boundary(c, p)
	return nil
}

// close takes the Close. One whose code may not be sent passes as an empty one, written in its place.
func (f *Filter) close(c *cursor, p *Passed, h *Header, frame, payload []byte) error {
	Mask(payload, h.Mask, 0)
	code, reason, err := ParseClose(payload)
	if err != nil {
		return err
	}
	Mask(payload, h.Mask, 0)
	p.Close = &CloseFrame{Code: code, Reason: reason}
	f.over = true
	if f.Strip {
		return nil
	}
	if code == CodeNoStatus {
		h.Length = 0
		frame = AppendHeader(frame[:0], *h)
	}
	c.pass(len(frame))
	return nil
}

// A cursor walks through a chunk and closes, in place, the gaps that skipped bytes leave.
type cursor struct {
	buf        []byte
	start, out int // what passed stands in buf[start:out]
	in         int // the next byte to look at
}

func (c *cursor) rest() []byte { return c.buf[c.in:] }

// pass lets the next n bytes pass.
func (c *cursor) pass(n int) {
	if c.out != c.in {
		copy(c.buf[c.out:], c.buf[c.in:c.in+n])
	}
	c.out += n
	c.in += n
}

// skip drops the next n bytes. As long as nothing passed, what passes begins behind them, and nothing need be moved.
func (c *cursor) skip(n int) {
	c.in += n
	if c.out == c.start {
		c.start, c.out = c.in, c.in
	}
}
