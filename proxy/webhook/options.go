package webhook

import (
	"regexp"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
	"bridgehead/proxy/upstream"
)

// Options are the section `webhook` of a route.
type Options struct {
	// Where the application is: an http or https URL, a list of them used in turn, or the name of an entry under `upstreams`.
	// Path and query may hold captures, `{room}`.
	To upstream.To `yaml:"to"`
	// The keys that sign each request (Standard Webhooks): `whsec_` and the base64 of 24 to 64 random bytes. Every key adds a
	// signature, so that keys can be changed without a gap. None: requests are not signed.
	Secret []unit.Secret `yaml:"secret"`
	// Headers of the client's handshake that the application sees in the `connect` event. Default: none.
	ForwardHeaders []string `yaml:"forward_headers"`
	// How long one request may take, one minute at most. A `close` event has 15 seconds.
	Timeout time.Duration `yaml:"timeout"`
	// How often a request that failed is tried again, with growing pauses: the default of 4 spreads over about 10 seconds.
	// `connect` is asked once.
	Retries int `yaml:"retries"`
	// The greatest number of this route's requests under way at once; more wait for as long as a request may take.
	InFlight int `yaml:"in_flight"`
	// The most that waits while a request is under way; when it is full the client's socket is not read.
	Queue Queue `yaml:"queue"`
	// What happens to messages that the application answers with 4xx: `drop` them, or `close` the socket with 1011.
	OnRefused string `yaml:"on_refused"`
	// Whether the body of the application's refusal reaches the client.
	RefusalBody bool `yaml:"refusal_body"`
}

// Queue bounds what waits for the application, per connection. The whole queue forms the next request.
type Queue struct {
	// The greatest number of messages.
	Messages int `yaml:"messages"`
	// The greatest number of bytes; a single larger message goes alone. `off` leaves only the number of messages.
	Bytes unit.Size `yaml:"bytes"`
}

// What may happen to messages that the application refuses.
const (
	dropRefused  = "drop"
	closeRefused = "close"
)

// maxTimeout bounds how long a client may have to wait before a request counts as failed.
const maxTimeout = time.Minute

// fieldName is what a header may be called (RFC 9110, section 5.6.2).
var fieldName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// DefaultOptions are the values of keys that are not given.
func DefaultOptions() Options {
	return Options{
		Timeout: 10 * time.Second, Retries: 4, InFlight: 64,
		Queue: Queue{Messages: 64, Bytes: 256 << 10}, OnRefused: dropRefused,
	}
}

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	o.To.Validate(at.Key("to"), p, "http", "https", "ws", "wss")
	for i, secret := range o.Secret {
		if _, err := parseKey(secret); err != nil {
			p.Add(at.Key("secret").Index(i), "%v", err)
		}
	}
	for i, name := range o.ForwardHeaders {
		if !fieldName.MatchString(name) {
			p.Add(at.Key("forward_headers").Index(i), "%q cannot be the name of a header", name)
		}
	}
	switch {
	case o.Timeout <= 0:
		p.Add(at.Key("timeout"), "must be positive: an application that never answers would hold its clients for ever")
	case o.Timeout > maxTimeout:
		p.Add(at.Key("timeout"), "must be %s at most: the client's next messages wait for so long", maxTimeout)
	}
	if o.Retries < 0 {
		p.Add(at.Key("retries"), "must not be negative")
	}
	if o.InFlight < 1 {
		p.Add(at.Key("in_flight"), "must be 1 at least, else no request is ever sent")
	}
	if o.Queue.Messages < 1 {
		p.Add(at.Key("queue").Key("messages"), "must be 1 at least, else no message is ever taken")
	}
	p.OneOf(at.Key("on_refused"), o.OnRefused, dropRefused, closeRefused)
}
