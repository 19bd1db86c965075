package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/pires/go-proxyproto"
)

// deployments are five ways to use the program, in one file as they stand in the documentation; %NAME% is an address of the test.
var deployments = own + `
certificates: {internal: true}
trusted_proxies: [loopback]
listeners:
  - {name: wss, address: "127.0.0.1:0", tls: true}
  - {name: http, address: "127.0.0.1:0", redirect: true}

upstreams:
  chat:
    servers: ["ws://%CHAT1%", {url: "ws://%CHAT2%"}]

defaults:
  limits: [{per: client.ip, connections: 500, messages: 50/s}]
  socket: {message_size: 256KiB, ping: 30s, idle: off, lifetime: 12h}

routes:
  - name: chat
    host: chat.example.com
    path: /ws
    origins: [https://chat.example.com]
    websocket: {to: chat, headers: {set: {X-Client: "{client.ip}"}}}
  - name: tenants
    host: "{tenant}.app.example.com"
    limits: [{per: tenant, connections: 2}]
    websocket: {to: chat, headers: {set: {X-Tenant: "{tenant}"}}}
  - name: desktop
    host: vnc.example.com
    path: /vnc/{machine}
    tcp: {to: "tcp://%VNC%"}
  - name: mqtt
    host: mqtt.example.com
    limits: [{per: client.ip, connections: 2000, bytes: 4MiB/s, on_exceed: throttle}]
    tcp: {to: "tcp://%MQTT%", subprotocols: [mqtt], require_subprotocol: true, preamble: proxy-v2}
  - name: shop
    host: www.example.com
    path: /events/{room}
    webhook: {to: "http://%SHOP%/ws.php?room={room}", secret: ["${NEW}", "${OLD}"], forward_headers: [cookie]}
`

// member is a chat server that says who it is and what it was told of the client, and then echoes.
func member(t *testing.T, name string) string {
	return backend(t, func(conn *websocket.Conn, r *http.Request) {
		text := fmt.Sprintf("%s %s%s client=%s tenant=%s", name, r.Host, r.RequestURI, r.Header.Get("X-Client"), r.Header.Get("X-Tenant"))
		conn.WriteMessage(websocket.TextMessage, []byte(text))
		echo(conn, r)
	})
}

func TestFiveDeploymentsInOneFile(t *testing.T) {
	t.Parallel()
	app := newApplication(t, func(e told) decision {
		if e.Type == "message" {
			return decision{body: "the shop heard " + *e.Text}
		}
		return decision{}
	})
	broker := newBroker(t)
	addresses := map[string]string{
		"CHAT1": member(t, "first"), "CHAT2": member(t, "second"), "SHOP": app.addr, "MQTT": broker.addr,
		"VNC": tcpBackend(t, func(conn *net.TCPConn) {
			io.WriteString(conn, "RFB 003.008\n") // the server speaks first
			io.Copy(conn, conn)
		}),
	}
	config := deployments
	for name, address := range addresses {
		config = strings.ReplaceAll(config, "%"+name+"%", address)
	}
	e := startIn(t, room(t), config, "NEW="+newKey, "OLD="+oldKey)

	t.Run("chat over a group of servers", e.showsChat)
	t.Run("tenants by the host", e.showsTenants)
	t.Run("desktop", e.showsDesktop)
	t.Run("mqtt", func(t *testing.T) { e.showsMQTT(t, broker) })
	t.Run("shop", func(t *testing.T) { e.showsShop(t, app) })
	t.Run("hosts of nobody", func(t *testing.T) {
		for url, status := range map[string]int{"wss://chat.example.com/": 404, "wss://vnc.example.com/vnc/a/b": 404, "wss://www.example.com/events/": 404} {
			_, resp, err := e.anyHost().Dial(url, nil)
			if err == nil || resp == nil || resp.StatusCode != status {
				t.Errorf("%s: %v, %v, want %d", url, resp, err, status)
			}
		}
	})
}

func (e *edge) showsChat(t *testing.T) {
	from := http.Header{"Origin": {"https://chat.example.com"}, "X-Forwarded-For": {"203.0.113.7"}}
	var heard []string
	for range 4 {
		conn := e.visit("wss://chat.example.com/ws?room=1", from)
		name, rest, _ := strings.Cut(receive(t, conn), " ")
		heard = append(heard, name)
		if rest != "chat.example.com/ws?room=1 client=203.0.113.7 tenant=" {
			t.Errorf("the chat was told %q", rest)
		}
		send(t, conn, "hello")
		if got := receive(t, conn); got != "hello" {
			t.Errorf("got %q", got)
		}
	}
	if slices.Sort(heard); fmt.Sprint(heard) != "[first first second second]" {
		t.Errorf("four sockets went to %v", heard)
	}
	_, resp, err := e.anyHost().Dial("wss://chat.example.com/ws", http.Header{"Origin": {"https://evil.example"}})
	if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a page from elsewhere: %v, %v", resp, err)
	}
}

func (e *edge) showsTenants(t *testing.T) {
	open := func(tenant string) *websocket.Conn {
		conn := e.visit("wss://"+tenant+".app.example.com/any/path", nil)
		if got := receive(t, conn); !strings.HasSuffix(got, " "+tenant+".app.example.com/any/path client= tenant="+tenant) {
			t.Errorf("the upstream was told %q", got)
		}
		return conn
	}
	first := open("acme")
	open("acme")
	_, resp, err := e.anyHost().Dial("wss://acme.app.example.com/", nil)
	if err == nil || resp == nil || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a third socket of a tenant who may have two: %v, %v", resp, err)
	}
	open("globex") // another tenant does not suffer
	hangUp(t, first, 1000, "")
	e.closedLine("tenants")
	open("acme")
}

func (e *edge) showsDesktop(t *testing.T) {
	conn := e.visit("wss://vnc.example.com/vnc/pc1", nil, "binary")
	if conn.Subprotocol() != "binary" { // as noVNC wants it
		t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	if kind, data, err := conn.ReadMessage(); err != nil || kind != websocket.BinaryMessage || string(data) != "RFB 003.008\n" {
		t.Errorf("greeted with %q of type %d, %v", data, kind, err)
	}
	conn.WriteMessage(websocket.BinaryMessage, []byte("RFB 003.008\n"))
	if got := receive(t, conn); got != "RFB 003.008\n" {
		t.Errorf("got %q", got)
	}
}

// A broker answers the first packet of MQTT, and tells who its client is.
type broker struct {
	addr    string
	clients chan *proxyproto.Header
}

func newBroker(t *testing.T) *broker {
	b := &broker{clients: make(chan *proxyproto.Header, 10)}
	b.addr = tcpBackend(t, func(conn *net.TCPConn) {
		br := bufio.NewReader(conn)
		header, err := proxyproto.Read(br)
		if err != nil {
			t.Errorf("the broker's PROXY header: %v", err)
			return
		}
		b.clients <- header
		packet := make([]byte, 14)
		if _, err := io.ReadFull(br, packet); err != nil || packet[0] != 0x10 { // CONNECT
			t.Errorf("the broker got % x, %v", packet, err)
			return
		}
		conn.Write([]byte{0x20, 2, 0, 0}) // CONNACK
		io.Copy(io.Discard, br)
	})
	return b
}

func (e *edge) showsMQTT(t *testing.T, b *broker) {
	conn := e.visit("wss://mqtt.example.com/mqtt", http.Header{"X-Forwarded-For": {"203.0.113.9"}}, "mqtt")
	if conn.Subprotocol() != "mqtt" {
		t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	conn.WriteMessage(websocket.BinaryMessage, []byte("\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"))
	if got := receive(t, conn); got != "\x20\x02\x00\x00" {
		t.Errorf("the broker answers % x", got)
	}
	if from := (<-b.clients).SourceAddr.(*net.TCPAddr).IP.String(); from != "203.0.113.9" {
		t.Errorf("the broker takes %s for the client", from)
	}
	_, resp, err := e.anyHost().Dial("wss://mqtt.example.com/mqtt", nil)
	if err == nil || resp == nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a client that does not offer mqtt: %v, %v", resp, err)
	}
}

func (e *edge) showsShop(t *testing.T, app *application) {
	conn := e.visit("wss://www.example.com/events/blue", http.Header{"Cookie": {"session=ann"}, "X-Private": {"no"}})
	send(t, conn, "buy")
	if got := receive(t, conn); got != "the shop heard buy" {
		t.Errorf("got %q", got)
	}
	asked := app.await("connect", 1) // both signatures were verified by the application
	if asked.URI != "/ws.php?room=blue" || asked.Route != "shop" || fmt.Sprint(asked.Headers) != "map[cookie:session=ann]" {
		t.Errorf("the shop was asked %+v", asked)
	}
	hangUp(t, conn, 1000, "")
	if end := app.await("close", 1); end.Code != 1000 || end.Initiator != "client" {
		t.Errorf("the shop was told of the end %+v", end)
	}
}
