package upstream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"

	"bridgehead/ws"
)

// maxAnswer bounds what is read of a server that is asked how it is.
const maxAnswer = 1 << 20

// ask finds out whether a server is well; the error says why it is not.
func ask(ctx context.Context, h *Health, t *Target) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	conn, err := t.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	switch {
	case h.HTTP != "":
		err = askHTTP(conn, t, h.HTTP)
	case h.WebSocket != "":
		err = askWebSocket(conn, t, h.WebSocket)
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // which closed the connection
	}
	if err != nil {
		return t.Fault(fmt.Errorf("%s: %w", t.Address(), err))
	}
	return nil
}

func askHTTP(conn net.Conn, t *Target, path string) error {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bridgehead\r\nConnection: close\r\n\r\n", path, t.authority()); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("GET %s was answered %s", path, resp.Status)
	}
	return nil
}

// askWebSocket opens a socket, pings it, and closes it.
func askWebSocket(conn net.Conn, t *Target, path string) error {
	q := &ws.Request{Host: t.authority(), Target: path, Key: ws.NewKey()}
	if _, err := conn.Write(q.Append(nil)); err != nil {
		return err
	}
	br := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	resp, err := http.ReadResponse(br, nil) //nolint:bodyclose // a socket has none, and another answer is not read
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the handshake at %s was answered %s", path, resp.Status)
	}
	if _, err := q.CheckResponse(resp); err != nil {
		return err
	}
	payload := []byte(ws.NewKey()[:8])
	if _, err := conn.Write(ws.AppendFrame(nil, ws.Ping, payload, true)); err != nil {
		return err
	}
	if err := awaitPong(br, payload); err != nil {
		return fmt.Errorf("no answer to a ping: %w", err)
	}
	_, _ = conn.Write(ws.AppendCloseFrame(nil, ws.CodeNormal, "", true)) // it has shown that it is well
	return nil
}

// awaitPong reads frames (RFC 6455, section 5.2) until one answers the ping.
func awaitPong(br *bufio.Reader, payload []byte) error {
	for {
		var head [2]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return err
		}
		size := uint64(head[1])
		if extended := map[byte]int{126: 2, 127: 8}[head[1]]; extended > 0 {
			var long [8]byte
			if _, err := io.ReadFull(br, long[8-extended:]); err != nil {
				return err
			}
			size = binary.BigEndian.Uint64(long[:])
		}
		if head[1] > 127 || size > maxAnswer {
			return fmt.Errorf("the server sent a frame that begins %x", head)
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(br, data); err != nil {
			return err
		}
		if ws.Opcode(head[0]&0xF) == ws.Pong && bytes.Equal(data, payload) {
			return nil
		}
	}
}

// authority is what the server is called in the Host header.
func (t *Target) authority() string {
	if t.network == "unix" {
		return "localhost"
	}
	return t.host
}
