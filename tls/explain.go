package tls

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

// A Chosen tells how the handshake of a client that trusts the authorities would be answered.
type Chosen struct {
	Source string // "file", "automatic", "on_demand", "authority", or "" for none
	Names  []string
	Text   string // which certificate, or why there is none
	OK     bool   // the client takes it
}

// ErrUnreadable says that a certificate's file cannot be read here, which need not be so where the program runs.
var ErrUnreadable = errors.New("unreadable")

// Explain tells which certificate a client gets that asks for a host, a name or an address, where names are the hosts of all
// routes. It makes nothing, and reads no key: only the certificates that are listed. The error is an [ErrUnreadable].
func Explain(o Options, names []string, host string) (Chosen, error) {
	served := newHosts(names)
	q := asked{hosts: served, name: strings.ToLower(host)}
	if addr, err := netip.ParseAddr(host); err == nil {
		q.name, q.addr = "", addr.Unmap().WithZone("")
	}
	listed, paths, err := readListed(o.Files)
	if err != nil {
		return Chosen{}, err
	}
	if addr := q.addr.String(); q.name == "" && o.DefaultSNI != "" && !served.has(addr) && len(listed.find(addr)) == 0 {
		return explainNameless(o, names, host)
	}
	origin := &sources{options: o, issuers: o.issuers()}
	p, _ := origin.policy(names, Listening{}, func(name string) bool { return len(listed.find(name)) > 0 })
	byName := q.name == "localhost" || q.name != "" && served.serve(q.name)
	switch held := listed.find(strings.ToLower(host)); {
	case len(held) > 0:
		return fromFile(held[0].Leaf, paths), nil
	case p.subject(q) != "":
		return p.explain(p.subject(q)), nil
	case p.demands(q):
		return p.explainDemand(q.name), nil
	case o.Internal && (q.name == "" || byName):
		return fromAuthority(q), nil
	case listed.first != nil && (q.name == "" || served.serve(q.name)):
		c := fromFile(listed.first.Leaf, paths)
		c.OK = false
		c.Text += fmt.Sprintf(", which does not hold %s, so that clients refuse it: list one that does under certificates.files, "+
			"or set certificates.internal", host)
		return c, nil
	}
	return Chosen{Text: fmt.Sprintf("no route and no certificate has the host %s, so that the TLS handshake is refused: give a route "+
		"this host, or list a certificate that holds it under certificates.files", host)}, nil
}

// explainNameless is for clients that reach an address, which they cannot name.
func explainNameless(o Options, names []string, addr string) (Chosen, error) {
	c, err := Explain(o, names, o.DefaultSNI)
	if c.Source != "" {
		c.OK = false
		c.Text = fmt.Sprintf("certificates.default_sni: %s; it does not hold %s, so that clients which check that refuse it", c.Text, addr)
	}
	return c, err
}

// explain is a certificate that is got from an authority as soon as its host is served.
func (p *policy) explain(subject string) Chosen {
	var from []string
	for i := range p.issuers {
		if p.issuers[i].certifies(subject) {
			from = append(from, p.issuers[i].Directory)
		}
	}
	by := strings.Join(p.options.Challenges, " or ")
	if i := p.options.provider(subject); i >= 0 {
		by = fmt.Sprintf("a record in the DNS (certificates.dns[%d])", i)
	}
	return Chosen{
		Source: "automatic", Names: []string{subject}, OK: true,
		Text: fmt.Sprintf("automatic: for %s, from %s, shown to be ours by %s; bridgehead certs tells whether it was got", subject,
			strings.Join(from, ", else "), by),
	}
}

// explainDemand is a certificate that is got when the first client asks for its host.
func (p *policy) explainDemand(name string) Chosen {
	o := p.options.OnDemand
	c := Chosen{Source: "on_demand", Names: []string{name}, OK: true}
	switch {
	case !p.certifies(name):
		c.OK, c.Text = false, fmt.Sprintf("no authority under certificates certifies %s, so that the TLS handshake is refused", name)
	case len(o.Allow) > 0 && !matchesHost(o.Allow, name):
		c.OK, c.Text = false, fmt.Sprintf("certificates.on_demand.allow does not have %s, so that the TLS handshake is refused", name)
	case o.Ask != "":
		c.Text = fmt.Sprintf("automatic: for %s, when the first client asks for it, if certificates.on_demand.ask allows it", name)
	default:
		c.Text = fmt.Sprintf("automatic: for %s, when the first client asks for it", name)
	}
	return c
}

// fromAuthority is a certificate of the local authority.
func fromAuthority(q asked) Chosen {
	subject := q.addr.String()
	if q.name != "" {
		subject = q.hosts.subject(q.name)
	}
	return Chosen{
		Source: "authority", Names: []string{subject}, OK: true,
		Text: fmt.Sprintf("local authority: for %s; clients must trust its root, which bridgehead ca prints", subject),
	}
}

// fromFile is a certificate that was listed.
func fromFile(leaf *x509.Certificate, paths map[*x509.Certificate]string) Chosen {
	c := Chosen{Source: "file", Names: names(leaf), OK: true}
	c.Text = fmt.Sprintf("file %s: for %s, until %s", paths[leaf], strings.Join(c.Names, ", "), leaf.NotAfter.Format(time.DateOnly))
	if err := checkLife(leaf, time.Now()); err != nil {
		c.OK = false
		c.Text = fmt.Sprintf("file %s: clients refuse it: %v", paths[leaf], err)
	}
	return c
}

// readListed reads the certificates of the pairs, and tells which is whose.
func readListed(files []Pair) (*table, map[*x509.Certificate]string, error) {
	t, paths := &table{byName: make(map[string][]*tls.Certificate)}, make(map[*x509.Certificate]string)
	for _, f := range files {
		leaf, err := readLeaf(f.Cert)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate %s is %w here: %w", f.Cert, ErrUnreadable, err)
		}
		paths[leaf] = f.Cert
		t.add(&tls.Certificate{Leaf: leaf})
	}
	return t, paths, nil
}

// readLeaf reads the first certificate of a PEM file.
func readLeaf(path string) (*x509.Certificate, error) {
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil:
			return nil, errors.New("it holds no certificate in PEM")
		case block.Type == "CERTIFICATE":
			return x509.ParseCertificate(block.Bytes)
		}
	}
}
