package stream

import (
	"time"

	"bridgehead/internal/yamlpos"
	"bridgehead/proxy/upstream"
)

// Schemes are those of byte streams.
var Schemes = []string{"tcp", "tls", "unix"}

// Options are the section `tcp` of a route.
type Options struct {
	// Where the stream is: `host:port`, `tcp://host:port`, `tls://host:port`, `unix:/path`, a list of these used in turn, or
	// the name of an entry under `upstreams`.
	To upstream.To `yaml:"to"`
	// How the stream is cut into messages: `raw`, each read is a message; `line`, each line is one, without its end.
	Framing string `yaml:"framing"`
	// The type of the messages to the client: `binary` or `text`. Either type is taken from the client.
	Message string `yaml:"message"`
	// The subprotocols to accept; the first of the client's that is among them is chosen. Browsers fail a socket that offers
	// subprotocols of which none is chosen.
	Subprotocols []string `yaml:"subprotocols"`
	// Refuse clients that offer none of the subprotocols.
	RequireSubprotocol bool `yaml:"require_subprotocol"`
	// What to send before the first byte: `none`, or a PROXY header with the client's address, `proxy-v1` or `proxy-v2`.
	Preamble string `yaml:"preamble"`
	// Bounds the opening of the stream.
	Connect upstream.Connect `yaml:"connect"`
	// What happens when the client closes.
	Close Close `yaml:"close"`
}

// Close says how the two ends of a stream are closed one after the other.
type Close struct {
	// How long the stream may go on delivering to the client after the client's Close has ended our sending side.
	Linger time.Duration `yaml:"linger"`
}

// DefaultOptions are the values of keys that are not given.
func DefaultOptions() Options {
	return Options{
		Framing: "raw", Message: "binary", Subprotocols: []string{"binary"}, Preamble: "none",
		Connect: upstream.DefaultConnect(), Close: Close{Linger: 5 * time.Second},
	}
}

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	o.To.Validate(at.Key("to"), p, Schemes...)
	o.Connect.Validate(at.Key("connect"), p)
	p.OneOf(at.Key("framing"), o.Framing, "raw", "line")
	p.OneOf(at.Key("message"), o.Message, "binary", "text")
	p.OneOf(at.Key("preamble"), o.Preamble, "none", "proxy-v1", "proxy-v2")
	if o.RequireSubprotocol && len(o.Subprotocols) == 0 {
		p.Add(at.Key("require_subprotocol"), "needs subprotocols to choose from")
	}
	if o.Close.Linger < 0 {
		p.Add(at.Key("close").Key("linger"), "must not be negative")
	}
}
