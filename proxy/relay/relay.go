// Package relay bridges a client to an upstream WebSocket server. The two handshakes are ours, the frames are theirs: they pass
// as they come.
package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"bridgehead/proxy"
	"bridgehead/proxy/pump"
	"bridgehead/proxy/upstream"
	"bridgehead/ws"
)

const (
	maxHead = 64 << 10 // of an upstream's answer
	maxBody = 1 << 20  // of its refusal
)

// A Bridge relays to the servers of one group.
type Bridge struct {
	options  Options
	group    *upstream.Group
	headers  *headers
	requests *requests // nil: the route has sockets alone
}

// New builds the bridge. The options have been validated.
func New(o Options, group *upstream.Group) (*Bridge, error) {
	hs, err := newHeaders(o.Headers)
	if err != nil {
		return nil, err
	}
	b := &Bridge{options: o, group: group, headers: hs}
	if o.HTTP {
		b.requests = newRequests(b)
	}
	return b, nil
}

// Open connects to a server and does the handshake with it (RFC 6455, section 4.1). What the server refuses, it refuses to the
// client.
func (b *Bridge) Open(ctx context.Context, h *proxy.Handshake) (proxy.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, b.options.Connect.Timeout)
	defer cancel()
	s := new(session)
	lease, err := b.group.Open(ctx, &h.Facts, func(ctx context.Context, target *upstream.Target) error { return b.try(ctx, s, h, target) })
	if err != nil {
		return nil, err
	}
	s.lease = lease
	h.Reply.SetCookie(lease.Cookie(&h.Facts))
	return s, nil
}

// try opens the session with one server.
func (b *Bridge) try(ctx context.Context, s *session, h *proxy.Handshake, target *upstream.Target) error {
	to, err := address(target, h)
	if err != nil {
		return &upstream.Answer{Err: err}
	}
	conn, err := target.Dial(ctx)
	if err != nil {
		return err
	}
	answer, early, err := b.handshake(ctx, conn, h, to)
	if err != nil {
		conn.Close()
		refusal, refused := errors.AsType[*proxy.Refusal](err)
		if !refused && ctx.Err() != nil {
			err = ctx.Err() // which closed the connection under the handshake
		}
		err = fmt.Errorf("handshake with %s: %w", target.Address(), target.Fault(err))
		if refused && !passing(refusal.Status) {
			return &upstream.Answer{Err: err}
		}
		return err
	}
	s.server = &pump.Backend{Conn: conn, Early: early}
	h.Reply = proxy.Reply{
		Header: answer.Header, Subprotocol: answer.Subprotocol, Extensions: answer.Extensions, User: h.User, Push: b.options.Push,
	}
	return nil
}

// passing tells whether a status says that the server cannot serve at all now, so that another may (RFC 9110, section 15.6).
func passing(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// address is where this client's handshake goes. If there is no such place, the client is refused.
func address(target *upstream.Target, h *proxy.Handshake) (*url.URL, error) {
	to, err := target.URL(&h.Facts)
	if err != nil {
		return nil, &proxy.Refusal{Status: http.StatusBadRequest, Reason: "path", Err: err, Body: []byte(err.Error() + "\n")}
	}
	return to, nil
}

// heads lends the buffers in which answers are read.
var heads = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

// handshake sends the request and reads the answer. Early is what the server has sent behind it.
func (b *Bridge) handshake(ctx context.Context, conn net.Conn, h *proxy.Handshake, to *url.URL) (answer ws.Answer, early []byte, err error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	host, header := b.headers.of(h)
	q := &ws.Request{
		Host: host, Target: to.RequestURI(), Key: ws.NewKey(), Subprotocols: h.Offer.Subprotocols, Header: header,
	}
	if b.options.Compression == "pass" {
		q.Extensions = h.Offer.Deflate
	}
	if _, err := conn.Write(q.Append(nil)); err != nil {
		return ws.Answer{}, nil, err
	}
	head := &io.LimitedReader{R: conn, N: maxHead}
	br := heads.Get().(*bufio.Reader)
	br.Reset(head)
	defer func() {
		br.Reset(nil)
		heads.Put(br)
	}()
	resp, err := readResponse(br) //nolint:bodyclose // Close would read the rest of a body that may never end
	if err != nil && head.N <= 0 {
		err = fmt.Errorf("the head of the answer is larger than %d bytes", maxHead)
	}
	if err != nil {
		return ws.Answer{}, nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		head.N = math.MaxInt64 // the body has a bound of its own
		return ws.Answer{}, nil, decline(resp, to)
	}
	answer, err = q.CheckResponse(resp)
	if err != nil {
		return ws.Answer{}, nil, &upstream.Fault{Kind: "handshake", Mend: isItOne, Err: err}
	}
	if !stop() {
		return ws.Answer{}, nil, ctx.Err()
	}
	early, _ = br.Peek(br.Buffered())
	return answer, bytes.Clone(early), nil
}

// A session is one client's upstream connection.
type session struct {
	lease  *upstream.Lease
	server *pump.Backend // nil when there is a link, whose it is
	link   pump.Link
}

// Start joins the two sockets.
func (s *session) Start(c *proxy.Client) {
	s.link = pump.NewLink(&c.Socket, *s.server)
	s.server = nil
	s.lease.Carry(c) // before the traffic: a reload knows the server of every socket that has been heard
	s.link.Start()
	c.Attach(s.link)
}

// Close ends both sides, or tells the server alone when there was never a client.
func (s *session) Close(cause ws.Cause) {
	defer s.lease.Release()
	if s.link != nil {
		s.link.Close(cause)
		return
	}
	code, reason := cause.Backend()
	conn := s.server.Conn
	conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(ws.AppendCloseFrame(nil, code, reason, true)) // a server that is gone needs no goodbye
	pump.HangUp(conn)
}
