package policy

import (
	"maps"
	"slices"
	"strings"
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
	// or a capture of host or path; of several values, by all of them together: `[client.ip, claim.tenant]`. A client whose handshake
	// lacks one is not counted. IPv6 clients are counted by their /64.
	Per []string `yaml:"per"`
	// Which clients the rule counts: values of the handshake, each with the texts of which one has to be theirs, such as
	// `{claim.plan: [free, trial]}`. Default: all.
	When When `yaml:"when"`
	// The greatest number of sockets open at the same time; more are answered 429. 0 is no limit.
	Connections int `yaml:"connections"`
	// How often a socket may be opened; more are answered 429.
	ConnectRate unit.Rate `yaml:"connect_rate"`
	// How often the client may fail: be refused by authentication for what it brought, or shake hands in a way that is no WebSocket's;
	// more are answered 429 for a while, before anybody is asked who it is. Requests for pages and files count too.
	Failures unit.Rate `yaml:"failures"`
	// How long that takes the first time. It doubles each time, and is forgotten when there was none for as long again.
	Penalty time.Duration `yaml:"penalty"`
	// The longest that it takes.
	MaxPenalty time.Duration `yaml:"max_penalty"`
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

// DefaultRule has the values of keys that are not given. It limits nothing.
func DefaultRule() Rule {
	return Rule{Penalty: 10 * time.Second, MaxPenalty: time.Hour, OnExceed: Throttle}
}

// DefaultRules are the limits of a route that names none. They are wide enough for an office behind one address, all of which
// comes back after a restart. They punish no failures: where many share an address, as behind a proxy that nobody has listed, a few
// tokens that have expired would lock out all.
func DefaultRules() []Rule {
	r := DefaultRule()
	r.Per = []string{"client.ip"}
	r.Connections = 256
	r.ConnectRate = unit.Rate{Rate: 600 / time.Minute.Seconds(), Burst: 600}
	r.Except = Networks{Loopback()}
	return []Rule{r}
}

// String names the rule: `per user when claim.plan is free`.
func (r *Rule) String() string {
	text := "per " + strings.Join(r.Per, ", ")
	if len(r.When) > 0 {
		text += " when " + r.When.String()
	}
	return text
}

// values are what the rule looks at: what it counts by, and what it wants to be so.
func (r *Rule) values() []string { return slices.Concat(r.Per, slices.Sorted(maps.Keys(r.When))) }

// late tells whether the rule has its turn only when it is known who the client is, and by which value.
func (r *Rule) late() (by string, late bool) {
	for _, name := range r.values() {
		if value, err := ParseValue(name); err == nil && value.OfIdentity() {
			return name, true
		}
	}
	return "", false
}

// Validate reports what cannot work. Whether a capture exists is for the route to tell, which knows its host and path.
func (r *Rule) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	r.validatePer(at, p)
	r.When.Validate(at.Key("when"), p)
	r.validateFailures(at, p)
	if r.Connections < 0 {
		p.Add(at.Key("connections"), "must not be negative; 0 is no limit")
	}
	if r.Fragments < 0 {
		p.Add(at.Key("fragments"), "must not be negative; 0 is no limit")
	}
	for _, rate := range []struct {
		key  string
		rate unit.Rate
	}{{"connect_rate", r.ConnectRate}, {"failures", r.Failures}, {"messages", r.Messages}, {"bytes", r.Bytes}, {"frames", r.Frames}} {
		if !rate.rate.IsOff() && rate.rate.Burst < 1 {
			p.Add(at.Key(rate.key).Key("burst"), "must be 1 at least, else nothing passes; leave it out for the number in rate")
		}
	}
	nothing := r.Connections == 0 && r.ConnectRate.IsOff() && r.Failures.IsOff() && r.Messages.IsOff() && r.Bytes.IsOff() &&
		r.Frames.IsOff() && r.Fragments == 0 && r.MessageSize == 0
	if nothing && !p.Within(at) {
		p.Add(at, "limits nothing: give connections, connect_rate, failures, messages, bytes, frames, fragments or message_size")
	}
	if r.OnExceed != "" {
		p.OneOf(at.Key("on_exceed"), r.OnExceed, Throttle, Close)
	}
}

func (r *Rule) validatePer(at yamlpos.Path, p *yamlpos.Problems) {
	if len(r.Per) == 0 {
		p.Add(at.Key("per"), "is missing: say what is counted by, such as client.ip")
	}
	for i := range r.Per {
		at := r.PerAt(at, i)
		if _, err := ParseValue(r.Per[i]); err != nil {
			p.Add(at, "%v", err)
		} else if slices.Contains(r.Per[:i], r.Per[i]) {
			p.Add(at, "%s is listed twice", r.Per[i])
		}
	}
}

// PerAt is where the i-th value to count by stands in a rule at a path.
func (r *Rule) PerAt(at yamlpos.Path, i int) yamlpos.Path {
	if at = at.Key("per"); len(r.Per) > 1 {
		at = at.Index(i)
	}
	return at
}

func (r *Rule) validateFailures(at yamlpos.Path, p *yamlpos.Problems) {
	if r.Failures.IsOff() {
		return
	}
	if by, late := r.late(); late {
		p.Add(at.Key("failures"), "counts nobody: of one who fails %s is not known; give it a rule of its own per client.ip", by)
	}
	switch {
	case r.Penalty <= 0:
		p.Add(at.Key("penalty"), "must be positive: it is how long a client that fails too often is refused")
	case r.MaxPenalty < r.Penalty:
		p.Add(at.Key("max_penalty"), "must not be shorter than penalty, with which it begins")
	}
}
