package auth

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

// both are two authenticators: keys in a header, and links.
func both(t testing.TB, use Use, require Requirement) (*Checker, *SignedURL) {
	t.Helper()
	keys := DefaultAPIKey()
	keys.File = write(t, "keys.txt", "ann sha256:"+hashKey("good")+" plan=pro team=red\n")
	links := DefaultSignedURL()
	links.Secret = []unit.Secret{unit.Secret(strings.Repeat("n", 32))}
	return checker(t, use, require, map[string]Options{"keys": {APIKey: &keys, ForwardClaims: []string{"plan"}}, "links": {SignedURL: &links, ForwardClaims: []string{"room"}}}), &links
}

func TestOneOfSeveral(t *testing.T) {
	t.Parallel()
	c, links := both(t, Use{Any: []string{"keys", "links"}}, nil)
	link := must(links.Sign(must(url.Parse("/ws?room=5")), "bob", time.Now().Add(time.Hour))).RequestURI()
	f := facts(link)
	if admit(t, c, f); f.User != "bob" {
		t.Errorf("user %q", f.User)
	}
	f = bearer("good")
	if admit(t, c, f); f.User != "ann" {
		t.Errorf("user %q", f.User)
	}
	f = facts(link, "Authorization: Bearer good") // the first in the list counts, and the tokens of all are taken out
	if admit(t, c, f); f.User != "ann" || f.Request.URL.RawQuery != "room=5&user=bob" {
		t.Errorf("user %q, left %q", f.User, f.Request.URL.RawQuery)
	}
	f = facts(link, "Authorization: Bearer wrong")
	if admit(t, c, f); f.User != "bob" {
		t.Errorf("user %q", f.User)
	}
	refuse(t, c, facts(link+"x"), nil, reasonInvalid, "links: the link is not signed")
	refuse(t, c, facts("/ws", "Authorization: Bearer wrong"), nil, reasonInvalid, "keys: the key")
	refuse(t, c, facts("/ws"), nil, reasonMissing, "keys: there is no token")
	refuse(t, c, facts(link, "Authorization: Bearer a", "X-Api-Key: b"), nil, reasonAmbiguous, "keys: ")
}

func TestAllOfSeveral(t *testing.T) {
	t.Parallel()
	c, links := both(t, Use{All: []string{"links", "keys"}}, Requirement{"claim.plan": {"pro"}, "user": {"bob"}})
	link := must(links.Sign(must(url.Parse("/ws?room=5&plan=mine")), "bob", time.Now().Add(time.Hour))).RequestURI()
	refuse(t, c, facts(link), nil, reasonMissing, "keys: ")
	refuse(t, c, bearer("good"), nil, reasonMissing, "links: ")
	refuse(t, c, facts(link, "Authorization: Bearer good"), nil, reasonForbidden, `claim.plan is ["mine"]`) // of two the first counts
	link = must(links.Sign(must(url.Parse("/ws?room=5")), "bob", time.Now().Add(time.Hour))).RequestURI()
	f := facts(link, "Authorization: Bearer good")
	id := admit(t, c, f)
	if f.User != "bob" || f.Told["plan"] != "pro" || f.Told["room"] != "5" || !strings.Contains(id.Proof, "links: ") || !strings.Contains(id.Proof, "keys: ") {
		t.Errorf("user %q, told %v, %q", f.User, f.Told, id.Proof)
	}
}

func TestWhatARouteRequires(t *testing.T) {
	t.Parallel()
	known := &policy.Facts{Request: facts("/ws").Request, User: "ann", Claims: policy.Claims{
		"tenant": "acme", "roles": []any{"dev", "ops"}, "list": "a,b", "empty": "", "object": map[string]any{"a": "b"},
	}}
	known.Request.SetPathValue("tenant", "acme")
	known.Request.SetPathValue("other", "globex")
	known.Request.SetPathValue("none", "")
	for _, test := range []struct {
		name  string
		texts []string
		want  bool
	}{
		{"claim.tenant", []string{"acme"}, true}, {"claim.tenant", []string{"globex"}, false}, {"claim.tenant", []string{"globex", "acme"}, true},
		{"claim.tenant", []string{"{tenant}"}, true}, {"claim.tenant", []string{"{other}"}, false}, {"claim.tenant", []string{"{none}"}, false},
		{"claim.tenant", []string{"ACME"}, false}, {"claim.tenant", []string{"acme "}, false},
		{"claim.roles", []string{"ops"}, true}, {"claim.roles", []string{"dev,ops"}, false}, {"claim.list", []string{"a"}, false}, {"claim.list", []string{"a,b"}, true},
		{"claim.empty", []string{"{none}"}, false}, {"claim.empty", []string{""}, false}, {"claim.missing", []string{""}, false}, {"claim.object.a", []string{"b"}, true},
		{"user", []string{"ann"}, true}, {"user", []string{"{tenant}", "bob"}, false}, {"claim.tenant", []string{"{header.x-tenant}"}, false},
	} {
		demands := must(newDemands(Requirement{test.name: test.texts}))
		if err := demands[0].meets(known); (err == nil) != test.want {
			t.Errorf("%s of %q: %v", test.name, test.texts, err)
		}
	}
	nobody := &policy.Facts{Request: known.Request}
	if must(newDemands(Requirement{"user": {"{none}"}}))[0].meets(nobody) == nil {
		t.Error("an empty user meets an empty capture")
	}
}

func TestMistakesInOptions(t *testing.T) {
	t.Parallel()
	for want, validate := range map[string]func(yamlpos.Path, *yamlpos.Problems){
		"auth: has both any and all":                      (&Use{Any: []string{"a"}, All: []string{"b"}}).Validate,
		"auth: names nobody":                              (&Use{Any: []string{}}).Validate,
		"auth.any[1]: none lets everybody in":             (&Use{Any: []string{"a", "none"}}).Validate,
		`auth["claim.x"]: allows no value`:                Requirement{"claim.x": nil}.Validate,
		`auth["header.x"]: "header.x" is nothing to`:      Requirement{"header.x": {"a"}}.Validate,
		`auth.user[0]: "{a": a { is not closed`:           Requirement{"user": {"{a"}}.Validate,
		"auth: knows nobody: give it one of jwt, forward": (&Options{OnExpiry: "close", CloseCode: 4401}).Validate,
		"auth.close_code: 1000: write 1008":               (&Options{MTLS: &MTLS{"cn"}, OnExpiry: "close", CloseCode: 1000}).Validate,
		"auth.on_expiry: must be close or keep":           (&Options{MTLS: &MTLS{"cn"}, OnExpiry: "stay", CloseCode: 1008}).Validate,
		"auth.mtls: stands beside basic":                  (&Options{MTLS: &MTLS{"cn"}, Basic: &Basic{File: "x"}, OnExpiry: "close", CloseCode: 1008}).Validate,
		"auth.secret[0]: has 5 characters":                (&JWT{Secret: []unit.Secret{"short"}, User: "sub", Token: []string{"header.a"}, Refresh: time.Hour, Timeout: 1}).Validate,
		"auth.secret[0]: is a PEM key":                    (&JWT{Secret: []unit.Secret{"-----BEGIN PUBLIC KEY-----"}, User: "sub", Token: []string{"header.a"}, Refresh: time.Hour, Timeout: 1}).Validate,
		"auth.secret: is missing":                         (&SignedURL{Expires: "e", Signature: "s", User: "u"}).Validate,
		`auth.user: "e" is expires already`:               (&SignedURL{Secret: []unit.Secret{unit.Secret(strings.Repeat("x", 32))}, Expires: "e", Signature: "s", User: "e"}).Validate,
		`auth.url: "ws://x" is no URL`:                    (&Forward{URL: "ws://x", Timeout: 1, InFlight: 1}).Validate,
		"auth.headers[0]: Connection belongs to":          (&Forward{URL: "http://x", Headers: []string{"Connection"}, Timeout: 1, InFlight: 1}).Validate,
		"auth.cache: must lie between":                    (&Forward{URL: "http://x", Cache: time.Hour, Timeout: 1, InFlight: 1}).Validate,
	} {
		doc := must(yamlpos.Parse("x.yaml", []byte("a: 1")))
		p := doc.Problems()
		validate(yamlpos.Path{"auth"}, p)
		if p.Len() != 1 || !strings.Contains(p.Error(), want) {
			t.Errorf("%v\nwant %s", p.Error(), want)
		}
	}
	for _, name := range []string{"", "none", "a b", "1a", "a.b", "a/b"} {
		if CheckName(name) == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
}

func TestUseIsReadAndWritten(t *testing.T) {
	t.Parallel()
	for text, names := range map[string][]string{"none": nil, "id": {"id"}} {
		var u Use
		if err := u.UnmarshalText([]byte(text)); err != nil || !slices.Equal(u.Names(), names) || u.String() != text {
			t.Errorf("%s: %+v, %v", text, u, err)
		}
	}
	if u := (Use{Any: []string{"a", "b"}}); u.String() != "any of a, b" || u.IsNone() {
		t.Errorf("%s", u)
	}
	if u := (Use{All: []string{"a", "b"}}); u.String() != "a and b" {
		t.Errorf("%s", u)
	}
}

// A reload keeps what is as it was, with all that it knows, and ends what is not.
func TestAuthenticatorsOutliveAReload(t *testing.T) {
	t.Parallel()
	first, second := newOracle(t, yes), newOracle(t, yes)
	forward := func(o *oracle) Options {
		f := DefaultForward()
		f.URL, f.Cache = o.URL, time.Minute
		return Options{Forward: &f, OnExpiry: "close", CloseCode: 4401}
	}
	with := Setup{Log: new(book).logger()}
	was := must(NewSet(map[string]Options{"same": forward(first), "other": forward(second)}, nil, with))
	same := must(was.Checker(Use{Any: []string{"same"}}, nil))
	admit(t, same, facts("/"))
	next := must(NewSet(map[string]Options{"same": forward(first), "other": forward(first)}, was, with))
	t.Cleanup(func() { next.Release(nil) })
	was.Release(next)
	admit(t, must(next.Checker(Use{Any: []string{"same"}}, nil)), facts("/"))
	if n := first.asked.Load(); n != 1 {
		t.Errorf("asked %d times: what was remembered is lost", n)
	}
	old := must(was.Checker(Use{Any: []string{"other"}}, nil))
	if d := refuse(t, old, facts("/"), nil, reasonEndpoint, "replaced by a reload"); d.Status != http.StatusServiceUnavailable {
		t.Errorf("answered %d", d.Status)
	}
	broken := forward(first)
	broken.Forward.CA = "gone.pem"
	if _, err := NewSet(map[string]Options{"same": forward(first), "x": broken}, next, with); err == nil {
		t.Error("an authority that is not there was read")
	}
	admit(t, must(next.Checker(Use{Any: []string{"same"}}, nil)), facts("/")) // the failure has ended nothing
	if _, err := next.Checker(Use{Any: []string{"nobody"}}, nil); err == nil {
		t.Error("an authenticator that is not there is asked")
	}
}

// Explanations ask nobody.
func TestStillAuthenticatorsAskNobody(t *testing.T) {
	t.Parallel()
	o := newOracle(t, func(http.ResponseWriter, *http.Request) { t.Error("it was asked") })
	f, j := DefaultForward(), DefaultJWT()
	f.URL, j.JWKSURL, j.Audience = o.URL, o.URL, []string{"app"}
	set := must(NewSet(map[string]Options{"f": {Forward: &f}, "j": {JWT: &j}}, nil, Setup{Log: new(book).logger(), Still: true}))
	explain := func(name string, f *policy.Facts) (*Identity, error) {
		return must(set.Checker(Use{Any: []string{name}}, Requirement{"user": {"ann"}})).Admit(t.Context(), f, nil)
	}
	if _, err := explain("f", facts("/ws")); !isUnasked(err) {
		t.Errorf("%v", err)
	}
	if id, err := explain("j", bearer(raw(`{"alg":"ES256"}`, `{"sub":"ann","aud":"app","exp":9999999999}`, []byte("x")))); !isUnasked(err) || id.User != "ann" {
		t.Errorf("%+v, %v", id, err)
	}
	for _, bad := range []string{`{"sub":"bob","aud":"app","exp":9999999999}`, `{"sub":"ann","aud":"x","exp":9999999999}`, `{"sub":"ann","aud":"app","exp":1}`} {
		if _, err := explain("j", bearer(raw(`{"alg":"ES256"}`, bad, []byte("x")))); err == nil || isUnasked(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func isUnasked(err error) bool {
	_, ok := errors.AsType[*Unasked](err)
	return ok
}
