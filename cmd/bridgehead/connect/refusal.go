package connect

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
)

// refused shows a response that is no upgrade, and gives the error for it.
func (c *Client) refused(show *screen, resp *http.Response) error {
	raw, _ := io.ReadAll(resp.Body) // gorilla has read the first KiB of it, and no more
	body := strings.TrimSpace(string(raw))
	matter := []string{"Retry-After", "Www-Authenticate", "Location", "Allow", "Upgrade", "Sec-Websocket-Version"}
	if c.options.Verbose {
		matter = nil
	}
	lines := append([]string{resp.Proto + " " + resp.Status}, headerLines(resp.Header, matter...)...)
	if body != "" {
		lines = append(lines, body)
	}
	show.note(strings.Join(lines, "\n"))
	return fmt.Errorf("%s answers %s: %s", name(c.url), safe(resp.Status), safe(c.advice(resp, body)))
}

// advice says what may make a server change its mind.
func (c *Client) advice(resp *http.Response, body string) string {
	switch status := resp.StatusCode; {
	case status == http.StatusBadRequest && c.url.Scheme == "ws" && strings.Contains(body, "HTTPS"):
		return "it speaks TLS there: use " + c.with("wss") // as Go, nginx and Apache answer plain HTTP
	case resp.Header.Get("Location") != "":
		return c.follow(resp.Header.Get("Location"))
	case status < http.StatusMultipleChoices:
		return "that is a page and no WebSocket: is the path right?"
	case status == http.StatusUnauthorized:
		return "send credentials, as in -H 'Authorization: Bearer TOKEN' or wss://user:password@host/path"
	case status == http.StatusForbidden && c.header.Get("Origin") == "":
		return "if it wants to know the page that asks, try --origin " + c.origin()
	case status == http.StatusForbidden:
		return fmt.Sprintf("is the origin %s among those that it allows, in bridgehead `origins` of the route?", c.header.Get("Origin"))
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		return "it is too much at this moment; try again " + later(resp)
	case status >= http.StatusInternalServerError:
		return "the server, or one behind it, is in trouble; its log says more"
	default:
		return "are host, port and path right, and does every proxy in between pass the Upgrade header on?"
	}
}

// follow says how to go where a server points to. Redirects are not followed: a handshake may carry secrets.
func (c *Client) follow(location string) string {
	to, err := url.Parse(location)
	if err != nil {
		return fmt.Sprintf("it points to %q, which is no URL", location)
	}
	there := c.url.ResolveReference(to)
	there.Scheme = strings.Replace(there.Scheme, "http", "ws", 1)
	return "if you trust where it points to, bridgehead connect " + there.String()
}

// with is the URL with another scheme.
func (c *Client) with(scheme string) string {
	u := *c.url
	u.Scheme = scheme
	return name(&u)
}

// origin is that of a page on the server itself.
func (c *Client) origin() string {
	return strings.Replace(c.url.Scheme, "ws", "http", 1) + "://" + cmp.Or(c.header.Get("Host"), c.url.Host)
}

func later(resp *http.Response) string {
	if after := resp.Header.Get("Retry-After"); after != "" {
		return "after " + after + " (Retry-After)"
	}
	return "later"
}

// failed is the error for a handshake that came to nothing.
func (c *Client) failed(err error) error {
	text := "connect to " + name(c.url) + ": " + safe(strings.TrimPrefix(err.Error(), "websocket: "))
	if help := c.help(err); help != "" {
		text += "; " + help
	}
	return errors.New(text)
}

// help says what may mend a failed handshake.
func (c *Client) help(err error) string {
	if help := helpTLS(err); help != "" {
		return help
	}
	var (
		text      = err.Error()
		dns, name = errors.AsType[*net.DNSError](err)
		late, ok  = errors.AsType[net.Error](err)
	)
	switch _, plain := errors.AsType[tls.RecordHeaderError](err); {
	case plain:
		return "it does not speak TLS there: use " + c.with("ws")
	case name && dns.IsNotFound:
		return "is the name right? --address HOST:PORT goes elsewhere"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "does it run, and on that port?"
	case ok && late.Timeout():
		return fmt.Sprintf("it did not answer within %v; --timeout waits longer", c.options.Timeout)
	case strings.HasPrefix(text, "malformed HTTP"), errors.Is(err, io.ErrUnexpectedEOF), err == io.EOF, errors.Is(err, syscall.ECONNRESET):
		return c.helpProtocol()
	case strings.Contains(text, "compression"):
		return "leave out --compression"
	case strings.Contains(text, "bad handshake"):
		return "it answers 101, but not to this handshake: what is there is no WebSocket server"
	default:
		return ""
	}
}

// helpProtocol is for a server that answers with something else than HTTP, or hangs up.
func (c *Client) helpProtocol() string {
	if c.url.Scheme == "ws" {
		return "if it speaks TLS there, use " + c.with("wss")
	}
	return "is it a WebSocket server that listens there?"
}

// helpTLS says what may mend a failed TLS handshake.
func helpTLS(err error) string {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, misnamed := errors.AsType[x509.HostnameError](err)
	_, refused := errors.AsType[*tls.CertificateVerificationError](err)
	switch text := err.Error(); {
	case unknown:
		return "trust its authority with --ca FILE; bridgehead ca prints the root of a local one"
	case misnamed:
		return "connect by a name that it has, and say where that is with --address HOST:PORT"
	case refused:
		return "--insecure looks past it"
	case strings.Contains(text, "remote error: tls:") && strings.Contains(text, "certificate"):
		return "it wants a certificate of yours: --cert FILE --key FILE"
	case strings.Contains(text, "remote error: tls: unrecognized name"):
		return "it has no certificate for that name"
	default:
		return ""
	}
}
