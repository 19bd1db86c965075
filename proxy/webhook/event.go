package webhook

import (
	"crypto/x509"
	"encoding/json"
	"strconv"
	"time"

	"bridgehead/policy"
	"bridgehead/ws"
)

// A connection is what every request says of the socket. What is not known is left out.
type connection struct {
	ID          string          `json:"id"`
	User        string          `json:"user,omitempty"`
	Claims      policy.Claims   `json:"claims,omitempty"` // that backends are told of the user
	RemoteIP    string          `json:"remote_ip,omitempty"`
	Subprotocol string          `json:"subprotocol,omitempty"`
	ConnectedAt stamp           `json:"connected_at"`       // when the handshake came
	PushURL     string          `json:"push_url,omitempty"` // where this socket can be pushed to
	State       json.RawMessage `json:"state,omitempty"`    // what the application has asked to keep
}

// The types of events.
const (
	typeConnect = "connect"
	typeMessage = "message"
	typeClose   = "close"
)

// An event is one thing that happened to a connection. Exactly one of the embedded parts is set, as the type says.
type event struct {
	ID   string `json:"id"`  // the connection's id and Seq
	Seq  int64  `json:"seq"` // from 0, without gaps: a gap that the application sees is an event that it did not get
	Type string `json:"type"`
	Time stamp  `json:"time"`
	*connecting
	*message
	*closing
}

// connecting is the handshake of a client that asks to come in. What is not known is left out.
type connecting struct {
	Method       string            `json:"method"`
	Path         string            `json:"path"`              // as the client escaped it
	Query        string            `json:"query,omitempty"`   // without the question mark
	Headers      map[string]string `json:"headers,omitempty"` // those that are forwarded, names in lower case
	Origin       string            `json:"origin,omitempty"`
	Subprotocols []string          `json:"subprotocols,omitempty"` // offered, in the client's order
	TLS          bool              `json:"tls"`
	Certificate  *certificate      `json:"certificate,omitempty"` // that the client has proven to be its own
}

// A certificate is who a client is, as an authority of ours says.
type certificate struct {
	Subject     string   `json:"subject"`
	Issuer      string   `json:"issuer"`
	Serial      string   `json:"serial"`      // hexadecimal
	Fingerprint string   `json:"fingerprint"` // SHA-256 of the whole, hexadecimal
	NotAfter    stamp    `json:"not_after"`
	DNS         []string `json:"dns,omitempty"`
	Emails      []string `json:"emails,omitempty"`
	URIs        []string `json:"uris,omitempty"`
	IPs         []string `json:"ips,omitempty"`
}

// newCertificate is nil for a client that has shown none.
func newCertificate(c *x509.Certificate) *certificate {
	if c == nil {
		return nil
	}
	shown := &certificate{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16), Fingerprint: policy.Fingerprint(c),
		NotAfter: stamp(c.NotAfter), DNS: c.DNSNames, Emails: c.EmailAddresses,
	}
	for _, uri := range c.URIs {
		shown.URIs = append(shown.URIs, uri.String())
	}
	for _, ip := range c.IPAddresses {
		shown.IPs = append(shown.IPs, ip.String())
	}
	return shown
}

// message is one message of the client: a text, else the bytes of a binary message.
type message struct {
	Text *string `json:"text,omitempty"`
	Data []byte  `json:"data_base64,omitzero"`
}

// closing is the end of a socket.
type closing struct {
	Code        ws.Code      `json:"code"` // 1005: an empty Close frame; 1006: the connection ended without one
	Reason      string       `json:"reason"`
	Clean       bool         `json:"clean"` // false: the client vanished, died or took nothing more
	Initiator   ws.Initiator `json:"initiator"`
	DurationMS  int64        `json:"duration_ms"`
	MessagesIn  int64        `json:"messages_in"` // from the client
	MessagesOut int64        `json:"messages_out"`
	BytesIn     int64        `json:"bytes_in"`
	BytesOut    int64        `json:"bytes_out"`
}

// newMessage is the event's part for a message of the client.
func newMessage(m ws.Message) *message {
	if m.Op == ws.Text {
		text := string(m.Data)
		return &message{Text: &text}
	}
	return &message{Data: m.Data}
}

// newClosing is the event's part for the end of a socket.
func newClosing(cause ws.Cause, lived time.Duration) *closing {
	c := &closing{Initiator: cause.By(), DurationMS: lived.Milliseconds()}
	c.Code, c.Reason = cause.Client()
	switch cause.Kind {
	case ws.ClientGone, ws.ClientDead, ws.ClientSlow:
		c.Code = ws.CodeAbnormal // what we would have said, nobody has heard
	default:
		c.Clean = true
	}
	return c
}

// size is how many bytes of the client an event carries.
func (e *event) size() int {
	switch {
	case e.message == nil:
		return 0
	case e.Text != nil:
		return len(*e.Text)
	}
	return len(e.Data)
}

// requestID names the request that carries these events, in every attempt: the id of the first, and for a batch their number.
func requestID(events []event) string {
	if len(events) == 1 {
		return events[0].ID
	}
	return events[0].ID + "-" + strconv.Itoa(len(events))
}

// A stamp is a moment as it is written: RFC 3339, UTC, milliseconds.
type stamp time.Time

// MarshalText writes the moment.
func (s stamp) MarshalText() ([]byte, error) {
	return time.Time(s).UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z"), nil
}
