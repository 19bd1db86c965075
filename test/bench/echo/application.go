//go:build linux

package echo

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// The forms in which gateways tell an application of a socket's events: the product's own, and WebSocket-over-HTTP.
const (
	nativeForm = "application/json"
	eventsForm = "application/websocket-events"
)

// reply is what an application says to the requests that p holds whole; what is left of p begins another.
func reply(p []byte) (answer, rest []byte, err error) {
	for {
		end := bytes.Index(p, []byte("\r\n\r\n"))
		switch {
		case end < 0 && len(p) > maxHead:
			return nil, nil, errDone
		case end < 0:
			return answer, p, nil
		}
		body := p[end+4:]
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(p[:end+4])))
		if err != nil || r.ContentLength < 0 || end+4+int(r.ContentLength) > bufferSize {
			return nil, nil, errDone
		}
		if len(body) < int(r.ContentLength) {
			return answer, p, nil
		}
		body, p = body[:r.ContentLength], body[r.ContentLength:]
		switch r.Header.Get("Content-Type") {
		case nativeForm:
			answer, err = replyNative(answer, body)
		case eventsForm:
			answer, err = replyEvents(answer, body)
		default:
			err = errDone
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

// replyNative accepts every socket and sends each message back: a single one as it is, more of them as actions.
func replyNative(dst, body []byte) ([]byte, error) {
	type message struct {
		Text *string `json:"text,omitempty"`
		Data []byte  `json:"data_base64,omitempty"`
	}
	var request struct {
		Events []struct {
			Type string `json:"type"`
			message
		} `json:"events"`
	}
	if json.Unmarshal(body, &request) != nil {
		return nil, errDone
	}
	type send struct {
		Send message `json:"send"`
	}
	var back struct {
		Actions []send `json:"actions"`
	}
	for _, e := range request.Events {
		if e.Type == "message" {
			back.Actions = append(back.Actions, send{e.message})
		}
	}
	switch len(back.Actions) {
	case 0:
		return append(dst, "HTTP/1.1 204 No Content\r\n\r\n"...), nil
	case 1:
		if text := back.Actions[0].Send.Text; text != nil {
			return appendAnswer(dst, "text/plain", []byte(*text)), nil
		}
		return appendAnswer(dst, "application/octet-stream", back.Actions[0].Send.Data), nil
	default:
		actions, err := json.Marshal(back)
		return appendAnswer(dst, nativeForm, actions), err
	}
}

// replyEvents accepts every socket, sends each message back, and closes as the client does.
func replyEvents(dst, body []byte) ([]byte, error) {
	var back []byte
	for len(body) > 0 {
		line, rest, ok := bytes.Cut(body, []byte("\r\n"))
		if !ok {
			return nil, errDone
		}
		word, digits, long := bytes.Cut(line, []byte(" "))
		if long {
			n, err := strconv.ParseUint(string(digits), 16, 31)
			if err != nil || int(n)+2 > len(rest) {
				return nil, errDone
			}
			rest = rest[n+2:]
		}
		switch string(word) {
		case "OPEN", "TEXT", "BINARY", "CLOSE":
			back = append(back, body[:len(body)-len(rest)]...)
		}
		body = rest
	}
	return appendAnswer(dst, eventsForm, back), nil
}

func appendAnswer(dst []byte, contentType string, body []byte) []byte {
	dst = fmt.Appendf(dst, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", contentType, len(body))
	return append(dst, body...)
}
