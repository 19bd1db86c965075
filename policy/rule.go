package policy

import (
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

// What a rule does about a client that exceeds its messages, bytes or frames.
const (
	Throttle = "throttle" // the client is not read until it is within its rate again; TCP pushes back
	Close    = "close"    // the socket is closed with 1008
)

// A Rule bounds what clients with the same value of their handshake may open and send together. Zero numbers bound nothing.
type Rule struct {
	// The value of the handshake to count by, such as `client.ip`, `user`, `claim.NAME`, `header.NAME`, `cookie.NAME`, `query.NAME`,
	// or a capture of host or path. A client whose handshake lacks it is not counted. IPv6 clients are counted by their /64.
	Per string `yaml:"per"`
	// The greatest number of sockets open at the same time; more are answered 429. 0 is no limit.
	Connections int `yaml:"connections"`
	// How often a socket may be opened; more are answered 429.
	ConnectRate unit.Rate `yaml:"connect_rate"`
	// How often the client may send a message.
	Messages unit.Rate `yaml:"messages"`
	// How many bytes the client may send, such as `4MiB/s`.
	Bytes unit.Rate `yaml:"bytes"`
	// How many frames the client may send, of every kind: fragments, pings, pongs and the Close too.
	Frames unit.Rate `yaml:"frames"`
	// The most fragments of one message; more close the socket with 1008. 0 is no limit.
	Fragments int `yaml:"fragments"`
	// The largest message, where that is less than the socket's `message_size`; a larger one closes the socket with 1009.
	MessageSize unit.Size `yaml:"message_size"`
	// What happens beyond messages, bytes and frames: `throttle` stops reading from the client until it is within its rate again, `close`
	// closes the socket with 1008.
	OnExceed string `yaml:"on_exceed"`
	// Networks whose clients this rule does not count: CIDRs, addresses, `private`, `loopback`.
	Except Networks `yaml:"except"`
}

// DefaultRules are the limits of a route that names none. They are wide enough for an office behind one address, all of which
// comes back after a restart.
func DefaultRules() []Rule {
	return []Rule{{
		Per:         "client.ip",
		Connections: 256,
		ConnectRate: unit.Rate{Rate: 600 / time.Minute.Seconds(), Burst: 600},
		OnExceed:    Throttle,
		Except:      Networks{Loopback()},
	}}
}

// Validate reports what cannot work. Whether a capture exists is for the route to tell, which knows its host and path.
func (r *Rule) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if r.Per == "" {
		p.Add(at.Key("per"), "is missing: say what is counted by, such as client.ip")
	} else if _, err := ParseValue(r.Per); err != nil {
		p.Add(at.Key("per"), "%v", err)
	}
	if r.Connections < 0 {
		p.Add(at.Key("connections"), "must not be negative; 0 is no limit")
	}
	if r.Fragments < 0 {
		p.Add(at.Key("fragments"), "must not be negative; 0 is no limit")
	}
	for _, rate := range []struct {
		key  string
		rate unit.Rate
	}{{"connect_rate", r.ConnectRate}, {"messages", r.Messages}, {"bytes", r.Bytes}, {"frames", r.Frames}} {
		if !rate.rate.IsOff() && rate.rate.Burst < 1 {
			p.Add(at.Key(rate.key).Key("burst"), "must be 1 at least, else nothing passes; leave it out for the number in rate")
		}
	}
	nothing := r.Connections == 0 && r.ConnectRate.IsOff() && r.Messages.IsOff() && r.Bytes.IsOff() && r.Frames.IsOff() &&
		r.Fragments == 0 && r.MessageSize == 0
	if nothing && !p.Within(at) {
		p.Add(at, "limits nothing: give connections, connect_rate, messages, bytes, frames, fragments or message_size")
	}
	if r.OnExceed != "" {
		p.OneOf(at.Key("on_exceed"), r.OnExceed, Throttle, Close)
	}
}
