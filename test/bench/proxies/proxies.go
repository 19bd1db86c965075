//go:build linux

// Package proxies knows the programs that a benchmark compares: how to find each, the smallest fair configuration with one worker,
// and how to start and end it. Nothing is installed, and nothing is written outside a directory of the caller's.
package proxies

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"

	"bridgehead/test/bench/process"
)

// A Proxy is a program and its configuration.
type Proxy struct {
	Name    string
	Program string // the name of a binary, or its path

	version []string // the arguments that make it tell its version, if any do

	args     []string // of the command line, with templates
	template string   // of the configuration file; "" if it needs none
	extra    []string // lines of the configuration

	Stream   bool // can bridge to a byte stream
	Webhook  bool // can bridge to an HTTP application
	Relay    bool // can relay to a WebSocket server, with TLS in front and without
	Policies bool // the product with every policy, or without any
	Large    bool // a variant of another whose difference shows only with larger messages
}

// Ours is the product, with further lines of configuration.
func Ours(name, program string, extra ...string) Proxy {
	return Proxy{
		Name: name, Program: program, Stream: true, Webhook: true, Relay: true,
		template: "bridgehead.yaml", args: []string{"serve", "-c", "{{.Dir}}/bridgehead.yaml"}, extra: extra,
	}
}

// The names of the peers.
const (
	Nginx      = "nginx" // to whose figures all others are related
	Large      = "nginx, 64 KiB buffers"
	HAProxy    = "haproxy"
	Caddy      = "caddy"
	Websockify = "websockify"
	Pushpin    = "pushpin"
)

// Peers are the other programs, found or not.
func Peers() []Proxy {
	nginx := Proxy{
		Name: Nginx, Program: "nginx", version: []string{"-v"}, Relay: true,
		template: "nginx.conf", args: []string{"-p", "{{.Dir}}", "-e", "stderr", "-c", "{{.Dir}}/nginx.conf"},
	}
	large := nginx
	large.Name, large.Large = Large, true
	large.extra = []string{"proxy_buffer_size 64k;", "proxy_buffers 8 64k;", "proxy_busy_buffers_size 128k;"}
	return []Proxy{
		nginx,
		large,
		{
			Name: HAProxy, Program: "haproxy", version: []string{"-v"}, Relay: true,
			template: "haproxy.cfg", args: []string{"-db", "-f", "{{.Dir}}/haproxy.cfg"},
		},
		{
			Name: Caddy, Program: "caddy", version: []string{"version"}, Relay: true,
			template: "Caddyfile", args: []string{"run", "--adapter", "caddyfile", "--config", "{{.Dir}}/Caddyfile"},
		},
		{
			Name: Websockify, Program: "websockify", Stream: true,
			args: []string{"127.0.0.1:{{.Plain}}", "{{.TCP}}"},
		},
		{
			Name: Pushpin, Program: "pushpin", version: []string{"--version"}, Webhook: true,
			template: "pushpin.conf", args: []string{"--config={{.Dir}}/pushpin.conf", "--route=* {{.HTTP}},over_http"},
		},
	}
}

// Find looks for the program, also where Debian keeps daemons, and returns its path and its name with its version.
func (p Proxy) Find(ctx context.Context) (path, title string, err error) {
	path, err = exec.LookPath(p.Program)
	if err != nil {
		if path, err = exec.LookPath(filepath.Join("/usr/sbin", p.Program)); err != nil {
			return "", "", fmt.Errorf("%s is not installed", p.Program)
		}
	}
	if len(p.version) == 0 {
		return path, p.Name, nil
	}
	out, err := exec.CommandContext(ctx, path, p.version...).CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("%s does not run: %w", path, err)
	}
	return path, p.Name + " " + string(number.Find(out)), nil
}

// number is a version among words.
var number = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

// A Site is where a proxy runs and what stands behind it.
type Site struct {
	Dir            string // of its own
	Certificates   string // a directory with cert.pem, key.pem and both.pem; see WriteCertificate
	WebSocket, TCP string // the addresses of the echo
	HTTP           string
	Files          uint64 // the limit of open files
	Cores          process.Set
}

// A Running is a proxy under way.
type Running struct {
	*process.Process

	Plain, Secure string // its addresses
}

// values are what the templates see.
type values struct {
	Site
	Plain, Secure int
	Pairs         uint64 // for how many sockets with their backend connections the files last
	Extra         []string
}

//go:embed templates
var templates embed.FS

// startTimeout is how long a proxy may take until it accepts connections.
const startTimeout = 10 * time.Second

// Start writes the configuration, starts the program and waits until it accepts connections.
func (p Proxy) Start(ctx context.Context, s Site) (*Running, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	v := values{Site: s, Plain: ports[0], Secure: ports[1], Pairs: (s.Files - 100) / 2, Extra: p.extra}
	cmd, err := p.command(v)
	if err != nil {
		return nil, err
	}
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), "HOME="+s.Dir, "XDG_DATA_HOME="+s.Dir, "XDG_CONFIG_HOME="+s.Dir)
	log, err := os.Create(filepath.Join(s.Dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	r := &Running{Plain: fmt.Sprintf("127.0.0.1:%d", v.Plain), Secure: fmt.Sprintf("127.0.0.1:%d", v.Secure)}
	if r.Process, err = process.Start(cmd, s.Cores); err != nil {
		return nil, err
	}
	addresses := []string{r.Plain, r.Secure}
	if !p.Relay {
		addresses = addresses[:1]
	}
	for _, address := range addresses {
		if err := r.await(ctx, address); err != nil {
			r.End()
			return nil, fmt.Errorf("start %s: %w: %s", p.Name, err, tail(log.Name()))
		}
	}
	return r, nil
}

// command is the program with its configuration in place.
func (p Proxy) command(v values) (*exec.Cmd, error) {
	if p.template != "" {
		all, err := template.ParseFS(templates, "templates/*")
		if err != nil {
			return nil, err
		}
		var text bytes.Buffer
		if err := all.ExecuteTemplate(&text, p.template, v); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(v.Dir, p.template), text.Bytes(), 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(p.Program)
	for _, arg := range p.args {
		t, err := template.New("argument").Parse(arg)
		if err != nil {
			return nil, err
		}
		var text strings.Builder
		if err := t.Execute(&text, v); err != nil {
			return nil, err
		}
		cmd.Args = append(cmd.Args, text.String())
	}
	return cmd, nil
}

// await returns when an address accepts connections.
func (r *Running) await(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-r.Exited():
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("it does not listen: %w", err)
		}
	}
}

// freePorts are ports of loopback that nobody listens on at the moment.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// tail is the end of a log in one line.
func tail(name string) string {
	const most = 500
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	text = bytes.ReplaceAll(bytes.TrimSpace(text), []byte("\n"), []byte(" | "))
	return string(text[max(0, len(text)-most):])
}
