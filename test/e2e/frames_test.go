package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"bridgehead/ws"
)

// rawFrame is a client's frame, masked with a constant key.
func rawFrame(h ws.Header, payload string) []byte {
	h.Masked, h.Mask, h.Length = true, [4]byte{1, 2, 3, 4}, int64(len(payload))
	data := []byte(payload)
	ws.Mask(data, h.Mask, 0)
	return append(ws.AppendHeader(nil, h), data...)
}

// readHead reads the head of a request, and what came behind it.
func readHead(t *testing.T, conn net.Conn) (head string, rest []byte) {
	t.Helper()
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		all = append(all, buf[:n]...)
		if head, rest, ok := bytes.Cut(all, []byte("\r\n\r\n")); ok {
			return string(head), rest
		}
		if err != nil {
			return "", nil
		}
	}
}

// headerOf finds a header in the head of a request.
func headerOf(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if got, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(got, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// readUpgrade reads a 101.
func readUpgrade(t *testing.T, conn net.Conn) *bufio.Reader {
	t.Helper()
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("no upgrade: %v, %v", resp, err)
	}
	return br
}

// A frame is one frame as it was read.
type frame struct {
	op      ws.Opcode
	fin     bool
	payload []byte
}

// readFrame reads a frame, masked or not.
func readFrame(r io.Reader) (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	length := uint64(head[1] & 0x7F)
	switch length {
	case 126:
		var n uint16
		if err := binary.Read(r, binary.BigEndian, &n); err != nil {
			return frame{}, err
		}
		length = uint64(n)
	case 127:
		if err := binary.Read(r, binary.BigEndian, &length); err != nil {
			return frame{}, err
		}
	}
	var key [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			return frame{}, err
		}
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return frame{}, err
	}
	ws.Mask(payload, key, 0)
	return frame{ws.Opcode(head[0] & 0xF), head[0]&0x80 != 0, payload}, nil
}

// wsReadFrame reads the payload of a frame.
func wsReadFrame(t *testing.T, r io.Reader) string {
	t.Helper()
	f, err := readFrame(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(f.payload)
}

// unmask makes a server's frames of a client's.
func unmask(t *testing.T, frames []byte) []byte {
	t.Helper()
	var out []byte
	for r := bytes.NewReader(frames); r.Len() > 0; {
		f, err := readFrame(r)
		if err != nil {
			t.Errorf("a frame was cut: %v", err)
			return out
		}
		out = append(out, ws.AppendFrame(nil, f.op, f.payload, false)...)
	}
	return out
}

// unmaskFrames makes a server's frames of a client's as they come.
func unmaskFrames(_ *testing.T, r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		for {
			f, err := readFrame(r)
			if err != nil {
				pw.CloseWithError(err)
				return
			}
			pw.Write(ws.AppendFrame(nil, f.op, f.payload, false))
		}
	}()
	return pr
}
