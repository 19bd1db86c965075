package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	maxMembers     = 200
	maxChatMessage = 2 << 20 // more than the bridge lets pass
	maxWaiting     = 16      // messages that may wait for one member
	chatWrite      = 5 * time.Second
)

// A chat is a WebSocket server where everybody hears everybody. A member's name is the query's `name`. Text that begins with a
// slash is a command: /who, /help, and /close 4001 see you, which shows a close code and reason on their way to the client.
type chat struct {
	log      *slog.Logger
	upgrader websocket.Upgrader
	serving  sync.WaitGroup // members; added to under mu while not ended

	mu      sync.Mutex // guards the following
	members map[*member]struct{}
	guests  int
	ended   bool
}

// A member is one socket in the chat. Its request's goroutine reads, and write writes.
type member struct {
	name string
	conn *websocket.Conn
	out  chan string
	end  context.CancelCauseFunc // with a *websocket.CloseError: what to tell the member; the first counts
}

func newChat(log *slog.Logger) *chat {
	return &chat{
		log:      log,
		upgrader: websocket.Upgrader{CheckOrigin: fromLoopback, WriteBufferPool: &sync.Pool{}},
		members:  make(map[*member]struct{}),
	}
}

// fromLoopback tells whether a page of this machine asks, if any page does. The bridge has checked the origin more strictly.
func fromLoopback(r *http.Request) bool {
	header := r.Header.Get("Origin")
	if header == "" {
		return true // not a page
	}
	origin, err := url.Parse(header)
	if err != nil {
		return false
	}
	ip := net.ParseIP(origin.Hostname())
	return origin.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// serve runs the chat until ctx ends.
func (c *chat) serve(ctx context.Context, ln net.Listener) {
	serveHTTP(ctx, ln, c, c.log)
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.serving.Wait()
}

func (c *chat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if len(name) > 40 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		http.Error(w, "the name must be at most 40 bytes of printable text", http.StatusBadRequest)
		return
	}
	if c.full() {
		http.Error(w, fmt.Sprintf("the chat is full: %d are here", maxMembers), http.StatusServiceUnavailable)
		return
	}
	conn, err := c.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	defer conn.Close()
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	m := &member{name: name, conn: conn, out: make(chan string, maxWaiting), end: end}
	if !c.join(m) {
		return
	}
	defer c.serving.Done()
	c.attend(ctx, m)
}

// attend is a member's stay, from the greeting to the end of its socket.
func (c *chat) attend(ctx context.Context, m *member) {
	stop := context.AfterFunc(ctx, func() { m.conn.NetConn().SetWriteDeadline(time.Now().Add(grace)) }) // for one who does not read
	defer stop()
	var writing sync.WaitGroup
	writing.Go(func() { m.write(ctx) })

	c.say(fmt.Sprintf("* %s came in: %s", m.name, c.who()))
	err := c.listen(m)
	c.leave(m)
	c.log.Debug("a member left", "name", m.name, "cause", err)
	m.end(net.ErrClosed)
	m.conn.Close() // also frees write, should it be stuck
	writing.Wait()
	c.say(fmt.Sprintf("* %s left: %s", m.name, c.who()))
}

// listen reads until the socket ends, and says why it did.
func (c *chat) listen(m *member) error {
	m.conn.SetReadLimit(maxChatMessage)
	for {
		kind, data, err := m.conn.ReadMessage()
		switch {
		case err != nil:
			return err
		case kind != websocket.TextMessage:
			m.end(&websocket.CloseError{Code: websocket.CloseUnsupportedData, Text: "this chat takes text"})
		case strings.HasPrefix(string(data), "/"):
			c.command(m, string(data))
		default:
			c.say(m.name + ": " + string(data))
		}
	}
}

func (c *chat) command(m *member, line string) {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "/who":
		m.send("* " + c.who())
	case "/close":
		number, reason, _ := strings.Cut(rest, " ")
		code, err := strconv.Atoi(number)
		if err != nil || code < 3000 || code > 4999 { // RFC 6455, section 7.4.2
			m.send("* /close takes a code from 3000 to 4999 and a reason")
			return
		}
		m.end(&websocket.CloseError{Code: code, Text: strings.ToValidUTF8(reason[:min(len(reason), 123)], "")})
	default:
		m.send("* commands: /who, /close 4001 see you; everything else is said to all")
	}
}

// write sends what waits for the member and, when its context ends, the Close that says why.
func (m *member) write(ctx context.Context) {
	for {
		select {
		case text := <-m.out:
			if ctx.Err() != nil {
				continue
			}
			m.conn.SetWriteDeadline(time.Now().Add(chatWrite))
			if err := m.conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
				m.conn.Close() // ends the reader too
				return
			}
		case <-ctx.Done():
			m.farewell(context.Cause(ctx))
			m.conn.SetReadDeadline(time.Now().Add(grace)) // not sooner: the reader's end is the socket's
			return
		}
	}
}

// farewell sends the Close for a cause.
func (m *member) farewell(cause error) {
	told, ok := errors.AsType[*websocket.CloseError](cause)
	switch {
	case errors.Is(cause, net.ErrClosed):
		return // nobody is left to tell
	case !ok:
		told = &websocket.CloseError{Code: websocket.CloseGoingAway, Text: "the demo ends"}
	}
	m.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(told.Code, told.Text), time.Now().Add(grace))
}

// send hands the member a message without waiting. A member that does not read is told to go.
func (m *member) send(text string) {
	select {
	case m.out <- text:
	default:
		m.end(&websocket.CloseError{Code: websocket.CloseTryAgainLater, Text: "too slow"})
	}
}

// say sends to all members.
func (c *chat) say(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for m := range c.members {
		m.send(text) // never blocks
	}
}

// who names the members.
func (c *chat) who() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for m := range c.members {
		names = append(names, m.name)
	}
	if len(names) == 0 {
		return "nobody is here"
	}
	slices.Sort(names)
	return strings.Join(names, ", ") + " here"
}

func (c *chat) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.members) >= maxMembers
}

// join takes a member in and names it if it has no name. It is false once the chat has ended.
func (c *chat) join(m *member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	if m.name == "" {
		c.guests++
		m.name = fmt.Sprintf("guest-%d", c.guests)
	}
	c.members[m] = struct{}{}
	c.serving.Add(1)
	return true
}

func (c *chat) leave(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.members, m)
}
