package pump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/ws"
)

// A socket that is dismissed ends with the client's Close, or with what tells that none will come, and at the latest when its time is
// over.
func TestDismiss(t *testing.T) {
	t.Parallel()
	const courtesy = 2 * time.Second
	closes := ws.AppendCloseFrame(nil, 1000, "bye", true)
	text := ws.AppendFrame(nil, ws.Text, make([]byte, 50_000), true)
	for _, c := range []struct {
		name  string
		early []byte
		says  [][]byte
		hangs bool // the client ends its side then
		takes time.Duration
	}{
		{"silent", nil, nil, false, courtesy},
		{"a Close", nil, [][]byte{closes}, false, 0},
		{"a Close behind the handshake", closes, nil, false, 0},
		{"messages before", text, [][]byte{text, text[:70], text[70:], closes}, false, 0},
		{"a Close in parts", closes[:3], [][]byte{closes[3:5], closes[5:]}, false, 0},
		{"half a Close", nil, [][]byte{closes[:4]}, false, courtesy},
		{"a Close in a message", nil, [][]byte{ws.AppendHeader(nil, ws.Header{Fin: true, Opcode: ws.Binary, Masked: true, Length: 100}), closes}, false, courtesy},
		{"pings alone", nil, [][]byte{ws.AppendFrame(nil, ws.Ping, []byte("x"), true)}, false, courtesy},
		{"no frames", nil, [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, false, 0},
		{"frames of a server", nil, [][]byte{ws.AppendCloseFrame(nil, 1000, "", false)}, false, 0},
		{"gone", nil, nil, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				go func() {
					for _, part := range c.says {
						theirs.Write(part)
					}
					if c.hangs {
						theirs.Close()
					}
				}()
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), courtesy)
				defer cancel()
				Dismiss(ctx, ours, c.early)
				if took := time.Since(began); took != c.takes {
					t.Errorf("it took %v, want %v", took, c.takes)
				}
				if _, err := theirs.Read(make([]byte, 1)); err != io.EOF && !c.hangs {
					t.Errorf("the client reads %v", err)
				}
			})
		})
	}
}

// Who says too much is not listened to, whatever it comes on.
func TestDismissABabbler(t *testing.T) {
	t.Parallel()
	const buffers = 32 << 20 // more than the systems on the way hold
	message := ws.AppendFrame(nil, ws.Binary, make([]byte, 64<<10), true)
	for _, k := range []kind{plain, unix, tls12, tls13, http2} {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ours, theirs := k.pair(t, true)
			defer theirs.Close()
			said := make(chan int, 1)
			go func() {
				n := 0
				for {
					wrote, err := theirs.Write(message)
					if n += wrote; err != nil {
						said <- n
						return
					}
				}
			}()
			Dismiss(t.Context(), ours, nil) // without an end to its time
			if n := await(t, said); n < maxDiscarded || n > maxDiscarded+buffers {
				t.Errorf("it was cut after %d bytes", n)
			}
		})
	}
}

// A connection of each kind ends in good order, and its client reads nothing more.
func TestDismissByKind(t *testing.T) {
	t.Parallel()
	closes := ws.AppendCloseFrame(nil, 1000, "", true)
	for _, k := range []kind{plain, unix, tls12, tls13, http2} {
		for name, says := range map[string][]byte{"a Close": closes, "silent": nil} {
			t.Run(string(k)+", "+name, func(t *testing.T) {
				t.Parallel()
				ours, theirs := k.pair(t, true)
				began := time.Now()
				read := make(chan error, 1)
				go func() {
					theirs.Write(says)
					rest, err := io.ReadAll(theirs)
					if len(rest) > 0 {
						err = errors.Join(fmt.Errorf("%q", rest), err)
					}
					theirs.Close()
					read <- err
				}()
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				Dismiss(ctx, ours, nil)
				if err := await(t, read); err != nil && time.Since(began) < goodbye { // by then it may be reset
					t.Errorf("the client reads %v", err)
				}
				if stream, ok := ours.(*Stream); ok {
					await(t, stream.Done())
				}
			})
		}
	}
}
