package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"bridgehead/cmd/bridgehead/connect"
	"bridgehead/server"
	"bridgehead/ws"
)

func newExplain() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain URL",
		Short: "Tell what would become of a client: its route, each policy's verdict, the backend, the answer",
		Long: `Tell what a program of this configuration would do with a client: the listener and the certificate that it meets, its route, what
each policy says of it and why, which backend it would be led to, and the answer. The verdicts come from the code that serves.

A URL of wss or ws opens a socket, one of https or http asks for a page. Its port finds the listener; if none has that port,
something in front may lead it to one that speaks TLS, or does not, as the URL says.

Each line has a verdict: ok, no, or - for what only others can tell. All is asked, also after the first no; in parentheses stands
what the client would never come to.

Nothing is touched: no port is opened, no backend asked, no certificate made. What takes an identity provider to tell, such as keys
by URL, stays open, and all else of a token is checked; no token is printed. A program that runs is not asked either: limits
and capacity are those of the file, as the first client meets them.

Exit codes: 0 the client would get its socket, or its page, if the backend agrees; 1 it would be refused; 2 wrong usage or
configuration.`,
		Example: `  bridgehead explain wss://chat.example.com/rooms/5 --origin https://www.example.com
  bridgehead explain -c config.yaml wss://localhost:8443/chat -s chat.v2 -H 'Cookie:session=abc'
  bridgehead explain wss://chat.example.com/ --client 10.0.0.2 -H X-Forwarded-For:198.51.100.7     through a proxy in front
  bridgehead explain wss://chat.example.com/ --token "$TOKEN"
  bridgehead explain --json wss://chat.example.com/`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	path := configFlag(c)
	o := explainFlags(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return misused(cmd, errors.New("explain needs one URL, as in wss://example.com/path"))
		}
		question, err := o.question(args[0])
		if err != nil {
			return misused(cmd, err)
		}
		cfg, err := load(*path, io.Discard)
		if err != nil {
			return err
		}
		e, err := server.Explain(cfg, *question)
		if err != nil {
			return misused(cmd, err)
		}
		return printExplanation(cmd.OutOrStdout(), e, o.json)
	}
	return c
}

// explainOptions are the flags of explain.
type explainOptions struct {
	origin, client, token string
	headers, subprotocols []string
	json                  bool
}

func explainFlags(c *cobra.Command) *explainOptions {
	o, f := new(explainOptions), c.Flags()
	f.StringVar(&o.origin, "origin", "", "the page that opens the socket, as in https://www.example.com (default: no browser)")
	f.StringVar(&o.token, "token", "", "a token, put where the route looks for one first; USER:PASSWORD for passwords")
	f.StringVar(&o.client, "client", "", "the address that the connection comes from; that of a proxy in front, if there is one")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "a header, as in 'Name: value'; again for more; Host too")
	f.StringSliceVarP(&o.subprotocols, "subprotocol", "s", nil, "a subprotocol that is offered; again for more, the best first")
	f.BoolVar(&o.json, "json", false, "print it as a JSON object, for scripts")
	return o
}

// question reads who asks for what.
func (o *explainOptions) question(text string) (*server.Question, error) {
	q := &server.Question{Header: http.Header{}, Subprotocols: o.subprotocols, Token: o.token}
	var err error
	if q.URL, err = parseURL(text); err != nil {
		return nil, err
	}
	if o.client != "" {
		if q.Peer, err = netip.ParseAddr(o.client); err != nil {
			return nil, fmt.Errorf("client %q: write an IP address, as in 203.0.113.7", o.client)
		}
	}
	for _, line := range o.headers {
		if err := addHeader(q.Header, line); err != nil {
			return nil, err
		}
	}
	if o.origin != "" {
		q.Header.Set("Origin", o.origin)
	}
	return q, nil
}

// parseURL reads a URL as connect does, but keeps pages apart from sockets.
func parseURL(text string) (*url.URL, error) {
	u, err := connect.ParseURL(text)
	if err != nil {
		return nil, err
	}
	if scheme, _, found := strings.Cut(text, "://"); found && strings.EqualFold(scheme[:min(4, len(scheme))], "http") {
		u.Scheme = strings.ToLower(scheme)
	}
	return u, nil
}

// addHeader reads one line. Those that the handshake writes itself are not for clients to choose.
func addHeader(all http.Header, line string) error {
	read, err := textproto.NewReader(bufio.NewReader(strings.NewReader(line + "\r\n\r\n"))).ReadMIMEHeader()
	if err != nil || len(read) != 1 {
		return fmt.Errorf("header %q: write it as 'Name: value'", line)
	}
	for name, values := range read {
		if name != "Host" && len(ws.Passable(http.Header(read))) == 0 {
			return fmt.Errorf("header %q: the handshake has its own; subprotocols are offered by -s", name)
		}
		all[name] = append(all[name], values...)
	}
	return nil
}

// printExplanation prints it; the error says who refuses.
func printExplanation(w io.Writer, e *server.Explanation, asJSON bool) error {
	write := e.WriteText
	if asJSON {
		write = func(w io.Writer) error { return writeJSON(w, e) }
	}
	if err := write(w); err != nil {
		return fail(exitFailed, err)
	}
	return fail(exitFailed, e.Refused())
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false) // there are & in URLs
	return encoder.Encode(v)
}
