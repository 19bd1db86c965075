package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"bridgehead/internal/unit"
	"bridgehead/policy"
)

// reader takes tokens of the three keys, for one application.
func reader(t testing.TB, change func(*JWT)) *Checker {
	t.Helper()
	o := DefaultJWT()
	o.KeyFiles = []string{write(t, "keys.json", keySet(map[string]crypto.PublicKey{
		"r": rsaKey().Public(), "e": ecKey().Public(), "d": edKey().Public(),
	}))}
	o.Issuer, o.Audience = []string{"https://id.example.com"}, []string{"app", "other"}
	if change != nil {
		change(&o)
	}
	return only(t, Options{JWT: &o, ForwardClaims: []string{"tenant", "realm.roles"}, CloseCode: 4401, OnExpiry: "close"})
}

func TestGoodTokens(t *testing.T) {
	t.Parallel()
	c := reader(t, nil)
	for name, token := range map[string]string{
		"RS256":     sign(t, jose.RS256, rsaKey(), map[jose.HeaderKey]any{"kid": "r"}, with(nil)),
		"ES256":     sign(t, jose.ES256, ecKey(), map[jose.HeaderKey]any{"kid": "e"}, with(nil)),
		"EdDSA":     sign(t, jose.EdDSA, edKey(), map[jose.HeaderKey]any{"kid": "d"}, with(nil)),
		"no key id": sign(t, jose.EdDSA, edKey(), nil, with(nil)),
		"audiences": sign(t, jose.EdDSA, edKey(), nil, with(claims{"aud": []string{"x", "other"}})),
		"within leeway": sign(t, jose.EdDSA, edKey(), nil,
			with(claims{"exp": time.Now().Add(-20 * time.Second).Unix(), "nbf": time.Now().Add(20 * time.Second).Unix()})),
		"fractions": sign(t, jose.EdDSA, edKey(), nil, with(claims{"exp": float64(time.Now().Unix()) + 100.5})),
		"for ever":  sign(t, jose.EdDSA, edKey(), nil, with(claims{"exp": 1e300})),
		"a foreign key in the header": sign(t, jose.RS256, rsaKey(), map[jose.HeaderKey]any{
			"kid": "r", "jku": "https://evil.example/jwks", "x5u": "https://evil.example/x5u",
		}, with(nil)),
	} {
		f := bearer(token)
		id := admit(t, c, f)
		if f.User != "ann" || id.Expires.IsZero() || id.Code != 4401 || f.Request.Header["Authorization"] != nil {
			t.Errorf("%s: user %q, %+v, header %v", name, f.User, id, f.Request.Header)
		}
	}
	f := bearer(sign(t, jose.EdDSA, edKey(), nil, with(claims{"tenant": "t1", "jti": "j", "secret": "s", "realm": claims{"roles": []string{"a"}}})))
	id := admit(t, c, f)
	if got := string(must(json.Marshal(f.Told))); got != `{"realm.roles":["a"],"tenant":"t1"}` {
		t.Errorf("told %s", got)
	}
	if got := string(must(json.Marshal(Known(f)))); got != `{"jti":"j","realm.roles":["a"],"sub":"ann","tenant":"t1"}` {
		t.Errorf("known %s", got)
	}
	if !strings.Contains(id.Proof, `id: user "ann" by the token in header.authorization, until `) {
		t.Errorf("proof %q", id.Proof)
	}
}

// What people do to tokens, and what they have to find.
func TestAttacksOnTokens(t *testing.T) {
	t.Parallel()
	c := reader(t, nil)
	stranger := must(rsa.GenerateKey(rand.Reader, 2048))
	good := sign(t, jose.RS256, rsaKey(), map[jose.HeaderKey]any{"kid": "r"}, with(nil))
	parts := strings.Split(good, ".")
	payload := string(must(base64.RawURLEncoding.DecodeString(parts[1])))
	public := publicPEM(rsaKey().Public())
	// It has the strangers' keys, and is never asked for them.
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was fetched, which a token names", r.URL)
		_, _ = w.Write([]byte(keySet(map[string]crypto.PublicKey{"r": stranger.Public()})))
	}))
	t.Cleanup(evil.Close)
	hs := func(header, secret string) string {
		text := strings.TrimSuffix(raw(header, payload, nil), ".")
		h := hmac.New(sha256.New, []byte(secret))
		h.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
	}
	jwk := must(json.Marshal(jose.JSONWebKey{Key: stranger.Public(), KeyID: "r"}))
	strange := func(header map[jose.HeaderKey]any) string { return sign(t, jose.RS256, stranger, header, with(nil)) }
	type attack struct{ name, token, reason string }
	attacks := []attack{
		{"alg none", raw(`{"alg":"none"}`, payload, nil), reasonInvalid},
		{"alg None", raw(`{"alg":"None"}`, payload, nil), reasonInvalid},
		{"alg NONE", raw(`{"alg":"NONE"}`, payload, nil), reasonInvalid},
		{"alg nOnE with the signature of another", raw(`{"alg":"nOnE"}`, payload, []byte("x")), reasonInvalid},
		{"alg empty", raw(`{"alg":""}`, payload, nil), reasonInvalid},
		{"alg missing", raw(`{}`, payload, nil), reasonInvalid},
		{"alg null", raw(`{"alg":null}`, payload, nil), reasonInvalid},
		{"alg a list", raw(`{"alg":["RS256"]}`, payload, nil), reasonInvalid},
		{"alg in other case", raw(`{"alg":"rs256"}`, payload, nil), reasonInvalid},
		{"alg twice", raw(`{"alg":"RS256","alg":"none"}`, payload, nil), reasonInvalid},
		{"alg of another case beside", raw(`{"alg":"none","Alg":"RS256"}`, payload, nil), reasonInvalid},
		{"HS256 with the public key as PEM", hs(`{"alg":"HS256","kid":"r"}`, public), reasonInvalid},
		{"HS256 with the modulus", hs(`{"alg":"HS256","kid":"r"}`, string(rsaKey().N.Bytes())), reasonInvalid},
		{"RS512, which is not listed", sign(t, jose.RS512, rsaKey(), map[jose.HeaderKey]any{"kid": "r"}, with(nil)), reasonInvalid},
		{"PS256, which is not listed", sign(t, jose.PS256, rsaKey(), map[jose.HeaderKey]any{"kid": "r"}, with(nil)), reasonInvalid},
		{"a stranger's key under our id", strange(map[jose.HeaderKey]any{"kid": "r"}), reasonInvalid},
		{"a key id that is a path", strange(map[jose.HeaderKey]any{"kid": "../../../dev/null"}), reasonInvalid},
		{"a key id that is SQL", strange(map[jose.HeaderKey]any{"kid": "' OR 1=1 --"}), reasonInvalid},
		{"a key id that is a path, and an empty secret", hs(`{"alg":"HS256","kid":"../../../../dev/null"}`, ""), reasonInvalid},
		{"a key id that is a URL", strange(map[jose.HeaderKey]any{"kid": evil.URL + "/jwks.json"}), reasonInvalid},
		{"a key id that is a command", strange(map[jose.HeaderKey]any{"kid": "r|curl " + evil.URL}), reasonInvalid},
		{"a key id that is a list", raw(`{"alg":"RS256","kid":["r"]}`, payload, []byte("x")), reasonInvalid},
		{"the id of another key of ours", sign(t, jose.RS256, rsaKey(), map[jose.HeaderKey]any{"kid": "e"}, with(nil)), reasonInvalid},
		{"the algorithm of another key of ours", sign(t, jose.ES256, ecKey(), map[jose.HeaderKey]any{"kid": "r"}, with(nil)), reasonInvalid},
		{"jku", strange(map[jose.HeaderKey]any{"jku": evil.URL + "/jwks.json"}), reasonInvalid},
		{"jku and our id", strange(map[jose.HeaderKey]any{"kid": "r", "jku": evil.URL + "/jwks.json"}), reasonInvalid},
		{"x5u", strange(map[jose.HeaderKey]any{"x5u": evil.URL + "/x.pem"}), reasonInvalid},
		{"x5c", strange(map[jose.HeaderKey]any{"x5c": []string{base64.StdEncoding.EncodeToString(selfSignedBy(stranger))}}), reasonInvalid},
		{"jwk", strange(map[jose.HeaderKey]any{"jwk": json.RawMessage(jwk)}), reasonInvalid},
		{"crit", sign(t, jose.RS256, rsaKey(), map[jose.HeaderKey]any{"crit": []string{"mine"}, "mine": 1}, with(nil)), reasonInvalid},
		{"b64 off", sign(t, jose.RS256, rsaKey(), map[jose.HeaderKey]any{"b64": true, "crit": []string{"exp"}, "exp": 1}, with(nil)), reasonInvalid},
		{"another payload", parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(payload, "ann", "eve", 1))) + "." + parts[2], reasonInvalid},
		{"no signature", parts[0] + "." + parts[1] + ".", reasonInvalid},
		{"two parts", parts[0] + "." + parts[1], reasonInvalid},
		{"four parts", good + "." + parts[2], reasonInvalid},
		{"five parts, as if encrypted", good + "." + parts[2] + "." + parts[2], reasonInvalid},
		{"cut in the signature", good[:len(good)-20], reasonInvalid},
		{"cut in the payload", good[:len(parts[0])+10], reasonInvalid},
		{"with padding", parts[0] + "." + parts[1] + "." + parts[2] + "==", reasonInvalid},
		{"as JSON", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, reasonInvalid},
		{"oversized", sign(t, jose.RS256, rsaKey(), nil, with(claims{"x": strings.Repeat("x", longestToken)})), reasonInvalid},
		{"bytes that are no text", "\x80\xff.\x00.\x01", reasonInvalid},
		{"a dot", ".", reasonInvalid},
		{"two dots", "..", reasonInvalid},
	}
	past, future := time.Now().Add(-31*time.Second).Unix(), time.Now().Add(40*time.Second).Unix()
	for name, change := range map[string]struct {
		claims claims
		reason string
	}{
		"expired":                          {claims{"exp": past}, reasonExpired},
		"expired in 1970":                  {claims{"exp": 0}, reasonExpired},
		"expired before":                   {claims{"exp": -1e300}, reasonExpired},
		"never expires":                    {claims{"exp": nil}, reasonInvalid},
		"expires as text":                  {claims{"exp": "9999999999"}, reasonInvalid},
		"expires as null":                  {claims{"exp": json.RawMessage("null")}, reasonInvalid},
		"expires in a number that is none": {claims{"exp": json.RawMessage("1e999")}, reasonInvalid},
		"not yet valid":                    {claims{"nbf": future}, reasonInvalid},
		"issued in the future":             {claims{"iat": future}, reasonInvalid},
		"nbf as text":                      {claims{"nbf": "now"}, reasonInvalid},
		"another audience":                 {claims{"aud": "app2"}, reasonInvalid},
		"an audience that begins so":       {claims{"aud": "app "}, reasonInvalid},
		"other audiences":                  {claims{"aud": []string{"a", "b"}}, reasonInvalid},
		"no audience":                      {claims{"aud": nil}, reasonInvalid},
		"audience as an object":            {claims{"aud": claims{"app": true}}, reasonInvalid},
		"another issuer":                   {claims{"iss": "https://id.example.com/"}, reasonInvalid},
		"no issuer":                        {claims{"iss": nil}, reasonInvalid},
		"no user":                          {claims{"sub": nil}, reasonInvalid},
		"an empty user":                    {claims{"sub": ""}, reasonInvalid},
		"a list of users":                  {claims{"sub": []string{"ann", "bob"}}, reasonInvalid},
	} {
		attacks = append(attacks, attack{name, sign(t, jose.RS256, rsaKey(), map[jose.HeaderKey]any{"kid": "r"}, with(change.claims)), change.reason})
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			f := bearer(a.token)
			d := refuse(t, c, f, nil, a.reason, "id: ")
			if d.Status != 401 || !strings.HasPrefix(d.Header.Get("Www-Authenticate"), "Bearer ") {
				t.Errorf("answered %d, %v", d.Status, d.Header)
			}
			if long := a.token[len(a.token)/2:]; len(long) > 8 && strings.Contains(d.Error()+string(d.Body)+sprint(d.Header), long) {
				t.Errorf("the token shows: %v", d)
			}
			if f.User != "" || f.Claims != nil {
				t.Errorf("it is known: %q %v", f.User, f.Claims)
			}
		})
	}
}

// A payload that a key of ours has signed, and that is no object.
func TestTokensOfOtherThings(t *testing.T) {
	t.Parallel()
	c := reader(t, nil)
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: edKey()}, nil))
	for _, payload := range []string{"", "null", "[]", "1", `"ann"`, "{", `{"sub":"ann"} {}`} {
		signed := must(signer.Sign([]byte(payload)))
		refuse(t, c, bearer(must(signed.CompactSerialize())), nil, reasonInvalid, "")
	}
}

func TestSharedSecrets(t *testing.T) {
	t.Parallel()
	first, second := strings.Repeat("a", 32), strings.Repeat("b", 32)
	o := DefaultJWT()
	o.Secret = []unit.Secret{unit.Secret(first), unit.Secret(second)}
	c := only(t, Options{JWT: &o})
	for _, secret := range []string{first, second} {
		admit(t, c, bearer(sign(t, jose.HS256, []byte(secret), map[jose.HeaderKey]any{"kid": "any"}, with(nil))))
	}
	refuse(t, c, bearer(sign(t, jose.HS256, []byte(strings.Repeat("c", 32)), nil, with(nil))), nil, reasonInvalid, "no key of ours")
	refuse(t, c, bearer(sign(t, jose.HS512, []byte(strings.Repeat("a", 64)), nil, with(nil))), nil, reasonInvalid, "HS512")
	refuse(t, c, bearer(sign(t, jose.RS256, rsaKey(), nil, with(nil))), nil, reasonInvalid, "RS256")
	for _, id := range []string{"../../../../dev/null", "' UNION SELECT ''; --", ""} { // with the secret that the attacker hopes for
		text := strings.TrimSuffix(raw(`{"alg":"HS256","kid":"`+id+`"}`, string(must(json.Marshal(with(nil)))), nil), ".")
		h := hmac.New(sha256.New, nil)
		h.Write([]byte(text))
		refuse(t, c, bearer(text+"."+base64.RawURLEncoding.EncodeToString(h.Sum(nil))), nil, reasonInvalid, "no key of ours")
	}
}

func TestClaimsAndScopesThatATokenNeeds(t *testing.T) {
	t.Parallel()
	c := reader(t, func(o *JWT) {
		o.Scopes, o.Require = []string{"chat", "push"}, map[string][]string{"azp": {"web", "app"}}
	})
	token := func(c claims) *policy.Facts { return bearer(sign(t, jose.EdDSA, edKey(), nil, with(c))) }
	for _, good := range []claims{
		{"azp": "web", "scope": "x chat push"}, {"azp": []string{"x", "app"}, "scp": []string{"push", "chat"}}, {"azp": "app", "scope": "chat", "scp": "push"},
	} {
		admit(t, c, token(good))
	}
	for _, bad := range []claims{
		{"azp": "web", "scope": "chat"}, {"azp": "web", "scope": "chatpush"}, {"azp": "web", "scope": "chat,push"}, {"scope": "chat push"},
		{"azp": "Web", "scope": "chat push"}, {"azp": "web,app", "scope": "chat push"}, {"azp": "web"},
	} {
		if d := refuse(t, c, token(bad), nil, reasonForbidden, "id: "); d.Status != 403 {
			t.Errorf("%v: answered %d", bad, d.Status)
		}
	}
}

func TestKeysAreOfTheKindThatTheAlgorithmNeeds(t *testing.T) {
	t.Parallel()
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	o := DefaultJWT()
	o.Algorithms = []string{"ES256", "ES384", "PS256"}
	o.KeyFiles = []string{write(t, "a.pem", publicPEM(ecKey().Public())+publicPEM(p384.Public())), write(t, "b.pem", publicPEM(rsaKey().Public()))}
	c := only(t, Options{JWT: &o})
	admit(t, c, bearer(sign(t, jose.ES256, ecKey(), nil, with(nil))))
	admit(t, c, bearer(sign(t, jose.ES384, p384, nil, with(nil))))
	admit(t, c, bearer(sign(t, jose.PS256, rsaKey(), nil, with(nil))))
	for _, test := range []struct {
		k         key
		algorithm string
		want      bool
	}{
		{key{key: []byte("x")}, "HS256", true}, {key{key: []byte("x")}, "RS256", false}, {key{key: rsaKey().Public()}, "HS256", false},
		{key{key: rsaKey().Public()}, "RS384", true}, {key{key: rsaKey().Public()}, "EdDSA", false}, {key{key: ecKey().Public()}, "ES256", true},
		{key{key: ecKey().Public()}, "ES384", false}, {key{key: edKey().Public()}, "EdDSA", true}, {key{key: edKey().Public()}, "ES256", false},
		{key{key: rsaKey().Public(), algorithm: "RS256"}, "RS256", true}, {key{key: rsaKey().Public(), algorithm: "RS256"}, "PS256", false},
		{key{key: rsaKey()}, "RS256", false}, {key{}, "none", false}, {key{key: ecKey().Public()}, "", false},
	} {
		if got := test.k.fits("", test.algorithm); got != test.want {
			t.Errorf("%T of %q for %s: %v, want %v", test.k.key, test.k.algorithm, test.algorithm, got, test.want)
		}
	}
}

func TestKeyFilesThatCannotBe(t *testing.T) {
	t.Parallel()
	weak := must(rsa.GenerateKey(rand.Reader, 1024))
	for name, c := range map[string]struct{ content, want string }{
		"nothing":        {"", "there is no key in it"},
		"text":           {"hello", "there is no key in it"},
		"private":        {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds a private key"},
		"other PEM":      {"-----BEGIN X-----\nAAAA\n-----END X-----\n", "holds a X"},
		"weak":           {publicPEM(weak.Public()), "1024 bits"},
		"no set":         {"{", "no JSON Web Key Set"},
		"empty set":      {`{"keys":[]}`, "of its 0 keys none"},
		"secrets":        {`{"keys":[{"kty":"oct","k":"AAAA"}]}`, "of its 1 keys none"},
		"for encryption": {strings.Replace(keySet(map[string]crypto.PublicKey{"r": rsaKey().Public()}), `"sig"`, `"enc"`, 1), "none is a public key"},
	} {
		o := DefaultJWT()
		o.KeyFiles = []string{write(t, "keys", c.content)}
		_, err := NewSet(map[string]Options{"id": {JWT: &o}}, nil, Setup{Log: new(book).logger()})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "authenticator id: key_files: ") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	mixed := `{"keys":[{"kty":"new"},{"kty":"oct","k":"AAAA"},5,` + strings.TrimPrefix(keySet(map[string]crypto.PublicKey{"d": edKey().Public()}), `{"keys":[`)
	if keys, err := parseKeySet([]byte(mixed)); err != nil || len(keys) != 1 || keys[0].id != "d" {
		t.Errorf("%v, %v: want the one key that is understood", keys, err)
	}
}

func FuzzTokens(f *testing.F) {
	c := reader(f, nil)
	f.Add(sign(f, jose.EdDSA, edKey(), nil, with(claims{"exp": 1})))
	f.Add(raw(`{"alg":"none"}`, `{"sub":"ann"}`, nil))
	f.Add(raw(`{"alg":"EdDSA","kid":"d"}`, `{}`, []byte("x")))
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := c.Admit(t.Context(), bearer(token), nil); id != nil || err == nil {
			t.Errorf("%q is let in as %+v", token, id)
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add(publicPEM(ecKey().Public()))
	f.Add(keySet(map[string]crypto.PublicKey{"r": rsaKey().Public(), "d": edKey().Public()}))
	f.Fuzz(func(t *testing.T, data string) {
		keys, err := parseKeys([]byte(data))
		if err == nil && len(keys) == 0 {
			t.Error("no keys and no error")
		}
		for _, k := range keys {
			if strong(k.key) != nil {
				t.Errorf("a %T is no public key", k.key)
			}
		}
	})
}
