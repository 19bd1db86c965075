package ws

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// keySize is the size of a handshake's key before it is encoded, in bytes.
const keySize = 16

// NewKey gives a fresh Sec-WebSocket-Key: 16 random bytes in base64 (RFC 6455, section 4.1).
func NewKey() string {
	var raw [keySize]byte
	rand.Read(raw[:])
	return base64.StdEncoding.EncodeToString(raw[:])
}

// A Request is the opening handshake that we send to a server.
type Request struct {
	Host         string
	Target       string // path and query, escaped; "" is "/"
	Key          string // see NewKey
	Subprotocols []string
	Extensions   []string // offers, in order

	// Header has further lines. Those that belong to one connection, and Host and the Sec-WebSocket ones, do not count.
	Header http.Header
}

// Append appends the request. Header lines that could not be read back as they are, with CR, LF or NUL in them, are left out;
// white space and controls in the target are escaped.
func (q *Request) Append(dst []byte) []byte {
	dst = appendTarget(append(slices.Grow(dst, headSize), "GET "...), q.Target)
	dst = appendLine(append(dst, " HTTP/1.1\r\n"...), "Host", q.Host)
	dst = append(dst, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "+version+"\r\n"...)
	dst = appendLine(dst, "Sec-WebSocket-Key", q.Key)
	if len(q.Subprotocols) > 0 {
		dst = appendLine(dst, "Sec-WebSocket-Protocol", strings.Join(q.Subprotocols, ", "))
	}
	if len(q.Extensions) > 0 {
		dst = appendLine(dst, "Sec-WebSocket-Extensions", strings.Join(q.Extensions, ", "))
	}
	return append(appendHeader(dst, q.Header), "\r\n"...)
}

// appendTarget appends a request target, so that nothing in it can end the request line.
func appendTarget(dst []byte, target string) []byte {
	if !strings.HasPrefix(target, "/") {
		dst = append(dst, '/')
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7F {
			dst = fmt.Appendf(dst, "%%%02X", c)
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// CheckResponse checks that a response accepts the handshake (RFC 6455, section 4.1): nothing but a 101 with the right answer to
// the key does, with a subprotocol and an extension only if they were offered. The Answer's Header is the response's without the
// lines that belong to one connection and the Sec-WebSocket ones.
func (q *Request) CheckResponse(resp *http.Response) (Answer, error) {
	h := resp.Header
	switch {
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return Answer{}, fmt.Errorf("status %d where 101 is needed", resp.StatusCode)
	case !hasToken(h["Upgrade"], "websocket"):
		return Answer{}, fmt.Errorf("upgrade header %q does not say websocket", h.Get("Upgrade"))
	case !hasToken(h["Connection"], "upgrade"):
		return Answer{}, fmt.Errorf("connection header %q does not say upgrade", h.Get("Connection"))
	}
	accept := h["Sec-Websocket-Accept"]
	if len(accept) != 1 || trim(accept[0]) != AcceptKey(q.Key) {
		return Answer{}, fmt.Errorf("Sec-WebSocket-Accept %q does not answer the key", accept)
	}
	subprotocols := slices.Collect(elements(h["Sec-Websocket-Protocol"]))
	if len(subprotocols) > 1 {
		return Answer{}, fmt.Errorf("subprotocols %q where at most one can be chosen", subprotocols)
	}
	if len(subprotocols) == 1 && !slices.Contains(q.Subprotocols, subprotocols[0]) {
		return Answer{}, fmt.Errorf("subprotocol %q was not offered", subprotocols[0])
	}
	extensions, err := checkExtensions(h["Sec-Websocket-Extensions"], q.Extensions)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Subprotocol: strings.Join(subprotocols, ""), Extensions: extensions, Header: Passable(h)}, nil
}

// Passable is h without the reserved lines and those that its Connection header names.
func Passable(h http.Header) http.Header {
	kept := http.Header{}
	for name, values := range h {
		if !isReserved(name) && !hasToken(h["Connection"], name) {
			kept[name] = slices.Clone(values)
		}
	}
	return kept
}
