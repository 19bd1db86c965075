package connect

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

const (
	prompt  = "> "
	erase   = "\r\x1b[K" // to the beginning of the line, and clear it
	stamp   = "2006-01-02T15:04:05.000Z07:00"
	oneLine = 16      // bytes of a binary message that are shown in one line
	dumped  = 4 << 10 // bytes of one that are shown at all
)

// A screen shows what came and what happened. Its methods may be called at once. In a pipe each message is one write.
type screen struct {
	Terminal
	options *Options
	live    bool // somebody types and sees: there is a prompt, and messages are marked
	now     func() time.Time

	mu       sync.Mutex // guards the following, and the writers
	prompted bool       // the prompt stands in the last line
}

func newScreen(o *Options, t Terminal) *screen {
	return &screen{Terminal: t, options: o, live: t.Typed && t.Shown && !o.Quiet && !o.Binary, now: time.Now}
}

// ready shows the prompt.
func (s *screen) ready() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live {
		s.prompted = true
		fmt.Fprint(s.Out, prompt)
	}
}

// typed tells that a line was typed: the terminal has gone on to the next.
func (s *screen) typed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prompted = false
}

// end takes the prompt away for good.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prompted {
		fmt.Fprint(s.Out, erase)
	}
	s.live, s.prompted = false, false
}

// note tells what happened, in one or more lines. Whatever stands in them is harmless.
func (s *screen) note(text string) {
	if s.options.Quiet {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.write(s.Notes, "* "+indent(safe(text))+"\n")
}

// control tells of a ping or a pong, which are news to somebody who watches.
func (s *screen) control(text string) {
	if s.live || s.options.Verbose {
		s.note(text)
	}
}

// message shows a message, and gives the error of standard output.
func (s *screen) message(kind int, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.options.Binary {
		_, err := s.Out.Write(data)
		return err
	}
	return s.write(s.Out, s.form(kind, data)+"\n")
}

// write writes a line above the prompt. What is typed already vanishes from sight, but not from the kernel's editor.
func (s *screen) write(w io.Writer, line string) error {
	if s.options.Timestamps {
		line = s.now().Format(stamp) + " " + line
	}
	if s.prompted {
		fmt.Fprint(s.Out, erase)
		defer fmt.Fprint(s.Out, prompt)
	}
	_, err := io.WriteString(w, line)
	return err
}

// form gives a message the form in which it is shown.
func (s *screen) form(kind int, data []byte) string {
	text := string(data)
	switch {
	case kind == websocket.BinaryMessage && s.live:
		return "< " + indent(dump(data, s.options.Hex))
	case kind == websocket.BinaryMessage:
		return hex.EncodeToString(data)
	case s.live:
		return "< " + indent(safe(text))
	case s.Shown:
		return safe(text)
	default:
		return text
	}
}

// dump shows bytes to people: in one line, or as offset, hex and ASCII.
func dump(data []byte, plain bool) string {
	head := fmt.Sprintf("binary, %d bytes", len(data))
	if plain || len(data) <= oneLine {
		return fmt.Sprintf("%s: % x", head, data)
	}
	shown := data[:min(len(data), dumped)]
	text := head + ":\n" + strings.TrimSuffix(hex.Dump(shown), "\n")
	if more := len(data) - len(shown); more > 0 {
		text += fmt.Sprintf("\n%d more bytes, which --hex shows", more)
	}
	return text
}

// indent sets the second and further lines apart from what begins a line.
func indent(text string) string { return strings.ReplaceAll(text, "\n", "\n  ") }

// safe escapes what could drive a terminal or mislead who reads it: control characters but for line feed and tab, what turns the
// direction of writing, and what is not UTF-8.
func safe(text string) string {
	var b strings.Builder
	for i, r := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case r < utf8.RuneSelf && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
