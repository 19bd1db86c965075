package tls

import (
	"net/netip"
	"strings"
	"time"

	"bridgehead/internal/yamlpos"
)

// Options are the section `certificates`: where the certificates of TLS listeners come from. For each host the first that has one
// counts: a file that holds it, an authority on the Internet (`email` or `acme`), the local authority.
type Options struct {
	// Get certificates for the hosts of all routes from an authority that speaks ACME, Let's Encrypt unless `acme` names others, and
	// renew them in time. The authority may write to this address; the terms of the authority are agreed to.
	Email string `yaml:"email"`
	// The authorities, in the order in which they are tried. Default: Let's Encrypt, if `email` is set.
	ACME []Issuer `yaml:"acme"`
	// How to prove to an authority that a host is ours: `http-01`, which listeners without TLS answer and the authority asks on port
	// 80, and `tls-alpn-01`, which those with TLS answer, asked on port 443. Hosts that one of `dns` is for are proven there
	// instead.
	Challenges []string `yaml:"challenges"`
	// Prove it by a record in the DNS, which needs no port that the authority can reach, and is the only way to wildcards. The first
	// that is for a host counts.
	DNS []DNS `yaml:"dns"`
	// Get certificates for the hosts of routes with captures, with `*` or for every host when the first client asks for one.
	OnDemand *OnDemand `yaml:"on_demand"`
	// The private keys of automatic certificates: `p256`, `p384`, `rsa2048` or `rsa4096`.
	KeyType string `yaml:"key_type"`
	// How often to look whether certificates are to be renewed. The authority says when that is; where it does not, it is when a third
	// of their life is left.
	CheckInterval time.Duration `yaml:"check_interval"`
	// Make certificates with a local authority whose root is kept in `state`. For development and private networks: clients
	// must trust the root. Beside `email` or `acme` it has the hosts that no authority on the Internet certifies.
	Internal bool `yaml:"internal"`
	// Pairs of PEM files, read again when they change. They win for the names they hold. Without a local authority,
	// the first pair also answers clients that name no host.
	Files []Pair `yaml:"files"`
	// The host of clients that name none in their TLS handshake, as old ones do and those that are given an address: they are answered
	// as if they had named this one, unless a route or a pair of `files` has the address that they have reached. Default: the local
	// authority makes a certificate for the address, and without it the first pair is sent.
	DefaultSNI string `yaml:"default_sni"`
}

// DefaultOptions are the values of keys that are not given.
func DefaultOptions() Options {
	return Options{Challenges: []string{http01, tlsALPN01}, KeyType: "p256", CheckInterval: 10 * time.Minute}
}

// A Pair is a certificate chain and its private key in PEM files.
type Pair struct {
	// The certificate, followed by its intermediates.
	Cert string `yaml:"cert"`
	// The private key.
	Key string `yaml:"key"`
}

// Enabled tells whether any certificates are to be had.
func (o *Options) Enabled() bool { return o.Automatic() || o.Internal || len(o.Files) > 0 }

// Automatic tells whether certificates are got by ACME.
func (o *Options) Automatic() bool { return o.Email != "" || len(o.ACME) > 0 }

// Validate reports what cannot work. It does not look at files: New does.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if o.DefaultSNI != "" && !isName(o.DefaultSNI) {
		p.Add(at.Key("default_sni"), "%q is no host name: write one that a route has, such as chat.example.com", o.DefaultSNI)
	}
	for i, pair := range o.Files {
		at := at.Key("files").Index(i)
		if pair.Cert == "" {
			p.Add(at, "cert is missing: the PEM file with the certificate and its intermediates")
		}
		if pair.Key == "" {
			p.Add(at, "key is missing: the PEM file with the certificate's private key")
		}
	}
	o.validateAutomatic(at, p)
}

// isName tells whether a host is a name, and neither an address nor a pattern.
func isName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil && validName(strings.ToLower(host))
}
