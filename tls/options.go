package tls

import "bridgehead/internal/yamlpos"

// Options are the section `certificates`: where the certificates of TLS listeners come from.
type Options struct {
	// Make certificates with a local authority whose root is kept in `state`. For development and private networks: clients
	// must trust the root.
	Internal bool `yaml:"internal"`
	// Pairs of PEM files, read again when they change. They win over the local authority for the names they hold. Without it,
	// the first pair also answers clients that name no host.
	Files []Pair `yaml:"files"`
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
