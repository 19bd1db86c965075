// Package stream bridges a client to a TCP or Unix stream. Raw, every read is a message and the payload of every frame is
// written as it comes; with lines, a message is a line.
package stream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"

	"bridgehead/proxy"
	"bridgehead/proxy/pump"
	"bridgehead/proxy/upstream"
	"bridgehead/ws"
)

// A Bridge leads to the streams of one group.
type Bridge struct {
	options Options
	group   *upstream.Group
}

// New builds the bridge. The options have been validated.
func New(o Options, group *upstream.Group) *Bridge { return &Bridge{options: o, group: group} }

// Open connects to a stream and sends the preamble.
func (b *Bridge) Open(ctx context.Context, h *proxy.Handshake) (proxy.Session, error) {
	subprotocol, err := b.choose(h.Offer.Subprotocols)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.options.Connect.Timeout)
	defer cancel()
	var conn net.Conn
	lease, err := b.group.Open(ctx, &h.Facts, func(ctx context.Context, target *upstream.Target) (err error) {
		conn, err = target.DialAfter(ctx, func(conn net.Conn) error { return sendPreamble(conn, b.options.Preamble, h) })
		return err
	})
	if err != nil {
		return nil, err
	}
	h.Reply = proxy.Reply{Subprotocol: subprotocol, User: h.User}
	h.Reply.SetCookie(lease.Cookie(&h.Facts))
	return &leased{b.session(conn), lease}, nil
}

// session carries messages over the stream.
func (b *Bridge) session(conn net.Conn) proxy.Session {
	if b.options.Framing == "line" {
		return newLines(conn, b.opcode(), b.options.Close.Linger)
	}
	return &raw{backend: &pump.Backend{Conn: conn, Stream: true, Message: b.opcode(), Linger: b.options.Close.Linger}}
}

// leased is a session that counts at its server until it is closed.
type leased struct {
	proxy.Session
	lease *upstream.Lease
}

// Start is the session's. A reload knows the server of every socket that has been heard.
func (s *leased) Start(c *proxy.Client) {
	s.lease.Carry(c)
	s.Session.Start(c)
}

// Close is the session's.
func (s *leased) Close(cause ws.Cause) {
	defer s.lease.Release()
	s.Session.Close(cause)
}

// choose takes the first of the client's subprotocols that is configured.
func (b *Bridge) choose(offered []string) (string, error) {
	for _, name := range offered {
		if slices.Contains(b.options.Subprotocols, name) {
			return name, nil
		}
	}
	if b.options.RequireSubprotocol {
		text := "offer one of the subprotocols " + strings.Join(b.options.Subprotocols, ", ")
		return "", &proxy.Refusal{Status: http.StatusBadRequest, Reason: "subprotocol", Err: errors.New(text), Body: []byte(text + "\n")}
	}
	return "", nil
}

func (b *Bridge) opcode() ws.Opcode {
	if b.options.Message == "text" {
		return ws.Text
	}
	return ws.Binary
}

// raw is a session whose payload passes in flight.
type raw struct {
	backend *pump.Backend // nil when there is a link
	link    pump.Link
}

// Start joins the socket and the stream.
func (s *raw) Start(c *proxy.Client) {
	s.link = pump.NewLink(&c.Socket, *s.backend)
	s.backend = nil
	s.link.Start()
	c.Attach(s.link)
}

// Close ends both sides.
func (s *raw) Close(cause ws.Cause) {
	if s.link == nil {
		s.backend.Conn.Close()
		return
	}
	s.link.Close(cause)
}
