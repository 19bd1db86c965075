// Package quick makes one bridge out of flags: `bridgehead quick` runs it, and prints the file that it equals. It also reads the
// command lines of websockify.
package quick

import (
	"cmp"
	"fmt"
	"path/filepath"

	"bridgehead/policy"
)

// DefaultFrom is where clients connect if nothing is said: on this machine alone.
const DefaultFrom = "127.0.0.1:8443"

// Options are what the flags say. Empty ones leave things as a configuration has them by default.
type Options struct {
	From         string   // see Bridge; "" is DefaultFrom
	To           string   // where the sockets lead
	As           string   // what speaks there: websocket, tcp or webhook; "" goes by the scheme of To
	Cert, Key    string   // PEM files instead of the local authority; a Cert alone holds both
	Origins      []string // pages that may open sockets, instead of those on this machine
	Web          string   // a directory to serve beside the sockets
	Subprotocols []string // that a stream accepts
	Framing      string   // raw or line: how a stream is cut into messages
	Text         bool     // a stream's messages are text
	Ping         string   // silence before a side is pinged, as a duration
	Log          string   // the level
}

// A Bridge is one way from a listener to a backend. It is immutable.
type Bridge struct {
	options Options // with absolute paths
	from    from
	to      to
}

// New reads the options; an error names the flag, and what to write instead. It touches nothing.
//
// From is `:port` or `host:port`, for TLS, or a URL: wss and https for TLS, ws and http without; its path is the route's. To is
// `host:port`, tcp, tls or unix for a stream, ws or wss for a WebSocket server, http or https for an application.
func New(o Options) (*Bridge, error) {
	b := &Bridge{}
	var err error
	if b.from, err = parseFrom(cmp.Or(o.From, DefaultFrom)); err != nil {
		return nil, err
	}
	if b.to, err = parseTo(o.To, o.As); err != nil {
		return nil, err
	}
	if err := o.check(b.from.secure, b.to.kind); err != nil {
		return nil, err
	}
	if o.Cert != "" {
		o.Key = cmp.Or(o.Key, o.Cert)
	}
	for _, path := range []*string{&o.Cert, &o.Key, &o.Web} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	if o.Web != "" && b.from.path == "" {
		b.from.path = besideFiles[b.to.kind]
	}
	b.options = o
	return b, nil
}

// besideFiles are the paths of the sockets on a port that also serves files. The first is where noVNC connects to.
var besideFiles = map[string]string{tcp: "/websockify", websocket: "/ws", webhook: "/ws"}

// check reports options that do not go together.
func (o *Options) check(secure bool, kind string) error {
	switch {
	case o.Key != "" && o.Cert == "":
		return fmt.Errorf("--key stands alone: name the certificate too, with --cert FILE")
	case o.Cert != "" && !secure:
		return fmt.Errorf("--cert is for TLS, and --from asks for none: write wss:// instead, or leave the certificate out")
	case kind != tcp && len(o.Subprotocols) > 0:
		return fmt.Errorf("--subprotocol is for streams: a %s backend chooses among the client's itself", kind)
	case kind != tcp && (o.Framing != "" || o.Text):
		return fmt.Errorf("--framing and --text are for streams: the messages of a %s backend stay as they are", kind)
	case o.Framing != "" && o.Framing != "raw" && o.Framing != "line":
		return fmt.Errorf("--framing %q is none of raw, line", o.Framing)
	}
	for _, origin := range o.Origins {
		if err := policy.CheckOrigin(origin); err != nil {
			return fmt.Errorf("--%w", err)
		}
	}
	return nil
}
