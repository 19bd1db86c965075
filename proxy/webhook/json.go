package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"bridgehead/ws"
)

// This file is the native dialect, `json`: how a request is written and how its reply is read.

const (
	jsonType = "application/json"
	version  = 1        // of the envelope
	maxState = 64 << 10 // every request carries the state
)

// An envelope is the body of a request. The number of the attempt is not part of it but the header Bridgehead-Attempt, so that a
// retry has the same bytes.
type envelope struct {
	Version    int        `json:"version"`
	Route      string     `json:"route"`
	Connection connection `json:"connection"`
	Events     []event    `json:"events"`
}

// encode writes the body of a request.
func encode(route string, c connection, events []event) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(envelope{version, route, c, events}); err != nil {
		return nil, fmt.Errorf("encode events: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// parseReply reads the body of a reply. JSON is an envelope, which is taken whole or not at all; a body of any other type is
// one message to the client, text if its type is; no body asks for nothing.
func parseReply(contentType string, body []byte) (reply, error) {
	kind := mediaType(contentType)
	isText := kind == jsonType || strings.HasPrefix(kind, "text/")
	switch {
	case len(body) == 0, kind == jsonType && len(bytes.TrimSpace(body)) == 0:
		return reply{}, nil
	case isText && !utf8.Valid(body):
		return reply{}, fmt.Errorf("reply of type %s is not UTF-8", kind)
	case kind == jsonType:
		return parseEnvelope(body)
	case isText:
		return reply{actions: []action{{send: &ws.Message{Op: ws.Text, Data: body}}}}, nil
	}
	return reply{actions: []action{{send: &ws.Message{Op: ws.Binary, Data: body}}}}, nil
}

// mediaType is a content type without its parameters, even if those are malformed.
func mediaType(contentType string) string {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind, _, _ = strings.Cut(contentType, ";")
	}
	return strings.ToLower(strings.TrimSpace(kind))
}

func parseEnvelope(body []byte) (reply, error) {
	var e struct {
		Accept  accept            `json:"accept"`
		Actions []json.RawMessage `json:"actions"`
		State   json.RawMessage   `json:"state"`
	}
	if err := strict(body, &e); err != nil {
		return reply{}, fmt.Errorf("reply: %w", err)
	}
	if err := errors.Join(checkState(e.Accept.State), checkState(e.State)); err != nil {
		return reply{}, fmt.Errorf("reply: %w", err)
	}
	r := reply{accept: e.Accept}
	if e.State != nil {
		r.actions = append(r.actions, action{set: &change{State: e.State}})
	}
	for i, raw := range e.Actions {
		a, err := parseAction(raw)
		if err != nil {
			return reply{}, fmt.Errorf("reply: actions[%d]: %w", i, err)
		}
		r.actions = append(r.actions, a)
	}
	return r, nil
}

func parseAction(raw []byte) (action, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return action{}, explain(err)
	}
	if len(members) != 1 {
		return action{}, fmt.Errorf("an action has one member, not %d", len(members))
	}
	var a action
	var err error
	for name, value := range members {
		switch name {
		case "send":
			a.send, err = parsePayload(value)
		case "close":
			a.close = &farewell{Code: int(ws.CodeNormal)}
			err = strict(value, a.close)
		case "set":
			a.set, err = parseChange(value)
		default:
			return action{}, fmt.Errorf("unknown action %q: there are send, close and set", name)
		}
		if err != nil {
			return action{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	return a, nil
}

// parsePayload reads a message in one of its three spellings.
func parsePayload(raw []byte) (*ws.Message, error) {
	var p struct {
		Text *string         `json:"text"`
		Data []byte          `json:"data_base64"`
		JSON json.RawMessage `json:"json"`
	}
	if err := strict(raw, &p); err != nil {
		return nil, err
	}
	var messages []*ws.Message
	if p.Text != nil {
		messages = append(messages, &ws.Message{Op: ws.Text, Data: []byte(*p.Text)})
	}
	if p.Data != nil {
		messages = append(messages, &ws.Message{Op: ws.Binary, Data: p.Data})
	}
	if p.JSON != nil {
		messages = append(messages, &ws.Message{Op: ws.Text, Data: p.JSON})
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("a message is one of text, json and data_base64, not %d of them", len(messages))
	}
	return messages[0], nil
}

func parseChange(raw []byte) (*change, error) {
	c := new(change)
	if err := strict(raw, c); err != nil {
		return nil, err
	}
	if c.User == nil && c.State == nil {
		return nil, errors.New("names neither user nor state")
	}
	return c, checkState(c.State)
}

func checkState(state json.RawMessage) error {
	if len(state) > maxState {
		return fmt.Errorf("state has %d bytes; %d are kept at most", len(state), maxState)
	}
	return nil
}

// strict decodes one JSON value and refuses members that it does not know.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return explain(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more follows the JSON value")
	}
	return nil
}

// explain puts an error of encoding/json into the words of the dialect: its readers do not know our types.
func explain(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return fmt.Errorf("cannot be of type %s", wrong.Value)
		}
		return fmt.Errorf("member %q cannot be of type %s", wrong.Field, wrong.Value)
	}
	return errors.New(strings.Replace(err.Error(), "json: unknown field", "unknown member", 1))
}
