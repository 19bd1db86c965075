package admin

import (
	"strings"
	"testing"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

func token(name, secret string, may ...string) Token {
	return Token{Name: name, Token: unit.Secret(secret), May: may}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	good := []Token{token("php", "secret", "push")}
	for name, test := range map[string]struct {
		address string
		tokens  []Token
		want    string // "" is no problem
	}{
		"loopback":          {"127.0.0.1:9900", nil, ""},
		"loopback IPv6":     {"[::1]:9900", nil, ""},
		"loopback mapped":   {"[::ffff:127.0.0.1]:9900", nil, ""},
		"localhost":         {"localhost:9900", nil, ""},
		"unix":              {"unix:/run/admin.sock", nil, ""},
		"remote":            {"10.0.0.5:9901", good, ""},
		"everywhere":        {":9901", good, ""},
		"several":           {":9901", []Token{token("a", "x", "push", "read"), token("b", "y", "admin"), token("c", "z", "close")}, ""},
		"remote, open":      {"10.0.0.5:9901", nil, `s.address: other machines reach "10.0.0.5:9901": give tokens`},
		"everywhere, open":  {":9901", nil, "s.address: other machines reach"},
		"unspecified, open": {"0.0.0.0:9901", nil, "s.address: other machines reach"},
		"named, open":       {"gateway:9901", nil, "s.address: other machines reach"},
		"no port":           {"127.0.0.1", nil, `s.address: "127.0.0.1" is no address: write host:port or unix:/path`},
		"long path":         {"unix:/" + strings.Repeat("x", 104), nil, "s.address: "},
		"no name":           {":9901", []Token{token("", "x", "push")}, "s.tokens[0].name: is missing"},
		"no secret":         {":9901", []Token{token("a", "", "push")}, "s.tokens[0].token: is missing"},
		"secret with space": {":9901", []Token{token("a", "x y", "push")}, "s.tokens[0].token: must be printable ASCII"},
		"no role":           {":9901", []Token{token("a", "x")}, "s.tokens[0].may: is missing: list what the token may do, of push, read, close, admin"},
		"unknown role":      {":9901", []Token{token("a", "x", "psuh")}, `s.tokens[0].may[0]: must be push, read, close or admin, not "psuh"`},
		"role twice":        {":9901", []Token{token("a", "x", "push", "push")}, `s.tokens[0].may[1]: "push" stands twice`},
		"name twice":        {":9901", []Token{token("a", "x", "push"), token("a", "y", "push")}, `s.tokens[1].name: "a" is the name of`},
		"secret twice":      {":9901", []Token{token("a", "x", "push"), token("b", "x", "push")}, `s.tokens[1].token: is the secret of "a" too`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := yamlpos.Path{}.Key("s")
			var admin, push yamlpos.Problems
			(&Options{Address: test.address, Tokens: test.tokens}).Validate(at, &admin)
			(&PushOptions{Address: test.address, Tokens: test.tokens}).Validate(at, &push)
			for section, p := range map[string]*yamlpos.Problems{"admin": &admin, "push": &push} {
				got := p.Error()
				if test.want == "" && got != "" || test.want != "" && (p.Len() != 1 || !strings.HasPrefix(got, test.want)) {
					t.Errorf("%s: got %q, want %q", section, got, test.want)
				}
				if test.tokens != nil && strings.Contains(got, "x y") {
					t.Errorf("%s: the problem shows a secret: %s", section, got)
				}
			}
		})
	}
}

func TestValidatePush(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ address, url, want string }{
		"no URL":          {"127.0.0.1:9901", "", ""},
		"URL":             {"127.0.0.1:9901", "https://push.example.com/", ""},
		"no address":      {"", "", "push.address: is missing"},
		"URL of a socket": {"127.0.0.1:9901", "unix:/run/push.sock", `push.url: "unix:/run/push.sock" is no URL of a listener`},
		"URL no URL":      {"127.0.0.1:9901", "10.0.0.5:9901", "push.url: "},
		"URL of no host":  {"127.0.0.1:9901", "http:///v1", "push.url: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p yamlpos.Problems
			(&PushOptions{Address: test.address, URL: test.url}).Validate(yamlpos.Path{}.Key("push"), &p)
			if got := p.Error(); !strings.HasPrefix(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	t.Run("the admin listener needs no address", func(t *testing.T) {
		t.Parallel()
		var p yamlpos.Problems
		new(Options).Validate(nil, &p)
		if err := p.Err(); err != nil {
			t.Error(err)
		}
	})
}
