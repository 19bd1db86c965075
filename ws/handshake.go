package ws

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// version is the one version of the protocol (RFC 6455, section 4.1).
const version = "13"

// An Offer is what a client's handshake asks for.
type Offer struct {
	Key          string   // "" over HTTP/2, where few clients send one
	Subprotocols []string // in the client's order, over all its header lines
	Deflate      []string // the permessage-deflate offers, as they were written, in order; all other extensions are left out
}

// A HandshakeError says why a request is no handshake, and how to answer it.
type HandshakeError struct {
	Status  int
	Header  http.Header // to be set on the response; it closes the connection if an upgrade was asked for
	Message string      // one line for the body: what is wrong and what to do about it
}

// Error gives the message.
func (e *HandshakeError) Error() string { return "websocket handshake: " + e.Message }

// An Answer is what a server says in its 101.
type Answer struct {
	Subprotocol string // "" for none
	Extensions  string // "" for none

	// Header has further lines. Those that belong to one connection, and Sec-WebSocket ones, do not count.
	Header http.Header
}

// IsUpgrade reports whether r asks for an upgrade, to whatever protocol.
func IsUpgrade(r *http.Request) bool {
	for range elements(r.Header["Upgrade"]) {
		return true
	}
	return false
}

// IsAttempt reports whether anybody who reads r may take it for an attempt at a handshake, however badly made: it speaks of an
// upgrade, or has what only a WebSocket handshake has. A proxy must not pass on such a request as one that asks for nothing.
func IsAttempt(r *http.Request) bool {
	for _, name := range []string{"Upgrade", "Http2-Settings", "Sec-Websocket-Key", "Sec-Websocket-Version"} {
		if len(r.Header[name]) > 0 {
			return true
		}
	}
	return hasToken(r.Header["Connection"], "upgrade")
}

// CheckRequest checks that r is a client's opening handshake (RFC 6455, section 4.2.1), which over HTTP/2 has been through FromHTTP2,
// and reads what it offers. The error is a *HandshakeError.
func CheckRequest(r *http.Request) (Offer, error) {
	if r.Method != http.MethodGet {
		return Offer{}, refuse(r, http.StatusMethodNotAllowed, "a WebSocket handshake is a GET request, not %s", r.Method)
	}
	if !r.ProtoAtLeast(1, 1) {
		return Offer{}, refuse(r, http.StatusBadRequest, "a WebSocket handshake needs HTTP/1.1, and this request came as %s; "+
			"a proxy in front may have to be told to use it (nginx: proxy_http_version 1.1)", r.Proto)
	}
	if !IsUpgrade(r) {
		return Offer{}, refuse(r, http.StatusUpgradeRequired, "this is a WebSocket endpoint: open it with a WebSocket client, "+
			"in a browser new WebSocket(%q); if you did, a proxy in between dropped the Upgrade header", address(r))
	}
	if err := checkUpgrade(r); err != nil {
		return Offer{}, err
	}
	key, err := checkKey(r)
	if err != nil {
		return Offer{}, err
	}
	return Offer{
		Key:          key,
		Subprotocols: slices.Collect(elements(r.Header["Sec-Websocket-Protocol"])),
		Deflate:      deflateOffers(r.Header["Sec-Websocket-Extensions"]),
	}, nil
}

// checkUpgrade checks the upgrade and the form of the request around it.
func checkUpgrade(r *http.Request) error {
	versions := r.Header["Sec-Websocket-Version"]
	switch {
	case overHTTP2(r) && !strings.EqualFold(r.Header.Get("Upgrade"), "websocket"): // RFC 9220, section 3, says it for HTTP/3
		return refuse(r, http.StatusNotImplemented, "a tunnel for %q is not possible here, only for websocket", r.Header.Get("Upgrade"))
	case !hasToken(r.Header["Upgrade"], "websocket"):
		return refuse(r, http.StatusUpgradeRequired, "upgrade to %q is not possible here, only to websocket", r.Header.Get("Upgrade"))
	case !hasToken(r.Header["Connection"], "upgrade"):
		return refuse(r, http.StatusBadRequest, "connection header %q does not say upgrade; "+
			"a proxy in between may have to be told to pass it on", r.Header.Get("Connection"))
	case r.Host == "":
		return refuse(r, http.StatusBadRequest, "empty Host header")
	case overHTTP2(r) && r.ContentLength != -1: // what the client sends of the socket is a body without a length
		return refuse(r, http.StatusBadRequest, "a WebSocket handshake has no content-length, and does not end its stream")
	case !overHTTP2(r) && r.ContentLength != 0: // -1 if it comes in chunks
		return refuse(r, http.StatusBadRequest, "a WebSocket handshake has no body")
	case len(versions) > 1:
		return refuse(r, http.StatusBadRequest, "%d Sec-WebSocket-Version headers", len(versions))
	case len(versions) == 0 || trim(versions[0]) != version:
		return refuse(r, http.StatusUpgradeRequired, "websocket version %q is not supported, only %s",
			r.Header.Get("Sec-Websocket-Version"), version)
	}
	return nil
}

// checkKey returns the one key of 16 bytes that a handshake has. Over HTTP/2 it proves nothing (RFC 8441, section 5.1), and is there
// where something in front has made one handshake of another.
func checkKey(r *http.Request) (string, error) {
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) == 0 && overHTTP2(r) {
		return "", nil
	}
	if len(keys) != 1 {
		return "", refuse(r, http.StatusBadRequest, "%d Sec-WebSocket-Key headers, where one is needed", len(keys))
	}
	key := trim(keys[0])
	if raw, err := base64.StdEncoding.DecodeString(key); err != nil || len(raw) != keySize {
		return "", refuse(r, http.StatusBadRequest, "Sec-WebSocket-Key %q is not the base64 of %d bytes", key, keySize)
	}
	return key, nil
}

func overHTTP2(r *http.Request) bool { return r.ProtoMajor > 1 }

// refuse makes the error for r. After a refused upgrade the connection is closed: whoever asked may have sent frames already,
// which must not be read as a request.
func refuse(r *http.Request, status int, format string, args ...any) error {
	h := http.Header{}
	if IsUpgrade(r) {
		h.Add("Connection", "close")
	}
	switch status {
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	case http.StatusUpgradeRequired:
		h.Add("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
		h.Set("Sec-WebSocket-Version", version)
	}
	return &HandshakeError{Status: status, Header: h, Message: fmt.Sprintf(format, args...)}
}

// address is the URL at which a WebSocket client reaches what r asked for, without the query, which may be secret.
func address(r *http.Request) string {
	scheme := "ws"
	if r.TLS != nil {
		scheme = "wss"
	}
	return scheme + "://" + r.Host + r.URL.EscapedPath()
}

// AcceptKey is the Sec-WebSocket-Accept that answers a key (RFC 6455, section 4.2.2).
func AcceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// AppendAnswer appends the whole 101 response to a handshake with this key. Header lines that could not be read back as
// they are, with CR, LF or NUL in them, are left out.
func AppendAnswer(dst []byte, key string, a Answer) []byte {
	dst = append(slices.Grow(dst, headSize), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"...)
	dst = appendLine(dst, "Sec-WebSocket-Accept", AcceptKey(key))
	if a.Subprotocol != "" {
		dst = appendLine(dst, "Sec-WebSocket-Protocol", a.Subprotocol)
	}
	if a.Extensions != "" {
		dst = appendLine(dst, "Sec-WebSocket-Extensions", a.Extensions)
	}
	return append(appendHeader(dst, a.Header), "\r\n"...)
}
