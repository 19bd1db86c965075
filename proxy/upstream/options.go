package upstream

import (
	"time"

	"bridgehead/internal/yamlpos"
)

// Options are one entry of the section `upstreams`: a named group of servers.
type Options struct {
	// The servers of the group, used in turn.
	Servers []Server `yaml:"servers"`
	// How to speak TLS to servers whose URL asks for it: `wss`, `https` or `tls`.
	TLS TLS `yaml:"tls"`
}

// A Server is one address of a group.
type Server struct {
	// Where the server is, as in `to`: a URL that begins with `ws`, `wss`, `http`, `https`, `tcp`, `tls` or `unix`.
	URL string `yaml:"url"`
}

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
