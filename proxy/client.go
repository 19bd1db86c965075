package proxy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"bridgehead/hub"
	"bridgehead/internal/door"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/proxy/pump"
	"bridgehead/ws"
)

// A Client is one open socket: the end of it that bridges, hub, timers and the API hold. Its methods may be called from any
// goroutine.
type Client struct {
	pump.Socket

	proxy    *Proxy
	terms    *terms       // those it was admitted under
	facts    policy.Facts // without the request
	session  Session
	place    place
	pass     *door.Pass
	identity *auth.Identity // until the traffic starts
	vigil    *vigil         // from then on; nil: the client may stay
	chosen   string         // subprotocol
	since    time.Time
	ending   pump.Signal // that End was called
	gone     pump.Signal // that everything it held is given back

	mu      sync.Mutex // guards the following
	cause   *ws.Cause  // the first; nil while the socket lives
	started bool       // Session.Start has returned
	driver  Driver
	user    string
	state   json.RawMessage
}

// A Driver is what carries a client's traffic, as far as others than its session use it. Its methods do not block.
type Driver interface {
	Flush() // writes what was put into the outbox
	Wake()  // obeys changed options
}

func (p *Proxy) newClient(t *terms, h *Handshake, session Session, pl place) *Client {
	c := &Client{
		proxy: p, terms: t, facts: cloneFacts(h.Facts), session: session, place: pl, identity: h.Identity,
		chosen: strings.Clone(h.Reply.Subprotocol), since: time.Now(), state: h.Reply.State,
	}
	c.user = cmp.Or(strings.Clone(h.Reply.User), c.facts.User)
	c.Socket = pump.Socket{
		Deflate: h.Reply.Extensions != "", Options: p.socket, Grant: pl.grant,
		Counters: pump.NewCounters(p.Metrics), Log: h.Log, Loops: p.Loops, End: c.End, Ending: &c.ending,
	}
	if h.Reply.Push {
		c.Outbox = new(pump.Outbox)
	}
	return c
}

// socket is what holds for the route's sockets now.
func (p *Proxy) socket() *pump.Options { return &p.terms.Load().Options.Socket }

// upgrade answers the handshake and takes the connection out of net/http (RFC 6455, section 4.2.2). What the client sent behind
// its handshake is kept.
func (c *Client) upgrade(w http.ResponseWriter, h *Handshake) error {
	if h.Request.ProtoMajor > 1 {
		return c.accept(w, h)
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil { // whoever wrapped w has hidden it
		w.WriteHeader(http.StatusInternalServerError)
		return err
	}
	c.Conn, c.pass = door.Bare(conn), door.From(h.Request.Context()).Pass()
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	c.Early = bytes.Clone(early)
	answer := ws.AppendAnswer(buffered.AvailableBuffer(), h.Offer.Key, h.Reply.answer())
	if timeout := c.Options().WriteTimeout; timeout > 0 {
		conn.SetWriteDeadline(time.Now().Add(timeout))
	}
	_, err = conn.Write(answer)
	return err
}

// accept answers the handshake over HTTP/2 (RFC 8441, section 5): from then on the request and its answer are the connection.
func (c *Client) accept(w http.ResponseWriter, h *Handshake) error {
	c.Conn = pump.NewStream(w, h.Request)
	var by time.Time
	if timeout := c.Options().WriteTimeout; timeout > 0 {
		by = time.Now().Add(timeout)
	}
	_ = c.Conn.SetWriteDeadline(by)
	h.Reply.answer().Set(w.Header(), h.Offer.Key)
	_, err := c.Conn.Write(nil)
	return err
}

// run starts the traffic.
func (c *Client) run() {
	c.proxy.Metrics.Opened()
	c.Log.Info("open", c.who()...)
	c.vigil = c.keepVigil(c.identity)
	c.identity = nil
	c.startSession()

	c.mu.Lock()
	c.started = true
	ended, driver := c.cause != nil, c.driver
	c.mu.Unlock()
	if ended {
		go c.finish()
		return
	}
	if driver != nil {
		driver.Flush() // for what was sent before the driver was there
	}
}

// abandon gives back what a client holds that vanished before its upgrade was done.
func (c *Client) abandon(err error) {
	c.Log.Info("gone during the handshake", "error", err)
	if c.Conn != nil {
		c.Conn.Close()
	}
	cause := ws.Cause{Kind: ws.ClientGone, Err: err}
	c.closeSession(cause)
	c.giveBack()
	c.leave(cause)
}

// giveBack frees what the client held. From now on nobody finds it, but a drain waits until it leaves.
func (c *Client) giveBack() {
	c.proxy.Hub.Retire(c)
	c.proxy.forget(c)
	c.Outbox.Close()
	c.place.release()
	c.pass.Leave()
}

// leave is the last of a client: its backend is told.
func (c *Client) leave(cause ws.Cause) {
	defer c.gone.Give()
	defer c.proxy.Hub.Leave()
	defer c.rescue("reporting the end of")
	if r, ok := c.session.(Reporter); ok {
		r.Report(cause)
	}
}

// End starts the end of the socket and returns. The first cause wins.
func (c *Client) End(cause ws.Cause) {
	c.mu.Lock()
	first, started := c.cause == nil, c.started
	if first {
		c.cause = &cause
		c.ending.Give()
	}
	c.mu.Unlock()
	if first && started {
		go c.finish()
	}
}

// finish closes both sides and gives everything back. It runs once, after the first cause and after Start.
func (c *Client) finish() {
	cause, lived := *c.cause, time.Since(c.since)
	c.vigil.end()
	c.closeSession(cause)
	if c.Conn != nil { // an event loop may have it
		c.Conn.Close() // which the session has done, unless it panicked
	}
	c.giveBack()
	c.proxy.Metrics.Closed(cause.Kind.String(), string(cause.By()), lived)
	c.logEnd(cause, lived)
	c.leave(cause)
}

func (c *Client) startSession() {
	defer c.rescue("starting")
	c.session.Start(c)
}

func (c *Client) closeSession(cause ws.Cause) {
	defer c.rescue("closing")
	c.session.Close(cause)
}

// rescue is deferred around the calls of the session, whose panic ends this client and must not keep what it holds.
func (c *Client) rescue(doing string) {
	if v := recover(); v != nil {
		c.Log.Error("panic while "+doing+" the session", "panic", v, "stack", string(debug.Stack()))
		c.End(ws.Cause{Kind: ws.InternalFailure, Err: fmt.Errorf("panic: %v", v)})
	}
}

// logEnd sums the socket up in one line.
func (c *Client) logEnd(cause ws.Cause, lived time.Duration) {
	if !c.Log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	messagesIn, bytesIn, messagesOut, bytesOut := c.Counters.Sum()
	code, reason := cause.Client()
	args := append(c.who(),
		"duration", lived.Round(time.Millisecond).String(), // a text: as a number it would be in nanoseconds in JSON
		"messages_in", messagesIn, "bytes_in", bytesIn, "messages_out", messagesOut, "bytes_out", bytesOut,
		"cause", cause.Kind.String(), "by", string(cause.By()), "code", int(code), "reason", reason)
	if backend, _ := cause.Backend(); backend != code {
		args = append(args, "backend_code", int(backend))
	}
	if cause.Err != nil {
		args = append(args, "error", cause.Err.Error())
	}
	c.Log.Info("closed", args...)
}

// who is what both lines of a socket's life say of the client.
func (c *Client) who() (args []any) {
	if user := c.User(); user != "" {
		args = append(args, "user", user)
	}
	if c.chosen != "" {
		args = append(args, "subprotocol", c.chosen)
	}
	if cert := c.facts.Certificate(); cert != nil {
		args = append(args, "certificate", cert.Subject.String())
	}
	return args
}

// Send queues a message of somebody else than the bridge: hub.ErrSlow, hub.ErrClosed or hub.ErrNoPush if it cannot be, and then
// the message was finished with that.
func (c *Client) Send(m ws.Message) error {
	c.mu.Lock()
	ended, driver := c.cause != nil, c.driver
	c.mu.Unlock()
	switch {
	case c.Outbox == nil:
		m.Finish(hub.ErrNoPush)
		return hub.ErrNoPush
	case ended:
		m.Finish(hub.ErrClosed)
		return hub.ErrClosed
	}
	if err := c.Outbox.Put(m); err != nil {
		return err
	}
	if driver != nil {
		driver.Flush()
	}
	return nil
}

// obey makes the client follow the terms that are in force now.
func (c *Client) obey(t *terms) {
	t.limiter.Hold(c.place.grant, &c.facts, time.Now())
	c.mu.Lock()
	driver := c.driver
	c.mu.Unlock()
	if driver != nil {
		driver.Wake()
	}
}

// Attach names the driver that carries the client. A session calls it in Start.
func (c *Client) Attach(d Driver) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.driver = d
}

// ID names the connection; it is unique over all programs.
func (c *Client) ID() string { return c.facts.ConnID }

// Done is closed when the client has ended and everything it held is given back.
func (c *Client) Done() <-chan struct{} { return c.gone.Done() }

// Facts are what was known of the client in its handshake. Their Request is nil.
func (c *Client) Facts() *policy.Facts { return &c.facts }

// Since is when the socket was opened.
func (c *Client) Since() time.Time { return c.since }

// Subprotocol is the one that was chosen, or "".
func (c *Client) Subprotocol() string { return c.chosen }

// User is who the client is, as far as known.
func (c *Client) User() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.user
}

// SetUser says who the client is.
func (c *Client) SetUser(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.user = user
}

// State is what the backend has asked to keep with the connection.
func (c *Client) State() json.RawMessage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// SetState keeps something for the backend with the connection.
func (c *Client) SetState(state json.RawMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = state
}

// Info is what is known of the connection now.
func (c *Client) Info() hub.Info {
	info := hub.Info{
		ID: c.ID(), Route: c.proxy.Route, Kind: c.terms.Kind, Client: c.facts.Client.String(), User: c.User(),
		Subprotocol: c.chosen, Claims: c.facts.Claims, ConnectedAt: c.since.UTC(), State: c.State(),
	}
	if cert := c.facts.Certificate(); cert != nil {
		info.Certificate = cert.Subject.String()
	}
	info.MessagesIn, info.BytesIn, info.MessagesOut, info.BytesOut = c.Counters.Sum()
	return info
}
