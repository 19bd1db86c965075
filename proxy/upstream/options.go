package upstream

import (
	"time"

	"bridgehead/internal/yamlpos"
)

// Options are one entry of the section `upstreams`: a named group of servers.
type Options struct {
	// The servers of the group. Each stands once.
	Servers []Server `yaml:"servers"`
	// Who is next: `round_robin`, each in turn by its weight; `least_connections`, the one with the fewest open sockets for its
	// weight; `random_two`, of two drawn by weight the one with fewer; `hash`, always the same one for the same value of `hash`.
	Balance string `yaml:"balance"`
	// The value of the handshake that `balance: hash` goes by: `client.ip`, `user`, `header.x`, `cookie.x`, `query.x` or a capture of
	// host or path, `room`. When a server comes or goes only its share moves. Clients without the value are served in turn.
	Hash string `yaml:"hash"`
	// Sends a client that comes back to the server that it had before, by a cookie, as long as that one can take it; else `balance`
	// decides. Default: it does not.
	Sticky *Sticky `yaml:"sticky"`
	// How long a server that joins the group, or is back, takes to get its full share of the new sockets; it begins with a tenth.
	// `hash` does not go by it. Default: it has it at once.
	SlowStart time.Duration `yaml:"slow_start"`
	// How often names in the URLs are looked up; the moments are spread, and a name is looked up at once when its server cannot be
	// reached. Each address that a name has is a server of its own, with the weight and the limit of its URL; one IPv4 address and one
	// IPv6 address are two ways to the same. Servers whose address has gone get no new sockets, and keep those they have. `off` looks a
	// name up for each socket, and takes the first address that answers.
	Resolve time.Duration `yaml:"resolve"`
	// How many further servers are tried when one cannot be reached, breaks off the handshake or answers it with 502, 503 or 504; all
	// within the time of `connect`, of which each but the last may use half of what is left. Never after the client has its socket.
	Retries int `yaml:"retries"`
	// Asks the servers at intervals whether they are well. Default: nobody asks; what sockets meet tells.
	Health *Health `yaml:"health"`
	// Leaves a server alone for a while that fails again and again. A server that is the only one of its group is never left alone.
	Eject Eject `yaml:"eject"`
	// How to speak TLS to servers whose URL asks for it: `wss`, `https` or `tls`.
	TLS TLS `yaml:"tls"`
}

// A Server is one of a group, or with a name in its URL all that have the name.
type Server struct {
	// Where the server is, as in `to`: a URL that begins with `ws`, `wss`, `http`, `https`, `tcp`, `tls` or `unix`.
	URL string `yaml:"url"`
	// Its share beside the others': one with 2 gets twice as many sockets as one with 1.
	Weight int `yaml:"weight"`
	// The greatest number of sockets it has at once; more go to the others. Requests beside the sockets do not count. 0 is no limit.
	MaxConnections int `yaml:"max_connections"`
	// Take it out of service: it gets no new sockets, and those it has are closed with 1012, each at a moment of its own.
	Drain bool `yaml:"drain"`
}

// Sticky is the cookie that leads a client back to its server. Scripts cannot read it, over TLS it is Secure, and it tells nothing of
// the server: it is a signature, whose key is kept under `state`.
type Sticky struct {
	// Its name.
	Cookie string `yaml:"cookie"`
	// Which pages of other sites may make browsers send it: `lax`, `strict` or `none`. A socket that a page of another site opens
	// needs `none`, and TLS.
	SameSite string `yaml:"same_site"`
	// How long browsers keep it. Default: until they are closed.
	TTL time.Duration `yaml:"ttl"`
}

// DefaultSticky are the values of keys that are not given.
func DefaultSticky() Sticky { return Sticky{Cookie: "bridgehead_server", SameSite: "lax"} }

// Health says how servers are asked whether they are well: by one of `tcp`, `http` and `websocket`. A server that is down gets no
// new sockets, and keeps those it has. When all are down, clients are answered 503 at once.
type Health struct {
	// A server is well when it takes a connection, with TLS where its URL asks for it.
	TCP bool `yaml:"tcp"`
	// A path. A server is well when it answers a GET of it with 2xx.
	HTTP string `yaml:"http"`
	// A path. A server is well when it takes a WebSocket handshake there, and answers a ping.
	WebSocket string `yaml:"websocket"`
	// How often each server is asked; the moments are spread.
	Interval time.Duration `yaml:"interval"`
	// How long the answer may take.
	Timeout time.Duration `yaml:"timeout"`
	// How many good answers in a row bring a server that is down back.
	Healthy int `yaml:"healthy"`
	// How many bad ones in a row take it down.
	Unhealthy int `yaml:"unhealthy"`
}

// Eject says when a server is left alone for what sockets meet at it: failures to connect, and handshakes that it breaks off or answers
// with 502, 503 or 504.
type Eject struct {
	// How many failures in a row, without a success between them; `0` never leaves a server alone.
	Failures int `yaml:"failures"`
	// For how long, the first time. Then one client tries: if it fails too, the time is doubled. A good answer to a check of `health`
	// ends it at once.
	Time time.Duration `yaml:"time"`
	// The longest time. When no other server is left, it is one second.
	MaxTime time.Duration `yaml:"max_time"`
}

// DefaultOptions are the values of keys that are not given.
func DefaultOptions() Options {
	return Options{Balance: roundRobin, Resolve: 30 * time.Second, Retries: 3, Eject: Eject{Failures: 5, Time: 5 * time.Second, MaxTime: time.Minute}}
}

// DefaultHealth are the values of keys that are not given.
func DefaultHealth() Health {
	return Health{Interval: 5 * time.Second, Timeout: 2 * time.Second, Healthy: 1, Unhealthy: 2}
}

// DefaultServer are the values of keys that are not given.
func DefaultServer() Server { return Server{Weight: 1} }

// UnmarshalText takes the short form, the URL alone.
func (s *Server) UnmarshalText(text []byte) error {
	s.URL = string(text)
	return nil
}

// TLS is how a bridge speaks TLS to a server.
type TLS struct {
	// A PEM file with the certificates of the authorities that sign the servers'. Default: the system's.
	CA string `yaml:"ca"`
	// The name the server's certificate must carry. Default: the host of its URL.
	ServerName string `yaml:"server_name"`
	// A PEM file with a client certificate to show, followed by its intermediates.
	Cert string `yaml:"cert"`
	// A PEM file with the private key of `cert`.
	Key string `yaml:"key"`
	// Do not verify the server's certificate at all. Anybody on the way can then read and change everything.
	Insecure bool `yaml:"insecure"`
}

// Connect bounds the opening of a connection to a server.
type Connect struct {
	// From the first look-up to the end of the server's handshake. A slower server is answered 504.
	Timeout time.Duration `yaml:"timeout"`
}

// DefaultConnect are the values of keys that are not given.
func DefaultConnect() Connect { return Connect{Timeout: 5 * time.Second} }

// Validate reports what cannot work. It looks and never acts.
func (c *Connect) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if c.Timeout <= 0 {
		p.Add(at.Key("timeout"), "must be positive: without it a silent server would hold handshakes for ever")
	}
}
