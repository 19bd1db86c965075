package connect

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

func TestSafe(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain é 漢 👩‍💻\ttab\nline": "plain é 漢 👩‍💻\ttab\nline",
		"\x1b[31mred\x07\x00\x7f":  `\x1b[31mred\x07\x00\x7f`,
		"\u009b31m":                `\u009b31m`, // the same in one character
		"a\r\bb":                   `a\x0d\x08b`,
		"\u202eabc\u2069":          `\u202eabc\u2069`,
		"\xff\xc3":                 `\xff\xc3`,
		"\uFFFD":                   "\uFFFD",
	} {
		if got := safe(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}

func FuzzSafe(f *testing.F) {
	f.Add("\x1b]0;title\x07\u202e\xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := safe(text)
		bad := strings.ContainsFunc(got, func(r rune) bool {
			return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
		})
		if bad || !utf8.ValidString(got) {
			t.Errorf("%q is shown as %q", text, got)
		}
	})
}

func TestMessagesAreShownToWhoReadsThem(t *testing.T) {
	t.Parallel()
	person, piped, display := Terminal{Typed: true, Shown: true}, Terminal{}, Terminal{Shown: true}
	long := strings.Repeat("x", dumped+1)
	for _, c := range []struct {
		rule     string
		terminal Terminal
		o        Options
		kind     int
		data     string
		want     string
	}{
		{"text", person, Options{}, websocket.TextMessage, "a\x1b\nb", "< a\\x1b\n  b\n"},
		{"text in a pipe", piped, Options{}, websocket.TextMessage, "a\x1b\nb", "a\x1b\nb\n"},
		{"text behind a pipe", display, Options{}, websocket.TextMessage, "a\x1b\nb", "a\\x1b\nb\n"},
		{"quiet", person, Options{Quiet: true}, websocket.TextMessage, "a\x1b", "a\\x1b\n"},
		{"bytes", person, Options{}, websocket.BinaryMessage, "\x00\xff", "< binary, 2 bytes: 00 ff\n"},
		{"no bytes", person, Options{}, websocket.BinaryMessage, "", "< binary, 0 bytes: \n"},
		{"more bytes", person, Options{}, websocket.BinaryMessage, "0123456789abcdefg", "< binary, 17 bytes:\n" +
			"  00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|\n" +
			"  00000010  67                                                |g|\n"},
		{"hex", person, Options{Hex: true}, websocket.BinaryMessage, "0123456789abcdefg",
			"< binary, 17 bytes: 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66 67\n"},
		{"bytes in a pipe", piped, Options{}, websocket.BinaryMessage, "0123456789abcdefg", "3031323334353637383961626364656667\n"},
		{"bytes as they come", piped, Options{Binary: true}, websocket.BinaryMessage, "\x00\xff", "\x00\xff"},
		{"text as it comes", piped, Options{Binary: true}, websocket.TextMessage, "a", "a"},
		{"when", piped, Options{Timestamps: true}, websocket.TextMessage, "a", "2026-01-20T12:00:00.123+01:00 a\n"},
		{"when to people", person, Options{Timestamps: true}, websocket.TextMessage, "a", "2026-01-20T12:00:00.123+01:00 < a\n"},
	} {
		var out bytes.Buffer
		c.terminal.Out = &out
		s := newScreen(&c.o, c.terminal)
		s.now = func() time.Time { return time.Date(2026, 1, 20, 12, 0, 0, 123456789, time.FixedZone("", 3600)) }
		if err := s.message(c.kind, []byte(c.data)); err != nil || out.String() != c.want {
			t.Errorf("%s: shown %q, %v, want %q", c.rule, out.String(), err, c.want)
		}
	}
	if got := dump([]byte(long), false); !strings.HasSuffix(got, "\n1 more bytes, which --hex shows") || strings.Count(got, "\n") != dumped/16+1 {
		t.Errorf("a long message is shown as %q", got)
	}
	if got := dump([]byte(long), true); len(got) < 3*len(long) {
		t.Errorf("--hex cuts a long message to %d characters", len(got))
	}
}

func TestThePromptIsUnderWhatIsShown(t *testing.T) {
	t.Parallel()
	var out, notes bytes.Buffer
	s := newScreen(new(Options), Terminal{Out: &out, Notes: &notes, Typed: true, Shown: true})
	s.note("before")
	s.ready()
	s.message(websocket.TextMessage, []byte("one"))
	s.note("news") // goes elsewhere, but may be the same terminal
	s.typed()
	s.note("answer")
	s.ready()
	s.end()
	s.ready() // too late
	const e = erase
	if want := "> " + e + "< one\n> " + e + "> " + "> " + e; out.String() != want {
		t.Errorf("standard output has %q, want %q", out.String(), want)
	}
	if want := "* before\n* news\n* answer\n"; notes.String() != want {
		t.Errorf("standard error has %q, want %q", notes.String(), want)
	}
}
