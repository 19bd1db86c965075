package policy

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func claimsOf(t testing.TB, text string) Claims {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var c Claims
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClaims(t *testing.T) {
	t.Parallel()
	c := claimsOf(t, `{"sub": "ann", "id": 12345678901234567890, "vip": true, "none": null, "empty": "", "roles": ["a", 1, ["b"], {}],
		"realm_access": {"roles": ["x", "y"], "a.b": {"c": "deep"}}, "realm_access.plan": "outer", "https://example.com/team": "red", "object": {}}`)
	for name, want := range map[string][]string{
		"sub": {"ann"}, "id": {"12345678901234567890"}, "vip": {"true"}, "none": nil, "empty": {""}, "roles": {"a", "1"},
		"realm_access.roles": {"x", "y"}, "realm_access.a.b.c": {"deep"}, "realm_access.plan": {"outer"},
		"https://example.com/team": {"red"}, "object": nil, "missing": nil, "sub.x": nil, "": nil, ".": nil, "realm_access.": nil,
	} {
		if got := c.Texts(name); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got, err := json.Marshal(c.Pick("id", "realm_access.roles", "missing")); err != nil ||
		string(got) != `{"id":12345678901234567890,"realm_access.roles":["x","y"]}` {
		t.Errorf("picked %s, %v", got, err)
	}
	if got := Claims(nil).Pick("a"); got != nil || Claims(nil).Texts("a") != nil {
		t.Errorf("of nothing: %v", got)
	}
}

// Rules of user and claims have their turn when the client is known, and then all or none.
func TestWhoTheClientIsCountsLater(t *testing.T) {
	t.Parallel()
	l := limiter(t, NewStore(100), Rule{Per: []string{"client.ip"}, Connections: 5}, Rule{Per: []string{"user"}, Connections: 1}, Rule{Per: []string{"claim.team"}, Connections: 2})
	l.Apply()
	ann, bob := from("192.0.2.1"), from("192.0.2.1")
	for f, user := range map[*Facts]string{ann: "ann", bob: "bob"} {
		f.User, f.Claims = user, Claims{"team": "red"}
	}
	first := admit(t, l, ann)
	refuse(t, l, ann, "connections")
	second := admit(t, l, bob) // the refusal counted nothing for the team
	refuse(t, l, bob, "connections")
	first.Release()
	first = admit(t, l, ann)
	second.Release()
	first.Release()
	admit(t, l, bob) // nothing is held any more, neither of the user nor of the team
	admit(t, l, ann)
}

func TestWhoseCookiesCount(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		allow  []string
		origin []string
		want   string // part of the error; "" if the visitor's cookies count
	}{
		{nil, []string{"https://a.example.com"}, ""},
		{nil, nil, "no Origin"},
		{nil, []string{"https://b.example.com"}, "not allowed"},
		{nil, []string{"https://a.example.com", "https://a.example.com"}, "2 Origin headers"},
		{[]string{"*"}, []string{"https://b.example.com"}, "list it under origins"},
		{[]string{"*", "https://b.example.com"}, []string{"https://b.example.com"}, ""},
		{[]string{"*"}, []string{"null"}, "list it under origins"},
		{[]string{"null"}, []string{"null"}, "list it under origins"},
		{[]string{"https://*.example.com"}, []string{"https://b.example.com"}, ""},
		{[]string{"*", "self"}, []string{"https://a.example.com"}, ""},
		{[]string{"*", "self"}, []string{"HTTPS://A.Example.COM"}, ""},
		{[]string{"*", "self"}, []string{"https://a.example.com."}, "list it under origins"},
		{[]string{"*", "self"}, []string{"https://a.example.com:8443"}, "list it under origins"},
		{[]string{"*", "self"}, []string{"https://a.example.com.evil.example"}, "list it under origins"},
		{[]string{"*", "self"}, []string{"https://evila.example.com"}, "list it under origins"},
		{[]string{"*", "self"}, []string{"https://a.example.com@evil.example"}, "list it under origins"},
		{[]string{"*", "self"}, []string{"https://user@a.example.com"}, "list it under origins"},
		{[]string{"*", "self"}, []string{"https://a.еxample.com"}, "list it under origins"}, // a letter of another script
		{[]string{"*", "self"}, []string{"https://xn--a-hxb.example.com"}, "list it under origins"},
		{[]string{"*", "https://*.example.com"}, []string{"https://evilexample.com"}, "list it under origins"},
		{[]string{"*", "https://*.example.com"}, []string{"https://b.example.com."}, "list it under origins"},
	} {
		o, err := NewOrigins(test.allow, false, true)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := o.Vouch(&http.Request{Host: "a.example.com", Header: http.Header{"Origin": test.origin}}); err != nil {
			got = err.Error()
		}
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%v, origin %v: %q, want %q", test.allow, test.origin, got, test.want)
		}
	}
}
