package tls

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

// The challenges that listeners answer, as RFC 8555 and RFC 8737 call them.
const (
	http01    = "http-01"
	tlsALPN01 = "tls-alpn-01"
)

var keyTypes = []string{"p256", "p384", "rsa2048", "rsa4096"}

// An Issuer is an authority that speaks ACME (RFC 8555).
type Issuer struct {
	// The URL of its directory. Default: that of Let's Encrypt.
	Directory string `yaml:"directory"`
	// Use Let's Encrypt's authority for tests: its limits are wide, and no client trusts its certificates.
	Staging bool `yaml:"staging"`
	// An address for this authority. Default: `email` of the section.
	Email string `yaml:"email"`
	// Binds the account to one that exists at the authority already, which some ask for.
	EAB *EAB `yaml:"eab"`
	// One of the kinds of certificates that the authority offers, such as `shortlived`, which is the one for IP addresses at Let's
	// Encrypt. Default: the authority's choice.
	Profile string `yaml:"profile"`
	// A PEM file with the roots that the directory's own certificate is checked by. Default: the system's.
	CA string `yaml:"ca"`
	// Of several chains the one that an authority with this common name has signed. Default: the authority's choice.
	PreferredChain string `yaml:"preferred_chain"`
	// The hosts that it is for, such as `*.example.com`, for every name below, or `chat.example.org`. Default: all.
	Hosts []string `yaml:"hosts"`
}

// EAB is an external account binding (RFC 8555, section 7.3.4).
type EAB struct {
	// The key's identifier, as the authority gave it.
	KeyID string `yaml:"key_id"`
	// The key, as the authority gave it, in base64url.
	HMAC unit.Secret `yaml:"hmac"`
}

// issuers are those that the section names, with their directories filled in.
func (o *Options) issuers() []Issuer {
	if !o.Automatic() {
		return nil
	}
	all := slices.Clone(o.ACME)
	if len(all) == 0 {
		all = []Issuer{{}}
	}
	for i := range all {
		if all[i].Staging {
			all[i].Directory = certmagic.LetsEncryptStagingCA
		}
		if all[i].Directory == "" {
			all[i].Directory = certmagic.LetsEncryptProductionCA
		}
		if all[i].Email == "" {
			all[i].Email = o.Email
		}
	}
	return all
}

// publicCAs are directories that certify what is on the Internet alone.
var publicCAs = []string{".letsencrypt.org", ".zerossl.com", ".pki.goog", ".buypass.com", ".ssl.com"}

// public tells whether the authority certifies only what is on the Internet.
func (i *Issuer) public() bool {
	u, err := url.Parse(i.Directory)
	return err == nil && slices.ContainsFunc(publicCAs, func(ca string) bool { return strings.HasSuffix(u.Hostname(), ca) })
}

// certifies tells whether a certificate for a host, or a wildcard, may be asked from the authority.
func (i *Issuer) certifies(subject string) bool {
	if i.public() && (!certmagic.SubjectQualifiesForPublicCert(subject) || !strings.Contains(subject, ".") && !strings.Contains(subject, ":")) {
		return false
	}
	return matchesHost(i.Hosts, subject)
}

// matchesHost tells whether one of the patterns has a host, or a wildcard; no patterns have all.
func matchesHost(patterns []string, subject string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(pattern string) bool {
		pattern = strings.ToLower(pattern)
		parent, wildcard := strings.CutPrefix(pattern, "*.")
		return pattern == subject || wildcard && strings.HasSuffix(subject, "."+parent)
	})
}

// roots are those of the file `ca`; nil are the system's.
func (i *Issuer) roots() (*x509.CertPool, error) {
	if i.CA == "" {
		return nil, nil
	}
	text, err := os.ReadFile(i.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", i.CA)
	}
	return pool, nil
}

// An assignment says where the certificate for clients of a route's host comes from, but for files.
type assignment struct {
	subject string // to get for it as soon as it is served; "": none
	demand  bool   // got when a client asks
	why     string // if neither: what is missing
}

// assign decides about a host as [New] takes it.
func (o *Options) assign(host string) assignment {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	subject := strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(subject); err != nil {
		subject = host
	}
	labels, wildcard := strings.CutPrefix(subject, "*.")
	open := subject == "" || strings.Contains(labels, "*")
	certified := open || slices.ContainsFunc(o.issuers(), func(i Issuer) bool { return i.certifies(subject) })
	switch {
	case !o.Automatic():
		return assignment{why: "no certificates are got by ACME"}
	case !certified:
		return assignment{why: "authorities on the Internet certify what can be found there, and those under certificates.acme are for the " +
			"hosts that they list: set certificates.internal: true for it, or name an authority of your own"}
	case !open && (!wildcard || o.provider(subject) >= 0):
		return assignment{subject: subject}
	case o.OnDemand != nil:
		return assignment{demand: true}
	case subject == "":
		return assignment{why: "it serves every host, so that there is no name to get a certificate for: give it a host, or set certificates.on_demand"}
	case open:
		return assignment{why: "no certificate can hold such hosts: set certificates.on_demand"}
	}
	return assignment{why: "a certificate for a wildcard takes certificates.dns; certificates.on_demand gets one for each name instead"}
}

// Unassigned tells why a route's host gets no certificate from any place that is named in the section, or "" if it gets one or may
// be in a file. It looks at no file.
func (o *Options) Unassigned(host string) string {
	if a := o.assign(host); o.Automatic() && !o.Internal && len(o.Files) == 0 {
		return a.why
	}
	return ""
}

func (o *Options) validateAutomatic(at yamlpos.Path, p *yamlpos.Problems) {
	if o.Email != "" {
		validateEmail(at.Key("email"), p, o.Email)
	}
	for i := range o.ACME {
		o.ACME[i].validate(at.Key("acme").Index(i), p)
	}
	p.OneOf(at.Key("key_type"), o.KeyType, keyTypes...)
	for i, name := range o.Challenges {
		p.OneOf(at.Key("challenges").Index(i), name, http01, tlsALPN01)
	}
	if o.Automatic() && len(o.Challenges) == 0 && len(o.DNS) == 0 {
		p.Add(at.Key("challenges"), "must not be empty without dns: no authority could be shown that a host is ours")
	}
	if o.CheckInterval < time.Second {
		p.Add(at.Key("check_interval"), "must be a second or more: nothing would be renewed in time")
	}
	for i := range o.DNS {
		o.DNS[i].validate(at.Key("dns").Index(i), p)
	}
	if o.OnDemand != nil {
		o.OnDemand.validate(at.Key("on_demand"), p)
	}
}

// Warn reports what works and may not have been meant.
func (o *Options) Warn(at yamlpos.Path, p *yamlpos.Problems) {
	const text = "is of no use without an authority: set certificates.email, or name one under certificates.acme"
	if len(o.DNS) > 0 && !o.Automatic() {
		p.Add(at.Key("dns"), text)
	}
	if o.OnDemand != nil && !o.Automatic() {
		p.Add(at.Key("on_demand"), text)
	}
}

func validateEmail(at yamlpos.Path, p *yamlpos.Problems, email string) {
	if a, err := mail.ParseAddress(email); err != nil || a.Address != email {
		p.Add(at, "%q is no address of mail: write it as ops@example.com", email)
	}
}

func (i *Issuer) validate(at yamlpos.Path, p *yamlpos.Problems) {
	if i.Email != "" {
		validateEmail(at.Key("email"), p, i.Email)
	}
	if i.Staging && i.Directory != "" {
		p.Add(at.Key("staging"), "is Let's Encrypt's, and stands beside another directory: leave one of them out")
	}
	if i.Directory != "" {
		if u, err := url.Parse(i.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
			p.Add(at.Key("directory"), "%q is no URL of a directory: write it as https://ca.example.com/acme/directory", i.Directory)
		}
	}
	if i.EAB != nil && (i.EAB.KeyID == "" || i.EAB.HMAC == "") {
		p.Add(at.Key("eab"), "needs key_id and hmac, both as the authority gave them")
	}
	validatePatterns(at.Key("hosts"), p, i.Hosts)
}

// validatePatterns reports what is neither a host nor a wildcard.
func validatePatterns(at yamlpos.Path, p *yamlpos.Problems, patterns []string) {
	for i, pattern := range patterns {
		if err := checkPattern(pattern); err != nil {
			p.Add(at.Index(i), "%q: %v", pattern, err)
		}
	}
}

func checkPattern(pattern string) error {
	name := strings.TrimPrefix(strings.ToLower(pattern), "*.")
	if _, err := netip.ParseAddr(name); err != nil && !validName(name) {
		return errors.New("write a host, such as chat.example.com, or *.example.com for every name below")
	}
	return nil
}
