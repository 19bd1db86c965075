package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

// longestToken is how long a token may be, in bytes: those of identity providers have some hundred, with many groups a few thousand.
const longestToken = 16 << 10

// JWT are the options of signed tokens.
type JWT struct {
	// Where the identity provider publishes its keys (RFC 7517), as in https://id.example.com/.well-known/jwks.json. One of
	// `jwks_url`, `key_files` and `secret` says what signs the tokens.
	JWKSURL string `yaml:"jwks_url"`
	// Files with public keys: PEM, or a JSON Web Key Set. They are read again when they change.
	KeyFiles []string `yaml:"key_files"`
	// Secrets that sign by HMAC, 32 characters or longer, each of which counts. Whoever checks tokens can make them too.
	Secret []unit.Secret `yaml:"secret"`
	// The algorithms to accept. Default: RS256, ES256 and EdDSA, with `secret` HS256.
	Algorithms []string `yaml:"algorithms"`
	// Who has issued the token, its claim `iss`: one of these. Default: anybody whose key it is.
	Issuer []string `yaml:"issuer"`
	// For whom it was issued, its claim `aud`: one of these. Default: for anybody.
	Audience []string `yaml:"audience"`
	// How far the clocks of the provider and of this machine may differ, 5m at most.
	Leeway time.Duration `yaml:"leeway"`
	// The claim that is the user.
	User string `yaml:"user"`
	// Claims that the token must have: names, each with the values of which it has to have one.
	Require map[string][]string `yaml:"require"`
	// Scopes that the token must have, all of them, in its claim `scope` or `scp`.
	Scopes []string `yaml:"scopes"`
	// Where the token may stand: `header.authorization` behind `Bearer`, `header.NAME`, `cookie.NAME`, `query.NAME`, and
	// `subprotocol.bearer` for browsers, `new WebSocket(url, ["bearer", token])`. A cookie counts only for pages that `origins` allows
	// by name.
	Token []string `yaml:"token"`
	// How old the keys of `jwks_url` may become before they are fetched again. A token with an unknown key fetches them at once.
	Refresh time.Duration `yaml:"refresh"`
	// How long the provider may take to answer.
	Timeout time.Duration `yaml:"timeout"`
	// A PEM file with the authorities that sign the provider's certificate, read again when it changes. Default: those of the system.
	CA string `yaml:"ca"`
}

// DefaultJWT has the values of keys that are not given.
func DefaultJWT() JWT {
	return JWT{
		Leeway: 30 * time.Second, User: "sub", Token: []string{"header.authorization"}, Refresh: 15 * time.Minute, Timeout: 5 * time.Second,
	}
}

const maxLeeway = 5 * time.Minute

// families are the algorithms, by the keys that they need. There is no `none`.
var families = map[string][]string{
	"secret": {"HS256", "HS384", "HS512"},
	"public": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"},
}

// family is what signs the tokens.
func (o *JWT) family() string {
	if len(o.Secret) > 0 {
		return "secret"
	}
	return "public"
}

// algorithms are those that count.
func (o *JWT) algorithms() []string {
	switch {
	case len(o.Algorithms) > 0:
		return o.Algorithms
	case len(o.Secret) > 0:
		return []string{"HS256"}
	}
	return []string{"RS256", "ES256", "EdDSA"}
}

// Validate reports what cannot work.
func (o *JWT) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	o.validateKeys(at, p)
	known := slices.Concat(families["public"], families["secret"])
	for i, name := range o.Algorithms {
		at := at.Key("algorithms").Index(i)
		p.OneOf(at, name, known...)
		if slices.Contains(known, name) && !slices.Contains(families[o.family()], name) {
			p.Add(at, "%s is none for these keys: with secret there are %s, with jwks_url and key_files %s", name,
				strings.Join(families["secret"], ", "), strings.Join(families["public"], ", "))
		}
	}
	if o.Leeway < 0 || o.Leeway > maxLeeway {
		p.Add(at.Key("leeway"), "must lie between 0 and 5m: expired tokens pass for so long")
	}
	if o.User == "" {
		p.Add(at.Key("user"), "is missing: name the claim that is the user, such as sub")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Require)) {
		if len(o.Require[name]) == 0 {
			p.Add(at.Key("require").Key(name), "allows no value, and so nobody: list those that may come in")
		}
	}
	validatePlaces(o.Token, at.Key("token"), p)
	if o.Refresh < time.Minute {
		p.Add(at.Key("refresh"), "must be 1m at least; keys that are new are fetched at once anyhow")
	}
	validatePositive(o.Timeout, at.Key("timeout"), p)
}

func (o *JWT) validateKeys(at yamlpos.Path, p *yamlpos.Problems) {
	var given []string
	for _, s := range []struct {
		key   string
		given bool
	}{{"jwks_url", o.JWKSURL != ""}, {"key_files", len(o.KeyFiles) > 0}, {"secret", len(o.Secret) > 0}} {
		if s.given {
			given = append(given, s.key)
		}
	}
	unsure := p.Broken(at.Key("jwks_url")) || p.Broken(at.Key("key_files")) || p.Broken(at.Key("secret"))
	switch {
	case len(given) == 0 && !unsure:
		p.Add(at, "has no keys: give it one of jwks_url, key_files, secret")
	case len(given) > 1:
		p.Add(at.Key(given[1]), "stands beside %s: a token is signed by one kind of key", given[0])
	}
	if o.JWKSURL != "" {
		validateURL(o.JWKSURL, at.Key("jwks_url"), p)
	}
	validateSecrets(o.Secret, at.Key("secret"), p)
}

// A tokenReader is the authenticator of signed tokens.
type tokenReader struct {
	options    *JWT
	where      []place
	algorithms []jose.SignatureAlgorithm
	keys       keySource
	still      bool
}

func (o *JWT) open(with Setup) (authenticator, error) {
	where, err := parsePlaces(o.Token)
	if err != nil {
		return nil, err
	}
	r := &tokenReader{options: o, where: where, still: with.Still}
	for _, name := range o.algorithms() {
		r.algorithms = append(r.algorithms, jose.SignatureAlgorithm(name))
	}
	r.keys, err = o.openKeys(with)
	return r, err
}

func (r *tokenReader) places() []place   { return r.where }
func (r *tokenReader) headers() []string { return nil }
func (r *tokenReader) close()            { r.keys.close() }

// check verifies the token: its algorithm is one of the list, its key is one of ours, of a kind that the algorithm needs. What the
// token says of keys, `jku`, `jwk`, `x5u` and `x5c`, is not looked at.
func (r *tokenReader) check(ctx context.Context, a *ask) (*Identity, error) {
	found, err := seek(a, r.where)
	if err != nil {
		return nil, err
	}
	if len(found.token) > longestToken {
		return nil, deny(reasonInvalid, "the token in %s has more than %d bytes", found.place, longestToken)
	}
	token, err := jwt.ParseSigned(found.token, r.algorithms)
	if err != nil {
		return nil, r.unreadable(found, err)
	}
	payload, err := r.verify(ctx, token, found.place)
	unasked, isUnasked := errors.AsType[*Unasked](err)
	if err != nil && !isUnasked {
		return nil, err
	}
	id, err := r.identity(payload, found.place)
	if err != nil {
		return nil, err
	}
	if isUnasked {
		return id, unasked
	}
	return id, nil
}

// unreadable says what is wrong with a token that is none. The library's errors are not passed on: they may hold parts of it.
func (r *tokenReader) unreadable(found *find, err error) error {
	if wrong, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); ok {
		return deny(reasonInvalid, "the token in %s is signed by %.20q, which is not among algorithms: %s", found.place, wrong.Got,
			strings.Join(r.options.algorithms(), ", "))
	}
	return deny(reasonInvalid, "what stands in %s is no signed token", found.place)
}

// verify gives the content of a token that one of the keys has signed.
func (r *tokenReader) verify(ctx context.Context, token *jwt.JSONWebToken, where place) (payload json.RawMessage, err error) {
	header := token.Headers[0]
	if r.still && !r.keys.known() {
		if token.UnsafeClaimsWithoutVerification(&payload) != nil {
			return nil, deny(reasonInvalid, "the token in %s holds no JSON", where)
		}
		return payload, &Unasked{text: "the signature is not checked, as that takes the keys from " + r.options.JWKSURL + "; all else is in order"}
	}
	by := func(k key) bool { return token.Claims(k.key, &payload) == nil }
	err = r.keys.find(ctx, func(keys []key) bool {
		return slices.ContainsFunc(keys, func(k key) bool { return k.fits(header.KeyID, header.Algorithm) && by(k) })
	})
	if err == errNoKey {
		return nil, deny(reasonInvalid, "no key of ours has signed the token in %s (%s, key id %.40q)", where, header.Algorithm, header.KeyID)
	}
	return payload, err
}

// identity reads the claims of a token (RFC 7519, section 4.1).
func (r *tokenReader) identity(payload json.RawMessage, where place) (*Identity, error) {
	var claims policy.Claims
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil || claims == nil {
		return nil, deny(reasonInvalid, "the token in %s holds no claims", where)
	}
	id := &Identity{Claims: claims}
	var err error
	if id.Expires, err = r.checkTimes(claims); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		name   string
		wanted []string
	}{{"iss", r.options.Issuer}, {"aud", r.options.Audience}} {
		if has := claims.Texts(c.name); len(c.wanted) > 0 && !overlap(has, c.wanted) {
			return nil, deny(reasonInvalid, "the token's %s is %.200q, and this is for %q", c.name, has, c.wanted)
		}
	}
	if err := r.checkRights(claims); err != nil {
		return nil, err
	}
	if users := claims.Texts(r.options.User); len(users) == 1 {
		id.User = users[0]
	}
	if id.User == "" {
		return nil, deny(reasonInvalid, "the token has no claim %q to name the user; set jwt.user to one that it has", r.options.User)
	}
	id.Proof = fmt.Sprintf("user %q by the token in %s, until %s", id.User, where, id.Expires.UTC().Format(time.RFC3339))
	return id, nil
}

// checkTimes tells until when the token is good, leeway included.
func (r *tokenReader) checkTimes(claims policy.Claims) (until time.Time, err error) {
	now, leeway := time.Now(), r.options.Leeway
	exp, ok, err := moment(claims, "exp")
	switch {
	case err != nil:
		return until, err
	case !ok:
		return until, deny(reasonInvalid, "the token never expires: it has no claim exp")
	case !now.Before(exp.Add(leeway)):
		return until, deny(reasonExpired, "the token has expired")
	}
	for _, name := range []string{"nbf", "iat"} {
		from, ok, err := moment(claims, name)
		if err != nil {
			return until, err
		}
		if ok && now.Add(leeway).Before(from) {
			return until, deny(reasonInvalid, "the token is not good yet, by its claim %s; are the clocks right?", name)
		}
	}
	return exp.Add(leeway), nil
}

// latest bounds the moments that are told apart: the year 9999.
const latest = 253402300799

// moment reads a NumericDate (RFC 7519, section 2).
func moment(claims policy.Claims, name string) (t time.Time, ok bool, err error) {
	value, ok := claims[name]
	if !ok {
		return t, false, nil
	}
	number, _ := value.(json.Number)
	seconds, err := number.Float64()
	if err != nil || math.IsNaN(seconds) {
		return t, false, deny(reasonInvalid, "the token's claim %s is no number", name)
	}
	seconds = min(max(seconds, 0), latest)
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true, nil
}

// checkRights tells why a token that is genuine does not do.
func (r *tokenReader) checkRights(claims policy.Claims) error {
	for _, name := range slices.Sorted(maps.Keys(r.options.Require)) {
		if has := claims.Texts(name); !overlap(has, r.options.Require[name]) {
			return deny(reasonForbidden, "the token's claim %s is %.200q, and jwt.require asks for one of %q", name, has, r.options.Require[name])
		}
	}
	var scopes []string // RFC 8693, section 4.2: separated by spaces; some providers have a list
	for _, name := range []string{"scope", "scp"} {
		for _, text := range claims.Texts(name) {
			scopes = append(scopes, strings.Fields(text)...)
		}
	}
	for _, scope := range r.options.Scopes {
		if !slices.Contains(scopes, scope) {
			return deny(reasonForbidden, "the token has the scopes %.200q, and not %q", scopes, scope)
		}
	}
	return nil
}

func overlap(has, wanted []string) bool {
	return slices.ContainsFunc(has, func(s string) bool { return slices.Contains(wanted, s) })
}
