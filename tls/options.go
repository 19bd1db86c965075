package tls

import (
	"net/netip"
	"strings"

	"bridgehead/internal/yamlpos"
)

// Options are the section `certificates`: where the certificates of TLS listeners come from.
type Options struct {
	// Make certificates with a local authority whose root is kept in `state`. For development and private networks: clients
	// must trust the root.
	Internal bool `yaml:"internal"`
	// Pairs of PEM files, read again when they change. They win over the local authority for the names they hold. Without it,
	// the first pair also answers clients that name no host.
	Files []Pair `yaml:"files"`
	// The host of clients that name none in their TLS handshake, as old ones do and those that are given an address: they are answered
	// as if they had named this one, unless a route or a pair of `files` has the address that they have reached. Default: the local
	// authority makes a certificate for the address, and without it the first pair is sent.
	DefaultSNI string `yaml:"default_sni"`
}

// A Pair is a certificate chain and its private key in PEM files.
type Pair struct {
	// The certificate, followed by its intermediates.
	Cert string `yaml:"cert"`
	// The private key.
	Key string `yaml:"key"`
}

// Enabled tells whether any certificates are to be had.
func (o *Options) Enabled() bool { return o.Internal || len(o.Files) > 0 }

// Validate reports pairs that are not pairs. It does not look at the files: New does.
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
}

// isName tells whether a host is a name, and neither an address nor a pattern.
func isName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil && validName(strings.ToLower(host))
}
