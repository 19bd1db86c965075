package config

import (
	"path/filepath"
	"strings"
)

// resolve makes every relative path in the configuration one below the directory of its file, wherever the program runs.
func (c *Config) resolve() {
	c.path(&c.State)
	for i := range c.Certificates.Files {
		pair := &c.Certificates.Files[i]
		c.path(&pair.Cert)
		c.path(&pair.Key)
	}
	for i := range c.Certificates.ACME {
		c.path(&c.Certificates.ACME[i].CA)
	}
	for i := range c.Listeners {
		if ca := c.Listeners[i].ClientCA; ca != nil {
			for j := range ca.Files {
				c.path(&ca.Files[j])
			}
		}
	}
	for name, u := range c.Upstreams {
		c.path(&u.TLS.CA)
		c.path(&u.TLS.Cert)
		c.path(&u.TLS.Key)
		for i := range u.Servers {
			c.socket(&u.Servers[i].URL)
		}
		c.Upstreams[name] = u
	}
	for _, a := range c.Authenticators {
		c.paths(a.Files())
	}
	c.paths(c.Defaults.Addresses.Files())
	for i := range c.Routes {
		r := &c.Routes[i]
		c.paths(r.Addresses.Files())
		for _, b := range r.bridges() {
			for j := range b.targets() {
				c.socket(&b.targets()[j])
			}
		}
		if r.Files != nil {
			c.path(&r.Files.Dir)
		}
	}
	for i := range c.Listeners {
		for j := range c.Listeners[i].Address {
			c.socket(&c.Listeners[i].Address[j])
		}
	}
	c.socket(&c.Admin.Address)
	if c.Push != nil {
		c.socket(&c.Push.Address)
	}
}

func (c *Config) path(path *string) {
	if *path != "" && !filepath.IsAbs(*path) {
		*path = filepath.Join(c.Dir, *path)
	}
}

func (c *Config) paths(paths []*string) {
	for _, path := range paths {
		c.path(path)
	}
}

// socket resolves the path of a unix socket; other addresses, and sockets in Linux' abstract name space, stay as they are.
func (c *Config) socket(address *string) {
	path, ok := strings.CutPrefix(*address, unixScheme)
	if ok && path != "" && !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
		c.path(&path)
		*address = unixScheme + path
	}
}
