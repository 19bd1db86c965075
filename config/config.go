// Package config is the YAML file: what it may say, its defaults, and what spans its sections. Every section's own struct,
// defaults and validation belong to the package that runs it; this one composes them.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"bridgehead/admin"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
	certs "bridgehead/tls"
)

// A Config is the whole file, decoded over its defaults.
type Config struct {
	// The directory for what must survive a restart: the local authority, the admin socket. Default: `$STATE_DIRECTORY`, which
	// systemd sets, else `/var/lib/bridgehead` for root and `~/.local/state/bridgehead` for others.
	State string `yaml:"state"`
	// Where the certificates of TLS listeners come from.
	Certificates certs.Options `yaml:"certificates"`
	// The proxies in front, whose word about their clients is believed, in `client_header`, X-Forwarded-Proto and PROXY headers: CIDRs, addresses, `private` (RFC 1918
	// and unique local IPv6) or `loopback`.
	TrustedProxies policy.Networks `yaml:"trusted_proxies"`
	// The header in which trusted proxies say who their client is, and the only one that is believed of it: `X-Forwarded-For`,
	// `Forwarded` (RFC 7239), or one that holds the client's address alone, such as `CF-Connecting-IP`, `True-Client-IP`,
	// `Fly-Client-IP` or `X-Real-IP`.
	ClientHeader string `yaml:"client_header"`
	// Where clients connect. Default: `:443` with TLS, and `:80` redirecting to it.
	Listeners []Listener `yaml:"listeners"`
	// Groups of servers with a name, for `to` in every route. The name holds no `:` and no `/`.
	Upstreams map[string]upstream.Options `yaml:"upstreams"`
	// Ways to find out who a client is, each with a name for `auth` in routes.
	Authenticators map[string]auth.Options `yaml:"authenticators"`
	// What lies under every route, which may have each of these keys itself.
	Defaults proxy.Options `yaml:"defaults"`
	// Which requests lead where; the first route that matches a request serves it.
	Routes []Route `yaml:"routes"`
	// The listener for operators: health, metrics and every call of the API.
	Admin admin.Options `yaml:"admin"`
	// A listener for applications that send to sockets, and for nothing else. Default: none.
	Push *admin.PushOptions `yaml:"push"`
	// The greatest number of open sockets in all; more are answered 503. 0 is no limit.
	MaxConnections int `yaml:"max_connections"`
	// How WebSockets are carried: `loops` are event loops, which only Linux on amd64 and arm64 has; `goroutines` are two for each
	// socket. `auto` takes loops where they can be and goroutines for the rest. For diagnosis: both do the same. Read at the start of
	// the program alone.
	Driver string `yaml:"driver"`
	// How many event loops there are. 0 is one for each processor. Read at the start of the program
	// alone.
	Workers int `yaml:"workers"`
	// How long sockets may take to close when the program ends.
	Drain time.Duration `yaml:"drain"`
	// What is logged, and how.
	Log Log `yaml:"log"`

	// File is the path the configuration was read from; Dir is its directory, to which relative paths in it belong.
	File string `yaml:"-"`
	Dir  string `yaml:"-"`
}

// Proxies are those in front that are believed, and where they say who their client is.
func (c *Config) Proxies() policy.Proxies {
	return policy.Proxies{Networks: c.TrustedProxies, Header: c.ClientHeader}
}

// Addresses are the lists of addresses of all routes.
func (c *Config) Addresses() []policy.Addresses {
	all := make([]policy.Addresses, len(c.Routes))
	for i := range c.Routes {
		all[i] = c.Routes[i].Addresses
	}
	return all
}

// A Warning is something that works, and that its writer may not have meant. It prints in one line, with its place.
type Warning = yamlpos.Problem

// Load reads and checks a file. References to the environment are looked up in the process's own. An error that lists what is
// wrong in the file has one line per problem.
func Load(path string) (*Config, []Warning, error) {
	data, err := read(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read the configuration: %w", err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, nil, fmt.Errorf("find the directory of the configuration: %w", err)
	}
	return parse(path, dir, data, os.LookupEnv)
}

// maxSize is the largest file that is read: a hundred thousand routes have room in it.
const maxSize = 16 << 20

// read gives the content of a file or of a pipe.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; bridgehead init writes one to start from", err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory: name the file in it, such as %s", path, filepath.Join(path, "config.yaml"))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(data) > maxSize {
		return nil, fmt.Errorf("%s is larger than 16MiB, which no configuration is", path)
	}
	return data, err
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
	problems := doc.Decode(c, yamlpos.Decoding{Lookup: lookupEnv, Dir: dir, Preset: c.preset, Borrowed: borrowed})
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
	// How lines are written: `text` for people, `json` for programs.
	Format string `yaml:"format"`
	// The least important lines to write.
	Level string `yaml:"level"`
}
