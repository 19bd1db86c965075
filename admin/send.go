package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"bridgehead/hub"
	"bridgehead/ws"
)

// MaxWait is how long a send with `"wait": "written"` waits at most for its messages to be written.
const MaxWait = 15 * time.Second

// What `wait` may say.
const (
	waitQueued  = "queued"
	waitWritten = "written" // handed to the sockets: that the clients have read it no gateway can promise
)

// A push is a send as the body of a call describes it.
type push struct {
	connection, route string // exactly one is given
	message           ws.Message
	wait              string
}

// A receipt says what became of a push. After a wait, what was queued and is neither written nor dropped was still on its way
// when the time was over.
type receipt struct {
	Matched int    `json:"matched"` // connections that were meant
	Queued  int    `json:"queued"`  // of these, connections that took the message
	Written int    `json:"written"` // of these, connections whose socket it was handed to; counted only after a wait
	Dropped []drop `json:"dropped"` // connections that never get it
}

type drop struct {
	Connection string `json:"connection"`
	Why        string `json:"why"`
}

// An outcome is what became of a message for one connection; a nil error is written.
type outcome struct {
	id  string
	err error
}

// send serves POST /v1/send. The message is queued before it answers: sends that come one after the other on one HTTP
// connection arrive in their order.
func (a *API) send(w http.ResponseWriter, r *http.Request, by *caller) error {
	if _, err := readQuery(r); err != nil {
		return err
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	p, err := parsePush(body)
	if err != nil {
		return err
	}
	targets, err := a.targets(p)
	if err != nil {
		return err
	}
	done := p.deliver(r.Context(), targets)
	a.Log.Debug("pushed", "token", by.name, "conn", p.connection, "route", p.route, "bytes", len(p.message.Data),
		"matched", done.Matched, "queued", done.Queued, "written", done.Written, "dropped", len(done.Dropped))
	if err := p.refused(done); err != nil {
		return err
	}
	return answer(w, http.StatusOK, done)
}

func (a *API) targets(p *push) ([]hub.Conn, error) {
	if p.connection != "" {
		c, err := a.find(p.connection)
		return []hub.Conn{c}, err
	}
	return slices.DeleteFunc(a.Hub.All(), func(c hub.Conn) bool { return c.Info().Route != p.route }), nil
}

func (p *push) deliver(ctx context.Context, targets []hub.Conn) *receipt {
	done := &receipt{Matched: len(targets), Dropped: []drop{}}
	outcomes := make(chan outcome, len(targets)) // room for all: nobody who reports one may be held up
	for _, c := range targets {
		message := p.message
		message.Done = func(err error) { outcomes <- outcome{c.ID(), err} }
		if p.wait == waitQueued {
			message.Done = nil
		}
		err := c.Send(message)
		switch {
		case err == nil:
			done.Queued++
		case p.wait == waitQueued:
			done.drop(c.ID(), err)
		}
	}
	if p.wait == waitWritten {
		done.collect(ctx, outcomes)
		slices.SortFunc(done.Dropped, func(a, b drop) int { return cmp.Compare(a.Connection, b.Connection) })
	}
	return done
}

// collect counts the outcomes until all are there, MaxWait is over or ctx ends.
func (r *receipt) collect(ctx context.Context, outcomes <-chan outcome) {
	ctx, cancel := context.WithTimeout(ctx, MaxWait)
	defer cancel()
	for range r.Matched {
		select {
		case o := <-outcomes:
			if o.err == nil {
				r.Written++
			} else {
				r.drop(o.id, o.err)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (r *receipt) drop(id string, err error) {
	r.Dropped = append(r.Dropped, drop{id, why(err)})
}

// The words for why a message was dropped.
const (
	whySlow   = "slow"
	whyClosed = "closed"
	whyNoPush = "no_push"
)

func why(err error) string {
	cause, _ := errors.AsType[ws.Cause](err)
	switch {
	case errors.Is(err, hub.ErrNoPush):
		return whyNoPush
	case errors.Is(err, hub.ErrSlow), cause.Kind == ws.ClientSlow:
		return whySlow
	}
	return whyClosed
}

// refused makes an error of what did not go to the only connection that was meant, since nothing but another call can mend it.
// That the connection is too slow is no such thing: it may be tried again.
func (p *push) refused(r *receipt) error {
	if p.connection == "" || r.Queued > 0 || len(r.Dropped) == 0 {
		return nil
	}
	switch r.Dropped[0].Why {
	case whyClosed:
		return gone(p.connection)
	case whyNoPush:
		return refuse(http.StatusConflict, "connection %q takes no pushes: only those of webhook routes do, and those of websocket "+
			"routes with `push: true`", p.connection)
	}
	return nil
}

// parsePush reads the body of a send.
func parsePush(body []byte) (*push, error) {
	var to, value json.RawMessage
	var text, data, wait *string
	known := members{"to": &to, "text": &text, "json": &value, "data_base64": &data, "wait": &wait}
	if err := known.decode(body, "the body"); err != nil {
		return nil, err
	}
	p := &push{wait: waitQueued}
	if wait != nil {
		p.wait = *wait
	}
	if p.wait != waitQueued && p.wait != waitWritten {
		return nil, refuse(http.StatusBadRequest, "wait %q is unknown: write %q or %q", p.wait, waitQueued, waitWritten)
	}
	if err := p.parseTarget(to); err != nil {
		return nil, err
	}
	return p, p.parsePayload(text, value, data)
}

func (p *push) parseTarget(to json.RawMessage) error {
	if to == nil {
		return refuse(http.StatusBadRequest, `to is missing: write {"connection": ".."} or {"route": ".."}`)
	}
	var connection, route *string
	if err := (members{"connection": &connection, "route": &route}).decode(to, "to"); err != nil {
		return err
	}
	if (connection == nil) == (route == nil) {
		return refuse(http.StatusBadRequest, "to must have exactly one of connection and route")
	}
	if connection != nil {
		p.connection = *connection
	} else {
		p.route = *route
	}
	if p.connection == "" && p.route == "" {
		return refuse(http.StatusBadRequest, "to names nothing: its member is empty")
	}
	return nil
}

func (p *push) parsePayload(text *string, value json.RawMessage, data *string) error {
	given := 0
	if text != nil {
		given++
		p.message = ws.Message{Op: ws.Text, Data: []byte(*text)}
	}
	if value != nil {
		given++
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			return refuse(http.StatusBadRequest, "json: %v", err)
		}
		p.message = ws.Message{Op: ws.Text, Data: compact.Bytes()}
	}
	if data != nil {
		given++
		decoded, err := base64.StdEncoding.DecodeString(*data)
		if err != nil {
			return refuse(http.StatusBadRequest, "data_base64 must be standard base64 with padding: %v", err)
		}
		p.message = ws.Message{Op: ws.Binary, Data: decoded}
	}
	if given != 1 {
		return refuse(http.StatusBadRequest, "the body must have exactly one of text, json and data_base64, not %d", given)
	}
	return nil
}
