package stream

import (
	"io"
	"net"
	"testing"

	"github.com/gorilla/websocket"

	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
)

// A stream that is not there is left for the next, and the client's bytes go there alone.
func TestFailover(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	for _, framing := range []string{"raw", "line"} {
		s := newStage(t, func(conn *net.TCPConn) { io.Copy(conn, conn) }, func(o *Options, _ *proxy.Options) {
			o.To, o.Framing = upstream.To{nobody, o.To[0]}, framing
		})
		for range 3 {
			conn, _, err := websocket.DefaultDialer.Dial(s.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			conn.WriteMessage(websocket.BinaryMessage, []byte("hello"))
			if _, data, err := conn.ReadMessage(); err != nil || string(data) != "hello" {
				t.Errorf("%s: %q, %v", framing, data, err)
			}
			conn.Close()
		}
	}
}
