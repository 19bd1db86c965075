package xconnect_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	_ "bridgehead/internal/xconnect"
)

// A server that knows nothing of this package, in a program that imports it, offers extended CONNECT (RFC 8441, section 3).
func TestServersOfferExtendedConnect(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00") // with settings that say nothing
	const enableConnectProtocol = 0x8
	if got := settings(t, conn)[enableConnectProtocol]; got != 1 {
		t.Errorf("SETTINGS_ENABLE_CONNECT_PROTOCOL is %d: %s does not reach net/http in time", got, os.Getenv("GODEBUG"))
	}
}

// settings reads the frame that a server begins with (RFC 9113, sections 4.1 and 6.5).
func settings(t *testing.T, r io.Reader) map[uint16]uint32 {
	t.Helper()
	head := make([]byte, 9)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	if head[3] != 0x4 {
		t.Fatalf("the first frame has type %d", head[3])
	}
	payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatal(err)
	}
	all := map[uint16]uint32{}
	for ; len(payload) >= 6; payload = payload[6:] {
		all[binary.BigEndian.Uint16(payload)] = binary.BigEndian.Uint32(payload[2:])
	}
	return all
}

// What else the environment says stays.
func TestTheEnvironmentIsAddedTo(t *testing.T) {
	t.Parallel()
	if value := os.Getenv("GODEBUG"); strings.Count(value, "http2xconnect=1") != 1 {
		t.Errorf("GODEBUG is %q", value)
	}
}
