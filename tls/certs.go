// Package tls gives TLS listeners their certificates: from static files, read again when they change, from authorities on the
// Internet, by ACME, and from a local authority, which makes them when they are asked for. Other packages import it as certs.
package tls

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"bridgehead/internal/metrics"
	"bridgehead/internal/seldom"
)

// Certs answers TLS handshakes. Its methods may be called from any goroutine.
type Certs struct {
	log       *slog.Logger
	sources   []source   // asked in this order
	pairs     *pairs     // nil: no files
	authority *authority // nil: no local authority
	auto      *automatic // nil: none are got by ACME
	origin    *sources   // with auto: from where
	policy    atomic.Pointer[policy]
	hosts     atomic.Pointer[hosts]
	fallback  string // the host of clients that name none; "" if there is none
	told      *seldom.Log
}

// A source is one origin of certificates. It returns nil where it has none for a client: the next one is asked. An error ends
// the handshake.
type source func(asked) (*tls.Certificate, error)

// Means are what a [Certs] works with.
type Means struct {
	State   string // the directory that keeps the local authority, and what was got from others
	Log     *slog.Logger
	Metrics *metrics.Set // may be nil
	// Was is what a reload puts these certificates in the place of: those that were got from authorities are taken over, with what is
	// under way. May be nil.
	Was *Certs
}

// New loads the files, loads or makes the local authority, and begins to watch the files. Nothing is got from other authorities before
// Serve. An error names the file and what to do about it.
func New(o Options, with Means) (*Certs, error) {
	c := &Certs{log: with.Log, told: seldom.New(), fallback: strings.ToLower(o.DefaultSNI)}
	c.hosts.Store(newHosts(nil))
	if err := c.open(o, with); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// open makes the sources. They are asked in the order in which they are made, files first.
func (c *Certs) open(o Options, with Means) (err error) {
	if len(o.Files) > 0 {
		if c.pairs, err = newPairs(o.Files, c.told, c.log); err != nil {
			return err
		}
		c.sources = append(c.sources, c.pairs.certificate)
	}
	if o.Automatic() {
		if err = c.openAutomatic(o, with); err != nil {
			return err
		}
		c.sources = append(c.sources, func(q asked) (*tls.Certificate, error) {
			if p := c.policy.Load(); p != nil {
				return c.auto.certificate(q, p)
			}
			return nil, nil
		})
	}
	if o.Internal {
		if c.authority, err = newAuthority(with.State, c.log); err != nil {
			return err
		}
		c.sources = append(c.sources, c.authority.certificate)
	}
	if c.pairs != nil {
		c.sources = append(c.sources, c.pairs.fallback)
	}
	return nil
}

// openAutomatic takes over what got certificates before, if it keeps them at the same place.
func (c *Certs) openAutomatic(o Options, with Means) (err error) {
	var a *automatic
	if was := with.Was; was != nil && was.auto != nil && was.auto.path == statePath(with.State) {
		a = was.auto
	} else if a, err = newAutomatic(with.State, o.CheckInterval, c.log, c.told, with.Metrics); err != nil {
		return err
	}
	c.auto = a.hold()
	c.origin, err = newSources(o, a.zap)
	return err
}

// Serve is for these hosts from now on, those of all routes: exact, `*.example.com` (a `*` stands for one label), or "" for any. The
// next handshake is answered by them; the certificates that were made for hosts which stay are kept, and those that are to be got
// from authorities are got in the background.
func (c *Certs) Serve(names []string, at Listening) {
	now := newHosts(names)
	before := c.hosts.Swap(now)
	if c.auto != nil {
		p, subjects := c.origin.policy(names, at, c.filed)
		if old := c.policy.Swap(p); old != nil && old.at == at {
			p.configs = old.configs // with their connections
		}
		c.auto.manage(p, subjects)
		now = newHosts(slices.DeleteFunc(slices.Clone(names), func(name string) bool { return c.origin.options.assign(name).why == "" }))
	}
	if c.pairs != nil && c.authority == nil {
		c.pairs.warnOfGaps(now, before)
	}
}

// filed tells whether a file holds a host.
func (c *Certs) filed(name string) bool {
	return c.pairs != nil && len(c.pairs.current.Load().find(name)) > 0
}

// Close stops watching the files, and getting and renewing certificates unless others have taken that over, and waits until that
// has ended. The certificates stay usable.
func (c *Certs) Close() {
	if c.pairs != nil {
		c.pairs.close()
	}
	if c.auto != nil {
		c.auto.release()
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
