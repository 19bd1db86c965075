// Package tls gives TLS listeners their certificates: from static files, read again when they change, and from a local
// authority, which makes them when they are asked for. Other packages import it as certs.
package tls

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"

	"bridgehead/internal/seldom"
)

// Certs answers TLS handshakes. Its methods may be called from any goroutine.
type Certs struct {
	log       *slog.Logger
	sources   []source   // asked in this order
	pairs     *pairs     // nil: no files
	authority *authority // nil: no local authority
	hosts     atomic.Pointer[hosts]
	told      *seldom.Log
}

// A source is one origin of certificates. It returns nil where it has none for a client: the next one is asked. An error ends
// the handshake.
type source func(asked) (*tls.Certificate, error)

// New loads the files, loads or makes the local authority, and begins to watch the files. names are the hosts of all routes:
// exact, `*.example.com` (a `*` stands for one label), or "" for any. state is the directory that keeps the local authority.
// An error names the file and what to do about it.
func New(o Options, names []string, state string, log *slog.Logger) (*Certs, error) {
	c := &Certs{log: log, told: seldom.New()}
	var err error
	if o.Internal {
		if c.authority, err = newAuthority(state, log); err != nil {
			return nil, err
		}
		c.sources = append(c.sources, c.authority.certificate)
	}
	if len(o.Files) > 0 {
		if c.pairs, err = newPairs(o.Files, c.told, log); err != nil {
			return nil, err
		}
		c.sources = append([]source{c.pairs.certificate}, append(c.sources, c.pairs.fallback)...)
	}
	c.hosts.Store(newHosts(nil))
	c.Serve(names)
	return c, nil
}

// Serve puts other hosts in the place of those that New was given. The next handshake is answered by them; the certificates that
// were made for hosts which stay are kept.
func (c *Certs) Serve(names []string) {
	now := newHosts(names)
	before := c.hosts.Swap(now)
	if c.pairs != nil && c.authority == nil {
		c.pairs.warnOfGaps(now, before)
	}
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

// ServerTLS returns a new configuration for a listener: TLS 1.2 and 1.3, HTTP/1.1 alone. Each handshake is answered by what get
// gives at that moment, so that others can take its place while the listener, and the keys of its session tickets, live on.
func ServerTLS(get func() *Certs) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			now := get()
			if now == nil { // a reload has done away with TLS while this client knocked
				return nil, nil
			}
			return now.certificate(hello)
		},
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

// certificate is for tls.Config.GetCertificate.
func (c *Certs) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	q := newAsked(hello)
	q.hosts = c.hosts.Load()
	for _, source := range c.sources {
		if cert, err := source(q); cert != nil || err != nil {
			return cert, err
		}
	}
	q.tell(c.log, c.told, "TLS handshake refused", "no route and no certificate has this host; "+
		"give a route this host, or list a certificate that holds it under certificates.files")
	return nil, nil // crypto/tls makes of this the alert unrecognized_name (RFC 6066, section 3); of an error, internal_error
}

// tell logs what is wrong with the host that a client named, to be heard once for each host in an interval.
func (q asked) tell(log *slog.Logger, told *seldom.Log, message, err string) {
	told.Log(log, slog.LevelInfo, seldom.Event{Kind: message, Detail: q.name}, message,
		"host", q.hello.ServerName, "client", q.hello.Conn.RemoteAddr().String(), "error", err)
}

// asked is whom a client wants to see proven: the host that it named, or else the address that it reached.
type asked struct {
	hello *tls.ClientHelloInfo
	hosts *hosts     // that are served
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
