package config

import (
	"cmp"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/proxy"
	"bridgehead/proxy/relay"
	"bridgehead/proxy/stream"
	"bridgehead/proxy/upstream"
	"bridgehead/proxy/webhook"
	certs "bridgehead/tls"
)

// builtIn is the configuration before the file says anything.
func builtIn() *Config {
	return &Config{
		Certificates: certs.DefaultOptions(),
		ClientHeader: policy.XForwardedFor,
		Defaults:     proxy.DefaultOptions(),
		Driver:       "auto",
		Drain:        8 * time.Second,
		Log:          Log{Format: "text", Level: "info"},
	}
}

// preset gives each new section its defaults. A route begins as the section `defaults`, which is decoded before it.
func (c *Config) preset(fresh any) {
	switch v := fresh.(type) {
	case *Listener:
		*v = DefaultListener()
	case *HSTS:
		*v = DefaultHSTS()
	case *Route:
		v.Options = yamlpos.Clone(c.Defaults)
	case *certs.DNS:
		*v = certs.DefaultDNS()
	case *certs.RFC2136:
		*v = certs.DefaultRFC2136()
	case *certs.OnDemand:
		*v = certs.DefaultOnDemand()
	case *upstream.Options:
		*v = upstream.DefaultOptions()
	case *upstream.Sticky:
		*v = upstream.DefaultSticky()
	case *upstream.Health:
		*v = upstream.DefaultHealth()
	case *upstream.Server:
		*v = upstream.DefaultServer()
	case *auth.Options:
		*v = auth.DefaultOptions()
	case *auth.JWT:
		*v = auth.DefaultJWT()
	case *auth.Forward:
		*v = auth.DefaultForward()
	case *auth.APIKey:
		*v = auth.DefaultAPIKey()
	case *auth.Basic:
		*v = auth.DefaultBasic()
	case *auth.SignedURL:
		*v = auth.DefaultSignedURL()
	case *auth.MTLS:
		*v = auth.DefaultMTLS()
	case *policy.Rule:
		*v = policy.DefaultRule()
	case *relay.Options:
		*v = relay.DefaultOptions()
	case *stream.Options:
		*v = stream.DefaultOptions()
	case *webhook.Options:
		*v = webhook.DefaultOptions()
	}
}

// complete fills in what depends on other keys or on the environment.
func (c *Config) complete(lookupEnv func(string) (string, bool)) {
	if c.State == "" {
		c.State = defaultState(lookupEnv)
	}
	if c.Admin.Address == "" && c.State != "" {
		c.Admin.Address = unixScheme + filepath.Join(c.State, "admin.sock")
	}
	if c.Listeners == nil {
		c.Listeners = defaultListeners()
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if len(l.Address) > 0 {
			l.Name = cmp.Or(l.Name, l.Address[0])
		}
	}
	for i := range c.Routes {
		r := &c.Routes[i]
		r.Name = cmp.Or(r.Name, r.Host+r.Path, "*")
		if r.Auth.IsNone() && !c.Defaults.Auth.IsNone() && reflect.DeepEqual(r.Require, c.Defaults.Require) {
			r.Require = nil // everybody may come in here, in spite of what is required elsewhere
		}
	}
}

// defaultState is the directory of what survives a restart, or "" for a user without a home.
func defaultState(lookupEnv func(string) (string, bool)) string {
	if dirs, _ := lookupEnv("STATE_DIRECTORY"); dirs != "" { // systemd.exec(5): several are separated by colons
		first, _, _ := strings.Cut(dirs, ":")
		return first
	}
	if os.Geteuid() == 0 {
		return "/var/lib/bridgehead"
	}
	if dir, _ := lookupEnv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "bridgehead")
	}
	for _, home := range []struct{ variable, below string }{{"HOME", ".local/state"}, {"LocalAppData", ""}} {
		if dir, _ := lookupEnv(home.variable); dir != "" {
			return filepath.Join(dir, home.below, "bridgehead")
		}
	}
	return ""
}
