package relay

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
	"bridgehead/ws"
)

// readResponse reads past interim answers other than 101 (RFC 9110, section 15.2).
func readResponse(br *bufio.Reader) (*http.Response, error) {
	if err := checkHTTP(br); err != nil {
		return nil, err
	}
	for range 5 {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, errors.New("too many interim answers")
}

// strangers are servers of other protocols, by how they begin.
var strangers = []struct{ kind, begin, mend string }{
	{"TLS", "\x15\x03", "the server speaks TLS at this port: write {other}:// in {where}"},
	{"HTTP/2", "\x00\x00", "the server speaks HTTP/2 at once: sockets need one that speaks HTTP/1.1"},
	{"stream", "", "if the server is a TCP server, it belongs behind a route with tcp instead of websocket"},
}

// checkHTTP looks at the first bytes that the server says.
func checkHTTP(br *bufio.Reader) error {
	const version = "HTTP/"
	begin, err := br.Peek(len(version))
	if string(begin) == version || len(begin) == 0 {
		return err
	}
	said, _ := br.Peek(min(br.Buffered(), 40))
	for _, s := range strangers {
		if bytes.HasPrefix(said, []byte(s.begin)) {
			return &upstream.Fault{Kind: s.kind, Mend: s.mend, Err: fmt.Errorf("the server said %q, which is no HTTP", said)}
		}
	}
	return err
}

// decline is the error for an answer that is no socket. What the server refuses it refuses to the client; an answer that means
// success to HTTP is none to a WebSocket.
func decline(resp *http.Response, asked *url.URL) error {
	fault := &upstream.Fault{
		Kind: strconv.Itoa(resp.StatusCode),
		Err:  fmt.Errorf("the server answered %.200q with %s", asked.EscapedPath(), summary(resp)),
	}
	if resp.StatusCode < 300 {
		fault.Mend = mends[http.StatusNotFound]
		return fault
	}
	// Servers that refuse an upgrade often drop the connection right behind their status: what came of the body has to do.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	fault.Mend = mend(resp, body, asked)
	return &proxy.Refusal{Status: resp.StatusCode, Header: ws.Passable(resp.Header), Body: body, Reason: "upstream", Err: fault}
}

// summary is what an answer is, in a few words.
func summary(resp *http.Response) string {
	text := resp.Status
	if kind := resp.Header.Get("Content-Type"); kind != "" {
		text += fmt.Sprintf(" and %.100s", kind)
	}
	return text
}

const isItOne = "is it a WebSocket server that answers there?"

// mends say what to do about an answer by its status. isItOne is for others.
var mends = map[int]string{
	http.StatusNotFound:        "is the path right in {where}, and is it a WebSocket server that answers there?",
	http.StatusBadRequest:      "the server does not take the handshake: its log may say why",
	http.StatusUpgradeRequired: "the server saw no handshake: does something in front of it drop the Upgrade header?",
	http.StatusUnauthorized:    "the server wants to know the client: that is between the two",
	http.StatusForbidden:       "the server itself refuses this client: many check Origin and Host by rules of their own",
}

// secured are the words by which servers tell that they were spoken to without TLS.
var secured = []string{"HTTP request to an HTTPS server", "HTTP request was sent to HTTPS port", "speaking plain HTTP to an SSL-enabled"}

func mend(resp *http.Response, body []byte, asked *url.URL) string {
	for _, words := range secured {
		if bytes.Contains(body, []byte(words)) {
			return strangers[0].mend
		}
	}
	if to := resp.Header.Get("Location"); to != "" && resp.StatusCode/100 == 3 {
		return redirected(to, asked)
	}
	if resp.StatusCode >= 500 {
		return "the server, or something in front of it, is in trouble: see its log"
	}
	return cmp.Or(mends[resp.StatusCode], isItOne)
}

// redirected tells where the sockets may be. The query is left out: it may be a client's secret.
func redirected(location string, asked *url.URL) string {
	to, err := asked.Parse(location)
	if err != nil {
		return mends[http.StatusNotFound]
	}
	shown := url.URL{Scheme: strings.Replace(to.Scheme, "http", "ws", 1), Host: to.Host, Path: to.Path}
	if shown.Scheme == "wss" && asked.Scheme == "ws" {
		return fmt.Sprintf("it redirects to %.300s, so it wants TLS: write wss:// in {where}, with the server's port for it", &shown)
	}
	return fmt.Sprintf("it redirects to %.300s, and no WebSocket client follows: if the sockets are there, write that in {where}", &shown)
}
