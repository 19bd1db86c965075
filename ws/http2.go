package ws

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// protocol is where net/http puts the pseudo-header of an extended CONNECT, among the others.
const protocol = ":protocol"

// FromHTTP2 gives an opening handshake over HTTP/2 (RFC 8441, section 5) the form that it has over HTTP/1.1, a GET that asks for an
// upgrade: from there on all rules, policies and logs are the same. Clients cannot write that themselves, since net/http refuses what
// they say of their connection. foreign tells that :scheme is known, and not that of the connection. The error says what is malformed
// about a request, whatever it asks for; plain CONNECTs are left to others.
func FromHTTP2(r *http.Request, foreign bool) error {
	protocols, tunnel := r.Header[protocol]
	delete(r.Header, protocol)
	if r.Method == http.MethodConnect && !tunnel {
		return nil
	}
	for _, host := range r.Header["Host"] { // RFC 9113, section 8.3.1
		if !strings.EqualFold(host, r.Host) {
			return fmt.Errorf("host %q is not the :authority %q", host, r.Host)
		}
	}
	delete(r.Header, "Host")
	switch {
	case r.URL.Scheme != "" || r.URL.Host != "" || r.URL.Opaque != "":
		return fmt.Errorf(":path %q does not begin with a slash", r.URL)
	case !tunnel:
		return nil
	case r.Method != http.MethodConnect:
		return fmt.Errorf(":protocol belongs to CONNECT, not to %s", r.Method)
	case foreign:
		return errors.New("the :scheme of wss:// is https")
	}
	r.Method = http.MethodGet
	r.Header["Upgrade"], r.Header["Connection"] = protocols, []string{"Upgrade"}
	return nil
}

// Set writes what a server says in its 200 over HTTP/2 (RFC 8441, section 5.1) into a header. The key, which clients need not send
// there, is answered if there is one.
func (a Answer) Set(h http.Header, key string) {
	for name, values := range a.Header {
		if isReserved(name) || !isToken(name) {
			continue
		}
		for _, value := range values {
			if isLine(value) {
				h.Add(name, value)
			}
		}
	}
	for name, value := range map[string]string{"Sec-Websocket-Protocol": a.Subprotocol, "Sec-Websocket-Extensions": a.Extensions} {
		if value != "" {
			h.Set(name, value)
		}
	}
	if key != "" {
		h.Set("Sec-Websocket-Accept", AcceptKey(key))
	}
}
