package policy

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// facts are those of a handshake that has every value.
func facts() *Facts {
	r := httptest.NewRequest("GET", "http://Chat.Example.com.:8443/rooms/a?token=q1&token=q2&empty=", nil)
	r.SetPathValue("room", "a/b")
	r.SetPathValue("rest", "")
	r.Header = http.Header{"X-Tenant": {"acme"}, "X-Two": {"a", "b"}, "X-Empty": {""}, "Cookie": {"sid=c1; sid=c2"}}
	return &Facts{
		Request: r, ConnID: "c_1", Client: netip.MustParseAddr("::ffff:192.0.2.7"), User: "ann",
		Claims: Claims{"tenant": "t1", "https://example.com/role": "boss"}, Subprotocols: []string{"bearer", "tok.en", "chat"},
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	tests := []struct{ value, want string }{ // "" is missing
		{"client.ip", "192.0.2.7"},
		{"user", "ann"},
		{"host", "chat.example.com"},
		{"conn.id", "c_1"},
		{"claim.tenant", "t1"},
		{"claim.https://example.com/role", "boss"},
		{"claim.none", ""},
		{"header.x-tenant", "acme"},
		{"header.X-Tenant", "acme"},
		{"header.x-two", "a, b"},
		{"header.x-empty", ""},
		{"header.x-none", ""},
		{"cookie.sid", "c1"},
		{"cookie.none", ""},
		{"query.token", "q1"},
		{"query.empty", ""},
		{"query.none", ""},
		{"subprotocol.bearer", "tok.en"},
		{"subprotocol.chat", ""}, // nothing follows it
		{"subprotocol.none", ""},
		{"room", "a/b"},
		{"rest", ""},
		{"nowhere", ""},
		{"header", ""}, // a capture
	}
	for _, tt := range tests {
		v, err := ParseValue(tt.value)
		if err != nil {
			t.Errorf("%s: %v", tt.value, err)
			continue
		}
		got, ok := v.Of(facts())
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s is %q, %t; want %q", tt.value, got, ok, tt.want)
		}
		if v.String() != tt.value {
			t.Errorf("%s prints as %s", tt.value, v)
		}
		if isCapture := !strings.Contains(tt.value, ".") && tt.value != "user" && tt.value != "host"; (v.Capture() == tt.value) != isCapture {
			t.Errorf("%s: capture %q", tt.value, v.Capture())
		}
	}
	if got, ok := (Value{}).Of(facts()); ok {
		t.Errorf("the zero Value is %q", got)
	}
}

func TestMissingFacts(t *testing.T) {
	t.Parallel()
	f := &Facts{Request: httptest.NewRequest("GET", "/", nil)}
	for _, s := range []string{"client.ip", "user", "conn.id", "claim.x", "subprotocol.x"} {
		v, _ := ParseValue(s)
		if got, ok := v.Of(f); ok {
			t.Errorf("%s is %q, want it to be missing", s, got)
		}
	}
}

func TestParseValueRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ value, want string }{
		{"", "there are client.ip, user, host, conn.id, cert.NAME, claim.NAME, header.NAME, cookie.NAME, query.NAME, subprotocol.NAME, proxy.NAME and the captures"},
		{"client.port", "is unknown: there are client.ip"},
		{"clientip ", "is unknown"},
		{"user.name", "is unknown"},
		{"a-b", "is unknown"},
		{"1a", "is unknown"},
		{"rest...", "is unknown"},
		{"header.", "cannot be the name of a header"},
		{"header.a b", "cannot be the name of a header"},
		{"cookie.a;b", "cannot be the name of a cookie"},
		{"query.a{b", "cannot be the name of a query"},
		{"header.Host", "write host"},
	}
	for _, tt := range tests {
		if v, err := ParseValue(tt.value); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, %v; want an error with %q", tt.value, v, err, tt.want)
		}
	}
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	upper := func(s string) string { return "<" + s + ">" }
	tests := []struct {
		template string
		escape   func(string) string
		want     string
	}{
		{"", nil, ""},
		{"plain", upper, "plain"},
		{"{user}", nil, "ann"},
		{"a/{user}/{room}?", upper, "a/<ann>/<a/b>?"},
		{"{user}{user}", nil, "annann"},
		{"{{user}", nil, "{user}"},
		{`{{"u":"{user}"}`, nil, `{"u":"ann"}`},
		{"{{{user}}", nil, "{ann}"},
		{"}", nil, "}"},
		{"{claim.https://example.com/role}", nil, "boss"},
		{"f/{rest}", nil, "f/"},
	}
	for _, tt := range tests {
		tmpl, err := ParseTemplate(tt.template)
		if err != nil {
			t.Errorf("%q: %v", tt.template, err)
			continue
		}
		if got, err := tmpl.Expand(facts(), tt.escape); got != tt.want || err != nil {
			t.Errorf("%q expands to %q, %v; want %q", tt.template, got, err, tt.want)
		}
	}
}

func TestTemplateErrors(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		"a{user":  "not closed; write {{ for a brace",
		"{":       "not closed",
		"{}":      "is unknown",
		"{ user}": "is unknown",
		"{a.b}":   `"{a.b}": value "a.b" is unknown`,
	} {
		if _, err := ParseTemplate(template); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", template, err, want)
		}
	}
	tmpl, _ := ParseTemplate("x-{cookie.none}")
	if _, err := tmpl.Expand(facts(), nil); err == nil || err.Error() != "value cookie.none is missing in this handshake" {
		t.Errorf("a missing value: %v", err)
	}
}

func TestTemplateTellsOfItself(t *testing.T) {
	t.Parallel()
	tmpl, _ := ParseTemplate("{room}/{user}/{tenant}")
	if got, want := tmpl.Captures(), []string{"room", "tenant"}; !slices.Equal(got, want) {
		t.Errorf("captures %q, want %q", got, want)
	}
	if s, ok := tmpl.Literal(); ok {
		t.Errorf("literal %q, want none", s)
	}
	for template, want := range map[string]string{"": "", "a": "a", "{{a}": "{a}"} {
		tmpl, _ := ParseTemplate(template)
		if s, ok := tmpl.Literal(); s != want || !ok {
			t.Errorf("%q: literal %q, %t; want %q", template, s, ok, want)
		}
	}
	if s, ok := (Template{}).Literal(); s != "" || !ok {
		t.Errorf("the zero Template: literal %q, %t", s, ok)
	}
}

// A template with all its braces doubled is its own literal; any other expands or says why not.
func FuzzTemplate(f *testing.F) {
	f.Add("a{user}b{{c}{claim.x}")
	f.Fuzz(func(t *testing.T, s string) {
		tmpl, err := ParseTemplate(strings.ReplaceAll(s, "{", "{{"))
		if literal, ok := tmpl.Literal(); err != nil || !ok || literal != s {
			t.Errorf("%q doubled: %q, %t, %v", s, literal, ok, err)
		}
		if tmpl, err := ParseTemplate(s); err == nil {
			tmpl.Expand(facts(), nil)
		}
	})
}
