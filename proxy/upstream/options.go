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
	// How many further servers are tried when one cannot be reached, breaks off the handshake or answers it with 502, 503 or 504; all
	// within the time of `connect`, of which each but the last may use half of what is left. Never after the client has its socket.
	Retries int `yaml:"retries"`
	// How to speak TLS to servers whose URL asks for it: `wss`, `https` or `tls`.
	TLS TLS `yaml:"tls"`
}

// A Server is one address of a group.
type Server struct {
	// Where the server is, as in `to`: a URL that begins with `ws`, `wss`, `http`, `https`, `tcp`, `tls` or `unix`.
	URL string `yaml:"url"`
	// Its share beside the others': one with 2 gets twice as many sockets as one with 1.
	Weight int `yaml:"weight"`
	// The greatest number of sockets it has at once; more go to the others. 0 is no limit.
	MaxConnections int `yaml:"max_connections"`
	// Take it out of service: it gets no new sockets, and those it has are closed with 1012, each at a moment of its own.
	Drain bool `yaml:"drain"`
}

// DefaultOptions are the values of keys that are not given.
func DefaultOptions() Options { return Options{Balance: roundRobin, Retries: 3} }

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
