package auth

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/ws"
)

// What may become of an open socket when its token expires.
const (
	closes = "close"
	keep   = "keep"
)

// Options are one entry under `authenticators`.
type Options struct {
	// Clients bring a token that an identity provider has signed (RFC 7519). An entry has exactly one of `jwt`, `forward`, `api_key`,
	// `basic`, `signed_url` and `mtls`.
	JWT *JWT `yaml:"jwt"`
	// An HTTP endpoint decides.
	Forward *Forward `yaml:"forward"`
	// Clients bring one of the keys whose hashes stand in a file.
	APIKey *APIKey `yaml:"api_key"`
	// Clients bring a user and a password (RFC 7617).
	Basic *Basic `yaml:"basic"`
	// Clients come by a link that was signed for them and that is good for some time.
	SignedURL *SignedURL `yaml:"signed_url"`
	// Clients show a certificate that the listener has verified.
	MTLS *MTLS `yaml:"mtls"`
	// The claims that backends are told, beside the user: webhooks in `connection.claims`, streams in the PROXY header. WebSocket
	// servers are told by `headers: {set: {X-Tenant: "{claim.tenant}"}}`.
	ForwardClaims []string `yaml:"forward_claims"`
	// Leave the token where the client put it, for backends that read it themselves. It is taken out of the request otherwise.
	ForwardToken bool `yaml:"forward_token"`
	// What becomes of an open socket when the token, or the certificate, expires: `close` or `keep`.
	OnExpiry string `yaml:"on_expiry"`
	// The code to close it with: 1008, or one of 3000 to 4999.
	CloseCode int `yaml:"close_code"`
}

// A kind is the section of an entry that says which way it is.
type kind struct {
	key     string
	options interface {
		Validate(at yamlpos.Path, p *yamlpos.Problems)
		open(with Setup) (authenticator, error)
	}
}

// kinds are those that the entry has.
func (o *Options) kinds() (all []kind) {
	if o.JWT != nil {
		all = append(all, kind{"jwt", o.JWT})
	}
	if o.Forward != nil {
		all = append(all, kind{"forward", o.Forward})
	}
	if o.APIKey != nil {
		all = append(all, kind{"api_key", o.APIKey})
	}
	if o.Basic != nil {
		all = append(all, kind{"basic", o.Basic})
	}
	if o.SignedURL != nil {
		all = append(all, kind{"signed_url", o.SignedURL})
	}
	if o.MTLS != nil {
		all = append(all, kind{"mtls", o.MTLS})
	}
	return all
}

// kindKeys are the sections of which an entry has exactly one.
var kindKeys = []string{"jwt", "forward", "api_key", "basic", "signed_url", "mtls"}

// open makes the authenticator. The options have been validated.
func (o *Options) open(with Setup) (authenticator, error) { return o.kinds()[0].options.open(with) }

// DefaultOptions are the values of keys that are not given.
func DefaultOptions() Options { return Options{OnExpiry: closes, CloseCode: 4401} }

// Files gives the places of all paths, to be made absolute.
func (o *Options) Files() (paths []*string) {
	if o.JWT != nil {
		for i := range o.JWT.KeyFiles {
			paths = append(paths, &o.JWT.KeyFiles[i])
		}
		paths = append(paths, &o.JWT.CA)
	}
	if o.Forward != nil {
		paths = append(paths, &o.Forward.CA)
	}
	if o.APIKey != nil {
		paths = append(paths, &o.APIKey.File)
	}
	if o.Basic != nil {
		paths = append(paths, &o.Basic.File)
	}
	return paths
}

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	all := o.kinds()
	unsure := slices.ContainsFunc(kindKeys, func(key string) bool { return p.Broken(at.Key(key)) })
	if len(all) == 0 && !unsure {
		p.Add(at, "knows nobody: give it one of %s", strings.Join(kindKeys, ", "))
	}
	for _, k := range all {
		k.options.Validate(at.Key(k.key), p)
	}
	if len(all) > 1 {
		p.Add(at.Key(all[1].key), "stands beside %s: an authenticator is one of them; routes take several by any or all", all[0].key)
	}
	p.OneOf(at.Key("on_expiry"), o.OnExpiry, closes, keep)
	if c := o.CloseCode; c != int(ws.CodePolicyViolation) && (c < 3000 || c > 4999) {
		p.Add(at.Key("close_code"), "%d: write 1008, or one of 3000 to 4999, which are for applications", c)
	}
	for i, name := range o.ForwardClaims {
		if _, err := policy.ParseValue("claim." + name); err != nil {
			p.Add(at.Key("forward_claims").Index(i), "%q cannot be the name of a claim", name)
		}
	}
}

// validatePlaces reports places where no token may stand.
func validatePlaces(texts []string, at yamlpos.Path, p *yamlpos.Problems) {
	if len(texts) == 0 {
		p.Add(at, "names no place where a token may stand: list one, such as header.authorization")
	}
	for i, text := range texts {
		if _, err := parsePlace(text); err != nil {
			p.Add(at.Index(i), "%v", err)
		}
	}
}

// shortestSecret is how long a shared secret has to be: as long as the hash of HS256 (RFC 7518, section 3.2).
const shortestSecret = 32

// validateSecrets reports secrets that can be guessed.
func validateSecrets(secrets []unit.Secret, at yamlpos.Path, p *yamlpos.Problems) {
	for i, s := range secrets {
		switch {
		case strings.Contains(s.Reveal(), "-----BEGIN"):
			p.Add(at.Index(i), "is a PEM key and no secret: list its file under key_files")
		case len(s.Reveal()) < shortestSecret:
			p.Add(at.Index(i), "has %d characters, so that it can be guessed: take %d random ones or more, as from `openssl rand -hex 32`",
				len(s.Reveal()), shortestSecret)
		}
	}
}

// validateURL reports what is no http or https URL.
func validateURL(text string, at yamlpos.Path, p *yamlpos.Problems) {
	u, err := url.Parse(text)
	switch {
	case text == "":
		p.Add(at, "is missing: write an https URL")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		p.Add(at, "%q is no URL: write it as https://id.example.com/path", text)
	case u.User != nil || u.Fragment != "":
		p.Add(at, "must have neither a user nor a fragment")
	}
}

// validatePositive reports a duration that bounds nothing.
func validatePositive(d time.Duration, at yamlpos.Path, p *yamlpos.Problems) {
	if d <= 0 {
		p.Add(at, "must be positive: what never answers would hold its clients for ever")
	}
}

// Exposed tells of a URL whose answers anyone on the way could change.
func exposed(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback() && !addr.IsPrivate())
}

// Warnings are what works and may not have been meant, with the keys below the entry.
func (o *Options) Warnings(warn func(key, format string, args ...any)) {
	switch {
	case o.JWT != nil:
		if exposed(o.JWT.JWKSURL) {
			warn("jwt.jwks_url", "the keys come without TLS: anyone on the way can put others in their place and sign tokens; use https")
		}
		if o.JWT.JWKSURL != "" && len(o.JWT.Audience) == 0 {
			warn("jwt", "there is no audience: tokens that the provider has signed for other applications come in here too")
		}
	case o.Forward != nil:
		if exposed(o.Forward.URL) {
			warn("forward.url", "credentials travel without TLS: anyone on the way can read them, and answer in the endpoint's place; use https")
		}
	}
}
