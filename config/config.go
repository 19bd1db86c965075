// Package config is the YAML file: what it may say, its defaults, and what spans its sections. Every section's own struct,
// defaults and validation belong to the package that runs it; this one composes them.
package config

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"bridgehead/admin"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
	certs "bridgehead/tls"
)

// A Config is the whole file, decoded over its defaults.
type Config struct {
	// The directory for what must survive a restart: the local CA, the admin socket. Default: $STATE_DIRECTORY, which systemd
	// sets, /var/lib/bridgehead for root, and bridgehead in the user's own state directory for others.
	State string `yaml:"state"`
	// Where the certificates of TLS listeners come from.
	Certificates certs.Options `yaml:"certificates"`
	// Peers whose X-Forwarded-For and X-Forwarded-Proto count: CIDRs, addresses, `private` or `loopback`.
	TrustedProxies policy.Networks `yaml:"trusted_proxies"`
	// Where to listen. Default: `:443` with TLS, and `:80` redirecting to it.
	Listeners []Listener `yaml:"listeners"`
	// Named groups of servers, for `to` in every bridge.
	Upstreams map[string]upstream.Options `yaml:"upstreams"`
	// What lies under every route: the route's own keys win, maps merge, lists and scalars replace.
	Defaults proxy.Options `yaml:"defaults"`
	// The routes; the first that matches a request serves it.
	Routes []Route `yaml:"routes"`
	// The listener for operators.
	Admin admin.Options `yaml:"admin"`
	// The listener for applications that push.
	Push *admin.PushOptions `yaml:"push"`
	// The greatest number of open sockets in all; more are answered 503. 0 is no limit.
	MaxConnections int `yaml:"max_connections"`
	// How long sockets may take to close when the program ends.
	Drain time.Duration `yaml:"drain"`
	// What is logged, and how.
	Log Log `yaml:"log"`

	// File is the path the configuration was read from; Dir is its directory, to which relative paths in it belong.
	File string `yaml:"-"`
	Dir  string `yaml:"-"`
}

// A Warning is something that works, and that its writer may not have meant. It prints in one line, with its place.
type Warning = yamlpos.Problem

// Load reads and checks a file. References to the environment are looked up in the process's own. An error that lists what is
// wrong in the file has one line per problem.
func Load(path string) (*Config, []Warning, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read the configuration: %w", err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, nil, fmt.Errorf("find the directory of the configuration: %w", err)
	}
	return parse(path, dir, data, os.LookupEnv)
}

// Parse checks the content of a file that is called name; relative paths in it belong to name's directory. It opens no file
// but those of `${file:}`.
func Parse(name string, data []byte, lookupEnv func(string) (string, bool)) (*Config, []Warning, error) {
	return parse(name, filepath.Dir(name), data, lookupEnv)
}

func parse(name, dir string, data []byte, lookupEnv func(string) (string, bool)) (*Config, []Warning, error) {
	doc, err := yamlpos.Parse(name, data)
	if err != nil {
		return nil, nil, err
	}
	c := builtIn()
	c.File, c.Dir = name, dir
	problems := doc.Decode(c, yamlpos.Decoding{Lookup: lookupEnv, Dir: dir, Preset: c.preset})
	c.complete(lookupEnv)
	c.resolve()
	c.validate(problems)
	if err := problems.Err(); err != nil {
		return nil, nil, err
	}
	warnings := doc.Problems()
	c.warn(warnings)
	return c, warnings.Sorted(), nil
}

// Effective is the configuration as a file in which nothing is left to defaults, with secrets masked.
func (c *Config) Effective() []byte {
	text, err := yamlpos.Encode(c)
	if err != nil { // texts, numbers, lists and maps can always be written
		panic(err)
	}
	return text
}

// Log says what is logged, and how.
type Log struct {
	// `text` or `json`.
	Format string `yaml:"format"`
	// `debug`, `info`, `warn` or `error`.
	Level string `yaml:"level"`
}
