package webhook

import (
	"encoding/json"
	"net/http"
	"strings"

	"bridgehead/ws"
)

// A reply is what the application asks for.
type reply struct {
	accept  accept // counts for a `connect` alone
	actions []action
}

// accept is how the application lets a client in.
type accept struct {
	User        string            `json:"user"`
	Subprotocol string            `json:"subprotocol"`
	Headers     map[string]values `json:"headers"`
	State       json.RawMessage   `json:"state"`
}

// An action is one thing to do to the connection: exactly one member is set.
type action struct {
	send  *ws.Message
	close *farewell
	set   *change
}

// A farewell closes the socket. The code is what the application wrote, legal or not.
type farewell struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// A change says who the client is, or what to keep with its connection; nil leaves either as it is.
type change struct {
	User  *string         `json:"user"`
	State json.RawMessage `json:"state"`
}

// kept is a state as it is stored: null is none.
func kept(state json.RawMessage) json.RawMessage {
	if string(state) == "null" {
		return nil
	}
	return state
}

// code is the code to close with, and whether it may be sent: one that may not becomes an empty Close frame.
func (f *farewell) code() (ws.Code, bool) {
	if code := ws.Code(f.Code); int(code) == f.Code && code.Sendable() {
		return code, true
	}
	return ws.CodeNoStatus, false
}

// handshakeHeaders are what an application may add to the 101, beside X-*.
var handshakeHeaders = map[string]bool{
	"Set-Cookie": true, "Server-Timing": true, "Strict-Transport-Security": true, "Traceresponse": true,
}

// header gives the headers for the 101, and the names of those that are not allowed there.
func (a *accept) header() (h http.Header, refused []string) {
	h = http.Header{}
	for name, lines := range a.Headers {
		canonical := http.CanonicalHeaderKey(name)
		if !fieldName.MatchString(name) || !handshakeHeaders[canonical] && !strings.HasPrefix(canonical, "X-") {
			refused = append(refused, name)
			continue
		}
		h[canonical] = append(h[canonical], lines...)
	}
	return h, refused
}

// values are the lines of one header: a text, or a list of them.
type values []string

// UnmarshalJSON takes either.
func (v *values) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, (*[]string)(v)); err == nil {
		return nil
	}
	*v = make(values, 1)
	return json.Unmarshal(data, &(*v)[0])
}
