package admin

import (
	"net/url"
	"slices"
	"strings"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

// Options are the section `admin`: the listener for operators, with health, metrics and every call of the API.
type Options struct {
	// Where to listen: `host:port`, or `unix:/path`. Default: the Unix socket `admin.sock` in `state`.
	Address string `yaml:"address"`
	// Who may call. Without tokens only clients on this machine may, and never a web page.
	Tokens []Token `yaml:"tokens"`
}

// PushOptions are the section `push`: a listener for applications that send to sockets.
type PushOptions struct {
	// Where to listen: `host:port`, or `unix:/path`.
	Address string `yaml:"address"`
	// The URL of this listener as applications reach it, told to them as `push_url`. Default: made from the address.
	URL string `yaml:"url"`
	// Who may call. Without tokens only clients on this machine may, and never a web page.
	Tokens []Token `yaml:"tokens"`
}

// A Token lets its bearer call the API.
type Token struct {
	// A name for the log.
	Name string `yaml:"name"`
	// The secret, sent as `Authorization: Bearer …`.
	Token unit.Secret `yaml:"token"`
	// What it may do: `push` (send to sockets), `read` (list them), `close` (end them), `admin` (everything).
	May []string `yaml:"may"`
}

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if o.Address != "" { // else it is a unix socket
		validateAddress(at.Key("address"), p, o.Address, o.Tokens)
	}
	validateTokens(at.Key("tokens"), p, o.Tokens)
}

// Validate reports what cannot work. It looks and never acts.
func (o *PushOptions) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if o.Address == "" {
		p.Add(at.Key("address"), "is missing: write host:port or unix:/path")
	} else {
		validateAddress(at.Key("address"), p, o.Address, o.Tokens)
	}
	if o.URL != "" {
		u, err := url.Parse(o.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			p.Add(at.Key("url"), "%q is no URL of a listener: write it as http://10.0.0.5:9901", o.URL)
		}
	}
	validateTokens(at.Key("tokens"), p, o.Tokens)
}

func validateAddress(at yamlpos.Path, p *yamlpos.Problems, text string, tokens []Token) {
	a, err := parseAddress(text)
	if err != nil {
		p.Add(at, "%v", err)
	} else if len(tokens) == 0 && !a.isLocal() {
		p.Add(at, "other machines reach %q: give tokens, or an address of this machine alone, such as 127.0.0.1:%s", text, a.port)
	}
}

func validateTokens(at yamlpos.Path, p *yamlpos.Problems, tokens []Token) {
	for i, t := range tokens {
		t.validate(at.Index(i), p)
		for _, earlier := range tokens[:i] {
			if t.Name != "" && t.Name == earlier.Name {
				p.Add(at.Index(i).Key("name"), "%q is the name of an earlier token: the log could not tell them apart", t.Name)
			}
			if t.Token != "" && t.Token == earlier.Token {
				p.Add(at.Index(i).Key("token"), "is the secret of %q too: give each its own", earlier.Name)
			}
		}
	}
}

func (t Token) validate(at yamlpos.Path, p *yamlpos.Problems) {
	if t.Name == "" {
		p.Add(at.Key("name"), "is missing: the log names callers by it")
	}
	switch secret := t.Token.Reveal(); {
	case secret == "":
		p.Add(at.Key("token"), "is missing: write a secret, best as ${NAME} from the environment")
	case strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }):
		p.Add(at.Key("token"), "must be printable ASCII without spaces: it is sent in a header")
	}
	if len(t.May) == 0 {
		p.Add(at.Key("may"), "is missing: list what the token may do, of %s", strings.Join(roles, ", "))
	}
	for i, role := range t.May {
		p.OneOf(at.Key("may").Index(i), role, roles...)
		if slices.Contains(t.May[:i], role) {
			p.Add(at.Key("may").Index(i), "%q stands twice", role)
		}
	}
}
