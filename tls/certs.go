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
	fallback  string // the host of clients that name none; "" if there is none
	told      *seldom.Log
}

// A source is one origin of certificates. It returns nil where it has none for a client: the next one is asked. An error ends
// the handshake.
type source func(asked) (*tls.Certificate, error)

// New loads the files, loads or makes the local authority, and begins to watch the files. names are the hosts of all routes:
// exact, `*.example.com` (a `*` stands for one label), or "" for any. state is the directory that keeps the local authority.
// An error names the file and what to do about it.
func New(o Options, names []string, state string, log *slog.Logger) (*Certs, error) {
	c := &Certs{log: log, told: seldom.New(), fallback: strings.ToLower(o.DefaultSNI)}
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

// certificate is for tls.Config.GetCertificate.
func (c *Certs) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	q := c.read(hello)
	for _, source := range c.sources {
		if cert, err := source(q); cert != nil || err != nil {
			return cert, err
		}
	}
	mend := "no route and no certificate has this host; give a route this host, or list a certificate that holds it under certificates.files"
	if q.name == "" {
		mend = "the client named no host, and there is no certificate for such clients; set certificates.default_sni"
	}
	q.tell(c.log, c.told, "TLS handshake refused", mend)
	return nil, nil // crypto/tls makes of this the alert unrecognized_name (RFC 6066, section 3); of an error, internal_error
}

// tell logs what is wrong with the host that a client named, to be heard once for each host in an interval.
func (q asked) tell(log *slog.Logger, told *seldom.Log, message, err string) {
	told.Log(log, slog.LevelInfo, seldom.Event{Kind: message, Detail: q.name}, message,
		"host", q.name, "client", q.hello.Conn.RemoteAddr().String(), "error", err)
}

// asked is whom a client wants to see proven: the host that it named, or else the address that it reached.
type asked struct {
	hello *tls.ClientHelloInfo
	hosts *hosts     // that are served
	name  string     // lower case; "" if it named none
	addr  netip.Addr // that it reached, if it named none; invalid on listeners that have no IP address
}

// read finds out whom a client wants. One that names nothing, and has not reached an address that somebody has given a certificate,
// is answered as if it had named the fallback.
func (c *Certs) read(hello *tls.ClientHelloInfo) asked {
	q := newAsked(hello)
	q.hosts = c.hosts.Load()
	if q.name == "" && c.fallback != "" && !c.knows(q.addr.String()) {
		q.name = c.fallback
	}
	return q
}

// knows tells whether a host is a route's, or a listed certificate's: whether somebody has asked for it to be served.
func (c *Certs) knows(host string) bool {
	return c.hosts.Load().has(host) || c.pairs != nil && len(c.pairs.current.Load().find(host)) > 0
}

// resumes tells whether a client that names the host may take up a session of before: whether a full handshake would be answered.
func (c *Certs) resumes(host string) bool {
	return host == "" || c.knows(host) || host == "localhost" && c.authority != nil
}

// newAsked reads a hello.
func newAsked(hello *tls.ClientHelloInfo) asked {
	q := asked{hello: hello, name: hostName(hello.ServerName)}
	if q.name != "" {
		return q
	}
	if local, err := netip.ParseAddrPort(hello.Conn.LocalAddr().String()); err == nil {
		q.addr = local.Addr().Unmap().WithZone("")
	}
	return q
}
