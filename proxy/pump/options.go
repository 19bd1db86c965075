package pump

import (
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

// Options are the section `socket` of a route: sizes and clocks of each of its sockets.
type Options struct {
	// The largest message a client may send. A larger one closes its socket with 1009. With compression passed through it
	// bounds the bytes on the wire.
	MessageSize unit.Size `yaml:"message_size"`
	// The largest message a backend may send to a client.
	BackendMessageSize unit.Size `yaml:"backend_message_size"`
	// How long a side may be silent before it is sent a ping.
	Ping time.Duration `yaml:"ping"`
	// How long a pinged side has to show life before the socket is given up.
	Pong time.Duration `yaml:"pong"`
	// How long no message may pass in either direction before the socket is closed with 1001. Pings do not count.
	Idle time.Duration `yaml:"idle"`
	// The greatest age of a socket; up to a tenth less at random, so that sockets do not end together. Closed with 1001.
	Lifetime time.Duration `yaml:"lifetime"`
	// How long a write may wait for a side that does not read before the socket is closed: 1013 for a slow client.
	WriteTimeout time.Duration `yaml:"write_timeout"`
	// How long the closing handshake may take before the connection is ended without it.
	CloseTimeout time.Duration `yaml:"close_timeout"`
}

// DefaultOptions are the values of keys that are not given.
func DefaultOptions() Options {
	return Options{
		MessageSize:        1 << 20,
		BackendMessageSize: 16 << 20,
		Ping:               30 * time.Second,
		Pong:               20 * time.Second,
		WriteTimeout:       10 * time.Second,
		CloseTimeout:       5 * time.Second,
	}
}

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	for _, d := range []struct {
		key   string
		value time.Duration
	}{
		{"ping", o.Ping}, {"pong", o.Pong}, {"idle", o.Idle}, {"lifetime", o.Lifetime},
		{"write_timeout", o.WriteTimeout}, {"close_timeout", o.CloseTimeout},
	} {
		if d.value < 0 {
			p.Add(at.Key(d.key), "must not be negative")
		}
	}
	if o.CloseTimeout == 0 {
		p.Add(at.Key("close_timeout"), "must not be off: a peer that never answers a close would hold its socket for ever")
	}
}
