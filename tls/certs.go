// Package tls gives TLS listeners their certificates: from static files, read again when they change, and from a local
// authority, which makes them when they are asked for. Other packages import it as certs.
package tls

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"strings"
)

// Certs answers TLS handshakes. Its methods may be called from any goroutine.
type Certs struct {
	log       *slog.Logger
	sources   []source   // asked in this order
	pairs     *pairs     // nil: no files
	authority *authority // nil: no local authority
}

// A source is one origin of certificates. It returns nil where it has none for a client: the next one is asked. An error ends
// the handshake.
type source func(asked) (*tls.Certificate, error)

// New loads the files, loads or makes the local authority, and begins to watch the files. names are the hosts of all routes:
// exact, `*.example.com` (a `*` stands for one label), or "" for any. state is the directory that keeps the local authority.
// An error names the file and what to do about it.
func New(o Options, names []string, state string, log *slog.Logger) (*Certs, error) {
	c := &Certs{log: log}
	hosts := newHosts(names)
	var err error
	if o.Internal {
		if c.authority, err = newAuthority(state, hosts, log); err != nil {
			return nil, err
		}
		c.sources = append(c.sources, c.authority.certificate)
	}
	if len(o.Files) > 0 {
		if c.pairs, err = newPairs(o.Files, hosts, log); err != nil {
			return nil, err
		}
		c.sources = append([]source{c.pairs.certificate}, append(c.sources, c.pairs.fallback)...)
		if !o.Internal {
			c.pairs.warnOfGaps(names)
		}
	}
	return c, nil
}

// Close stops watching the files and waits until that has ended. The certificates stay usable.
func (c *Certs) Close() {
	if c.pairs != nil {
		c.pairs.close()
	}
}

// Root returns the certificate of the local authority, which clients must trust, in PEM, and the file that holds it; not ok if
// there is no local authority.
func (c *Certs) Root() (pem []byte, path string, ok bool) {
	if c.authority == nil {
		return nil, "", false
	}
	return c.authority.root.pem, c.authority.root.path, true
}

// TLSConfig returns a new configuration for a listener: TLS 1.2 and 1.3, HTTP/1.1 alone.
func (c *Certs) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: c.certificate,
		CipherSuites: []uint16{ // of TLS 1.2: forward secret and authenticated; those of 1.3 are all both
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
}

// certificate is tls.Config.GetCertificate.
func (c *Certs) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	q := newAsked(hello)
	for _, source := range c.sources {
		if cert, err := source(q); cert != nil || err != nil {
			return cert, err
		}
	}
	c.log.Debug("TLS handshake refused: there is neither a route nor a certificate for this host",
		"host", hello.ServerName, "client", hello.Conn.RemoteAddr().String())
	return nil, nil // crypto/tls makes of this the alert unrecognized_name (RFC 6066, section 3); of an error, internal_error
}

// asked is whom a client wants to see proven: the host that it named, or else the address that it reached.
type asked struct {
	hello *tls.ClientHelloInfo
	name  string     // lower case; "" if it named none
	addr  netip.Addr // while name is ""; invalid on listeners that have no IP address
}

// newAsked reads a hello. An IP literal is no name (RFC 6066, section 3): clients that send one are answered as those that
// name nothing.
func newAsked(hello *tls.ClientHelloInfo) asked {
	q := asked{hello: hello, name: strings.ToLower(hello.ServerName)}
	if _, err := netip.ParseAddr(q.name); q.name != "" && err != nil {
		return q
	}
	q.name = ""
	if local, err := netip.ParseAddrPort(hello.Conn.LocalAddr().String()); err == nil {
		q.addr = local.Addr().Unmap().WithZone("")
	}
	return q
}
