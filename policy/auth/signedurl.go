package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

// SignedURL are the options of links that are signed.
type SignedURL struct {
	// Secrets of 32 characters or longer that sign the links; each counts, so that they can be changed without a gap.
	Secret []unit.Secret `yaml:"secret"`
	// The query parameter that says until when the link may be opened, in seconds since 1970. It does not end the socket.
	Expires string `yaml:"expires"`
	// The query parameter with the signature, the last of all: the base64url of the HMAC-SHA-256 of path and query up to it, as in
	// `/ws/5?user=ann&expires=1767225600`.
	Signature string `yaml:"signature"`
	// The query parameter that names the user. All signed parameters are claims.
	User string `yaml:"user"`
}

// DefaultSignedURL has the values of keys that are not given.
func DefaultSignedURL() SignedURL {
	return SignedURL{Expires: "expires", Signature: "signature", User: "user"}
}

// Validate reports what cannot work.
func (o *SignedURL) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if len(o.Secret) == 0 && !p.Broken(at.Key("secret")) {
		p.Add(at.Key("secret"), "is missing: links are signed by it")
	}
	validateSecrets(o.Secret, at.Key("secret"), p)
	seen := map[string]string{}
	for _, name := range []struct{ key, value string }{{"expires", o.Expires}, {"signature", o.Signature}, {"user", o.User}} {
		switch {
		case name.value != url.QueryEscape(name.value) || name.value == "":
			p.Add(at.Key(name.key), "%q cannot be the name of a parameter: write letters, digits, - and _", name.value)
		case seen[name.value] != "":
			p.Add(at.Key(name.key), "%q is %s already", name.value, seen[name.value])
		}
		seen[name.value] = name.key
	}
}

// A linkReader is the authenticator of signed links.
type linkReader struct{ options *SignedURL }

func (o *SignedURL) open(Setup) (authenticator, error) { return &linkReader{o}, nil }

// places are where the signature and its end stand; what else the link says stays.
func (r *linkReader) places() []place {
	return []place{{kind: inQuery, name: r.options.Signature}, {kind: inQuery, name: r.options.Expires}}
}

func (r *linkReader) headers() []string { return nil }
func (r *linkReader) close()            {}

// check verifies the signature of path and query as they were sent: everything counts, and nothing can be added behind it.
func (r *linkReader) check(_ context.Context, a *ask) (*Identity, error) {
	query := a.Request.URL.RawQuery
	signed, signature, ok := cutSignature(query, r.options.Signature)
	if !ok {
		if a.Request.URL.Query().Has(r.options.Signature) {
			return nil, deny(reasonInvalid, "the parameter %s must be the last", r.options.Signature)
		}
		return nil, deny(reasonMissing, "the link has no parameter %s", r.options.Signature)
	}
	got, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(signature, "="))
	if err != nil || !r.genuine(a.Request.URL.EscapedPath()+"?"+signed, got) {
		return nil, deny(reasonInvalid, "the link is not signed by any secret, or was changed")
	}
	claims, err := parseSigned(signed)
	if err != nil {
		return nil, deny(reasonInvalid, "the signed link %w", err)
	}
	text, _ := claims[r.options.Expires].(string)
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, deny(reasonInvalid, "the signed link has no %s in seconds", r.options.Expires)
	}
	if until := time.Unix(seconds, 0); !time.Now().Before(until) {
		return nil, deny(reasonExpired, "the link has expired")
	}
	delete(claims, r.options.Expires)
	user, _ := claims[r.options.User].(string)
	return &Identity{User: user, Claims: claims, Proof: fmt.Sprintf("user %q by a signed link", user)}, nil
}

func (r *linkReader) genuine(text string, signature []byte) bool {
	for _, secret := range r.options.Secret {
		if hmac.Equal(signature, seal(secret, text)) {
			return true
		}
	}
	return false
}

func seal(secret unit.Secret, text string) []byte {
	h := hmac.New(sha256.New, []byte(secret.Reveal()))
	h.Write([]byte(text))
	return h.Sum(nil)
}

// cutSignature parts a query from the signature at its end.
func cutSignature(query, name string) (signed, signature string, ok bool) {
	i := strings.LastIndex("&"+query, "&"+name+"=")
	if i < 0 {
		return "", "", false
	}
	signed, signature = query[:max(0, i-1)], query[i+len(name)+1:]
	return signed, signature, !strings.Contains(signature, "&")
}

// parseSigned reads the parameters, each of which stands once.
func parseSigned(query string) (policy.Claims, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("has a query that cannot be read")
	}
	claims := policy.Claims{}
	for name, list := range values {
		if len(list) > 1 {
			return nil, fmt.Errorf("has the parameter %.40q %d times", name, len(list))
		}
		claims[name] = list[0]
	}
	return claims, nil
}

// Sign gives the link that is good until then, for the user unless that is "".
func (o *SignedURL) Sign(link *url.URL, user string, until time.Time) (*url.URL, error) {
	if len(o.Secret) == 0 {
		return nil, errors.New("there is no secret to sign with")
	}
	signed := *link
	query := signed.Query()
	for _, name := range []string{o.Expires, o.Signature} {
		if query.Has(name) {
			return nil, fmt.Errorf("the link has a parameter %s already", name)
		}
	}
	var parts []string
	if signed.RawQuery != "" {
		parts = append(parts, signed.RawQuery)
	}
	if user != "" {
		if query.Has(o.User) {
			return nil, fmt.Errorf("the link has a parameter %s already", o.User)
		}
		parts = append(parts, o.User+"="+url.QueryEscape(user))
	}
	parts = append(parts, o.Expires+"="+strconv.FormatInt(until.Unix(), 10))
	signed.RawQuery = strings.Join(parts, "&")
	if signed.Path == "" {
		signed.Path = "/"
	}
	signed.RawQuery += "&" + o.Signature + "=" + base64.RawURLEncoding.EncodeToString(seal(o.Secret[0], signed.EscapedPath()+"?"+signed.RawQuery))
	return &signed, nil
}
