package stream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"bridgehead/ws"
)

func TestAppendLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		message, line string // line "": it is refused
	}{
		{"GET x", "GET x\r\n"},
		{"", "\r\n"},
		{"its own end\n", "its own end\r\n"},
		{"its own end\r\n", "its own end\r\n"},
		{"half an end\r", "half an end\r\n"},
		{"\n", "\r\n"},
		{"\r\n", "\r\n"},
		{"no \x00 matter \xff", "no \x00 matter \xff\r\n"},
		{"\u2028 is no end\v\f\u0085", "\u2028 is no end\v\f\u0085\r\n"},
		{"two\nlines", ""},
		{"two\r\nlines", ""},
		{"two\rlines", ""},
		{"two ends\n\n", ""},
		{"two ends\r\r\n", ""},
		{"two ends\r\n\r\n", ""},
		{"two ends\n\r", ""},
		{"\nfirst", ""},
	} {
		line, err := appendLine([]byte("before "), []byte(c.message))
		if c.line == "" {
			if err == nil || !strings.Contains(err.Error(), "send each line as a message of its own") {
				t.Errorf("%q became %q, %v; want it to be refused", c.message, line, err)
			}
			continue
		}
		if err != nil || string(line) != "before "+c.line {
			t.Errorf("%q became %q, %v", c.message, line, err)
		}
	}
}

// scan gives the lines of a stream, and why there are no more.
func scan(r io.Reader, limit int) (lines []string, err error) {
	scanner := newScanner(r, func() int { return limit })
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	return lines, scanner.Err()
}

func TestScanner(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	x := strings.Repeat("x", 10_000)
	for _, c := range []struct {
		name, stream string
		limit        int
		lines        []string
		err          error
	}{
		{"nothing", "", 0, nil, nil},
		{"LF and CRLF", "a\nb\r\n\n\r\nc\n", 0, []string{"a", "b", "", "", "c"}, nil},
		{"the last line needs no end", "a\nb", 0, []string{"a", "b"}, nil},
		{"CR alone is no end", "a\rb\r\rc\r\n", 0, []string{"a\rb\r\rc"}, nil},
		{"one CR belongs to the end", "a\r\r\n", 0, []string{"a\r"}, nil},
		{"without a limit", x + x + "\n", 0, []string{x + x}, nil},
		{"at the limit, by LF", "12345\n1\n", 5, []string{"12345", "1"}, nil},
		{"at the limit, by CRLF", "12345\r\n1\r\n", 5, []string{"12345", "1"}, nil},
		{"at the limit, by the end", "12345", 5, []string{"12345"}, nil},
		{"beyond the limit, by LF", "1\n123456\n2\n", 5, []string{"1"}, bufio.ErrTooLong},
		{"beyond the limit, by CRLF", "123456\r\n", 5, nil, bufio.ErrTooLong},
		{"beyond the limit, by the end", "123456", 5, nil, bufio.ErrTooLong},
		{"beyond the limit, without an end", strings.Repeat("x", 100), 5, nil, bufio.ErrTooLong},
		{"a large line at the limit", x + "\r\n", 10_000, []string{x}, nil},
		{"a large line beyond the limit", x + "x\n", 10_000, nil, bufio.ErrTooLong},
		{"the smallest limit", "a\n\nbc\n", 1, []string{"a", ""}, bufio.ErrTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, reader := range []func(io.Reader) io.Reader{
				func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
			} {
				lines, err := scan(reader(strings.NewReader(c.stream)), c.limit)
				if !slices.Equal(lines, c.lines) || err != c.err {
					t.Errorf("got %d lines %.100q, %v", len(lines), lines, err)
				}
			}
		})
	}
	if lines, err := scan(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), 0); err != broken || !slices.Equal(lines, []string{"a", "b"}) {
		t.Errorf("%q, %v", lines, err)
	}
}

func TestWhyThereAreNoMoreLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		kind ws.Kind
	}{
		{nil, ws.BackendClosed},
		{fmt.Errorf("x: %w", bufio.ErrTooLong), ws.BackendTooBig},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, ws.BackendReset},
		{errors.New("x"), ws.BackendGone},
	} {
		if got := scanEnd(c.err); got.Kind != c.kind {
			t.Errorf("%v means %s, want %s", c.err, got.Kind, c.kind)
		}
	}
}

// However the network splits a stream, its lines are the same: those between its LFs.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\nb\n\nc"), []byte{1, 2}, uint8(0))
	f.Add([]byte("12345\r\n123456\n"), []byte{}, uint8(5))
	f.Fuzz(func(t *testing.T, stream, splits []byte, max uint8) {
		limit := int(max)
		want, wantErr := reference(stream, limit)
		got, err := scan(&split{bytes.NewReader(stream), splits}, limit)
		if !slices.Equal(got, want) || err != wantErr {
			t.Errorf("%q split by %v: %q, %v; want %q, %v", stream, splits, got, err, want, wantErr)
		}
	})
}

// reference cuts a stream that is there at once.
func reference(stream []byte, limit int) (lines []string, err error) {
	parts := strings.Split(string(stream), "\n")
	if last := len(parts) - 1; parts[last] == "" {
		parts = parts[:last]
	}
	for _, line := range parts {
		line = strings.TrimSuffix(line, "\r")
		if limit > 0 && len(line) > limit {
			return lines, bufio.ErrTooLong
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// split reads no more at a time than its sizes say, and then anything.
type split struct {
	r     io.Reader
	sizes []byte
}

func (s *split) Read(p []byte) (int, error) {
	if len(s.sizes) > 0 {
		p = p[:min(len(p), int(s.sizes[0])+1)]
		s.sizes = s.sizes[1:]
	}
	return s.r.Read(p)
}

// Messages that become lines come out again as they were, but for the one end that a message may bring.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("GET x\r\n"), []byte(""))
	f.Add([]byte("a\nb"), []byte("\r"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var stream []byte
		var want []string
		for _, message := range [][]byte{first, second} {
			line, err := appendLine(stream, message)
			if err != nil {
				if !bytes.ContainsAny(message, "\r\n") {
					t.Errorf("%q was refused", message)
				}
				continue
			}
			stream = line
			want = append(want, strings.TrimRight(string(message), "\r\n"))
		}
		if got, err := scan(bytes.NewReader(stream), 0); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", stream, got, err, want)
		}
	})
}
