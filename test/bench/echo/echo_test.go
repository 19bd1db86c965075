//go:build linux

package echo

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func serve(t *testing.T) *Server {
	t.Helper()
	s, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

// A client that is not ours gets every message back, whatever its size, and its Close answered.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	conn, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+serve(t).WebSocket+"/any", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 3 << 20} {
		want := bytes.Repeat([]byte("x"), size)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := conn.WriteMessage(websocket.BinaryMessage, want); err != nil {
				t.Error(err)
			}
		})
		kind, got, err := conn.ReadMessage()
		if err != nil || kind != websocket.BinaryMessage || !bytes.Equal(got, want) {
			t.Fatalf("a message of %d bytes came back as %d of type %d: %v", size, len(got), kind, err)
		}
		wg.Wait()
	}
	if err := conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("after a Close: %v", err)
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	conn, err := net.Dial("tcp", serve(t).TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // more than the socket buffers hold
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := conn.Write(want); err != nil {
			t.Error(err)
		}
	})
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("something else came back: %v", err)
	}
	wg.Wait()
}
