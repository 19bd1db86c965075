package tls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"bridgehead/internal/watch"
	"bridgehead/internal/yamlpos"
	"bridgehead/routes"
)

// ClientCA is the key `client_ca` of a listener: which clients have to show a certificate, and whose.
type ClientCA struct {
	// PEM files with the certificates of the authorities that sign the clients', read again when they change.
	Files []string `yaml:"files"`
	// Let clients in that show no certificate. What they show must be good all the same.
	Optional bool `yaml:"optional"`
	// The hosts whose clients are asked, written as `host` in routes. Default: every host of the listener. Such a host is then served
	// to clients alone that name it, or another of these, in their TLS handshake.
	Hosts []string `yaml:"hosts"`
}

// Validate reports what cannot work. It does not look at the files: NewClients does.
func (o *ClientCA) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if len(o.Files) == 0 && !p.Within(at) {
		p.Add(at.Key("files"), "is missing: name the PEM file with the certificate of the authority that signs the clients'")
	}
	for i, host := range o.Hosts {
		_, notAddress := netip.ParseAddr(strings.Trim(host, "[]"))
		pattern, err := routes.Parse(host, "")
		switch {
		case err != nil:
			p.Add(at.Key("hosts").Index(i), "%v", err)
		case notAddress == nil:
			p.Add(at.Key("hosts").Index(i), "%q is an address, which clients do not name in TLS: leave hosts out on a listener of its own", host)
		case !pattern.HasHost():
			p.Add(at.Key("hosts").Index(i), "%q is any host: leave the key out for that", host)
		}
	}
	if o.Hosts != nil && len(o.Hosts) == 0 {
		p.Add(at.Key("hosts"), "must not be empty: leave the key out for every host")
	}
}

// Asks tells whether clients that name the host, in lower case, are asked for a certificate.
func (o *ClientCA) Asks(host string) bool { return newAudience(o.Hosts).has(host) }

// An audience is whose clients are asked.
type audience struct {
	all      bool
	exact    map[string]bool
	patterns []routes.Pattern
}

// newAudience compiles hosts that have been validated.
func newAudience(hosts []string) *audience {
	a := &audience{all: len(hosts) == 0, exact: make(map[string]bool)}
	for _, host := range hosts {
		if !strings.ContainsAny(host, "*{") {
			a.exact[routes.Hostname(host)] = true
		} else if pattern, err := routes.Parse(host, ""); err == nil {
			a.patterns = append(a.patterns, pattern)
		}
	}
	return a
}

func (a *audience) has(host string) bool {
	return a.all || a.exact[host] || slices.ContainsFunc(a.patterns, func(p routes.Pattern) bool { return p.MatchesHost(host) })
}

// Clients ask the clients of one listener for certificates. Their methods may be called from any goroutine.
type Clients struct {
	options ClientCA
	asked   *audience
	log     *slog.Logger
	current atomic.Pointer[authorities]
	seen    [sha256.Size]byte // what the files held when they were last read, good or bad
	changed func()
	stop    func()
}

// authorities are whose certificates are good. They do not change once they are in force.
type authorities struct {
	pool *x509.CertPool
	raw  map[string]bool // the certificates themselves
	id   [sha256.Size]byte
	tls  atomic.Pointer[tls.Config] // of the listener, for clients that are asked
}

// NewClients reads the files and begins to watch them. changed is called after other authorities have taken the place of those
// before. An error names the file and what to do about it.
func NewClients(o ClientCA, changed func(), log *slog.Logger) (*Clients, error) {
	c := &Clients{options: o, asked: newAudience(o.Hosts), log: log, changed: changed}
	stop, err := watch.Files(log, c.reload, o.Files...)
	if err != nil {
		return nil, err
	}
	read, err := c.read()
	if err != nil {
		stop()
		return nil, err
	}
	c.current.Store(read)
	c.stop = stop
	return c, nil
}

// Close stops watching the files and waits until that has ended. The authorities stay usable.
func (c *Clients) Close() { c.stop() }

// reload is called when a file has changed.
func (c *Clients) reload() {
	read, err := c.read()
	switch {
	case err != nil:
		c.log.Error("client_ca not reloaded, the authorities before stay", "error", err)
	case read != nil && read.id != c.current.Load().id:
		c.current.Store(read)
		c.log.Info("client_ca loaded", "files", c.options.Files, "authorities", len(read.raw))
		c.changed()
	}
}

// read reads the files; nil if they hold what they held, good or bad.
func (c *Clients) read() (*authorities, error) {
	var all []byte
	for _, path := range c.options.Files {
		text, err := os.ReadFile(path)
		all = fmt.Appendf(all, "%q %v ", text, err)
	}
	seen := sha256.Sum256(all)
	if seen == c.seen {
		return nil, nil
	}
	c.seen = seen
	a := &authorities{pool: x509.NewCertPool(), raw: make(map[string]bool)}
	for _, path := range c.options.Files {
		certs, err := readAuthorities(path)
		if err != nil {
			return nil, fmt.Errorf("client_ca: %s: %w", path, err)
		}
		for _, cert := range certs {
			if err := checkLife(cert, time.Now()); err != nil {
				c.log.Warn("client_ca has an authority whose clients are refused", "file", path, "subject", cert.Subject.String(), "error", err)
			}
			a.pool.AddCert(cert)
			a.raw[string(cert.Raw)] = true
		}
	}
	a.id = c.identify(a)
	return a, nil
}

// identify names what the authorities and the options together come to.
func (c *Clients) identify(a *authorities) [sha256.Size]byte {
	var all []string
	for raw := range a.raw {
		sum := sha256.Sum256([]byte(raw))
		all = append(all, string(sum[:]))
	}
	slices.Sort(all)
	return sha256.Sum256(fmt.Appendf(nil, "client_ca optional=%v %q", c.options.Optional, all))
}

// readAuthorities reads the certificates of a PEM file. What else it holds is passed over, but for private keys: they have no place
// here.
func readAuthorities(path string) (certs []*x509.Certificate, err error) {
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && len(certs) == 0:
			return nil, errors.New("it holds no certificate in PEM")
		case block == nil:
			return certs, nil
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, errors.New("it holds a private key: clients are verified by the authority's certificate alone, so keep the key elsewhere")
		case block.Type != "CERTIFICATE":
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
}

// acmeTLS is the protocol of the challenge TLS-ALPN-01 (RFC 8737), whose clients have no certificates.
const acmeTLS = "acme-tls/1"

// config is the listener's configuration for a client that is asked, which build gives for those of a rule; nil for others.
func (c *Clients) config(host string, hello *tls.ClientHelloInfo, build func(rule []byte) *tls.Config) *tls.Config {
	if !c.asked.has(host) || len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmeTLS {
		return nil
	}
	now := c.current.Load()
	if made := now.tls.Load(); made != nil {
		return made
	}
	asking := build(now.id[:])
	asking.ClientCAs, asking.ClientAuth = now.pool, tls.RequireAndVerifyClientCert
	if c.options.Optional {
		asking.ClientAuth = tls.VerifyClientCertIfGiven
	}
	now.tls.Store(asking) // two at once build the same
	return asking
}

// What a client lacks.
var (
	errNoCertificate = errors.New("the client has shown no certificate that client_ca accepts, and this host needs one; " +
		"it must name the host in its TLS handshake (SNI) too")
	errNotAccepted = errors.New("client_ca no longer accepts the client's certificate")
)

// Check tells why a client that has proven one of these chains, leaf first, must not have the host; nil if it may. It asks what a
// handshake would ask now, whatever was asked when the client shook hands.
func (c *Clients) Check(host string, chains [][]*x509.Certificate) error {
	switch {
	case c == nil || !c.asked.has(host):
		return nil
	case len(chains) == 0 && c.options.Optional:
		return nil
	case len(chains) == 0:
		return errNoCertificate
	}
	now, a := time.Now(), c.current.Load()
	for _, chain := range chains {
		// What was verified once stays so, but for its time and its root.
		if a.raw[string(chain[len(chain)-1].Raw)] && !slices.ContainsFunc(chain, func(cert *x509.Certificate) bool { return checkLife(cert, now) != nil }) {
			return nil
		}
	}
	return errNotAccepted
}
