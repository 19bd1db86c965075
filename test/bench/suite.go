//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bridgehead/test/bench/load"
	"bridgehead/test/bench/process"
	"bridgehead/test/bench/proxies"
)

// product is the first name in every scenario, and direct the row without a proxy.
const (
	product = "bridgehead"
	direct  = "no proxy"
)

// A suite is one run of the program.
type suite struct {
	options
	stderr io.Writer

	dir     string // for everything that is written
	self    string // this program
	files   uint64 // the limit of open files
	cores   cores
	shared  cores // where nobody has a core for himself
	product string
	proxies []proxies.Proxy
	found   []string // programs and versions
	missing []string // what cannot be measured here, and why
}

// cores say who runs where.
type cores struct {
	proxy, load, echo process.Set
	alone             int // the proxy's core, if nobody else of ours runs there; else -1
	what              string
}

// share gives the proxy a core of its own if there are two, and the echo one if there are three.
func share(available []int) cores {
	first, last := available[0], available[len(available)-1]
	switch len(available) {
	case 1:
		one := process.Of(first)
		return cores{one, one, one, -1, "all processes share the only core: rates and latencies say little"}
	case 2:
		return cores{process.Of(last), process.Of(first), process.Of(first), last, fmt.Sprintf("the proxy on core %d, load and echo on core %d", last, first)}
	default:
		second := available[1]
		return cores{
			process.Of(last), process.Of(first), process.Of(second), last,
			fmt.Sprintf("the proxy on core %d, the load on core %d, the echo on core %d", last, first, second),
		}
	}
}

// bench measures and prints.
func bench(ctx context.Context, o options, stdout, stderr io.Writer) error {
	dir, err := os.MkdirTemp("", "bridgehead-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &suite{options: o, stderr: stderr, dir: dir}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	r := report{machine: s.machine(), before: loadAverage()}
	for _, scenario := range o.scenarios() {
		began := time.Now()
		rows, err := s.measure(ctx, scenario)
		if err != nil {
			return fmt.Errorf("%s: %w", scenario.name, err)
		}
		r.rows = append(r.rows, rows...)
		fmt.Fprintf(stderr, "%s: %s in %s\n", scenario.name, plural(len(rows), "row"), time.Since(began).Round(100*time.Millisecond))
	}
	r.after = loadAverage()
	if err := r.print(stdout, o.markdown); err != nil {
		return err
	}
	return r.failure()
}

// prepare builds the product and looks what else is there.
func (s *suite) prepare(ctx context.Context) (err error) {
	if s.self, err = os.Executable(); err != nil {
		return err
	}
	available, err := process.Cores()
	if err != nil {
		return err
	}
	s.cores, s.shared = share(available), shared(available)
	if s.files, err = process.AllowFiles(); err != nil {
		return err
	}
	if need := uint64(2*s.idle + 200); need > s.files {
		return fmt.Errorf("-idle %d needs %d open files a process, and the hard limit is %d: raise it (ulimit -Hn) or take fewer", s.idle, need, s.files)
	}
	if err := proxies.WriteCertificate(s.dir); err != nil {
		return err
	}
	s.product = filepath.Join(s.dir, product)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", s.product, "bridgehead/cmd/bridgehead")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the product, which works inside its repository alone: %w: %s", err, bytes.TrimSpace(out))
	}
	s.choose(ctx)
	return nil
}

// choose finds the programs to measure.
func (s *suite) choose(ctx context.Context) {
	candidates := []proxies.Proxy{proxies.Ours(product, s.product)}
	candidates = append(candidates, proxies.Policies(s.product)...)
	for _, line := range s.with {
		candidates = append(candidates, proxies.Ours(product+", "+line, s.product, line))
	}
	for _, name := range slices.Sorted(maps.Keys(s.also)) {
		candidates = append(candidates, proxies.Ours(name, s.also[name]))
	}
	for _, peer := range proxies.Peers() {
		if s.peers.MatchString(peer.Name) {
			candidates = append(candidates, peer)
		}
	}
	for _, p := range candidates {
		path, title, err := p.Find(ctx)
		if err != nil {
			s.missing = append(s.missing, err.Error())
			continue
		}
		p.Program = path
		s.proxies = append(s.proxies, p)
		if !p.Large && !p.Policies {
			s.found = append(s.found, title)
		}
	}
	s.missing = slices.Compact(s.missing)
}

// A contender is what one row of the table tells of.
type contender struct {
	name    string
	spec    load.Spec
	running *proxies.Running // nil: no proxy

	results []load.Result // one a round
	err     error         // why there are no more
}

// measure runs one scenario: every contender once in a round, each round in another order.
func (s *suite) measure(ctx context.Context, sc scenario) ([]row, error) {
	if sc.loops {
		s = s.byItsLoops()
	}
	backend, addresses, err := s.startEcho()
	if err != nil {
		return nil, err
	}
	defer backend.End()
	all, err := s.contenders(ctx, sc, backend.PID(), addresses)
	defer func() {
		for _, c := range all {
			if c.running != nil {
				c.running.End()
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	rounds := s.rounds
	if sc.kind == load.Idle {
		rounds = 1
	}
	for round := range rounds {
		for i := range all {
			if c := all[(i+round)%len(all)]; c.err == nil {
				s.once(ctx, c)
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
		}
	}
	return rows(sc, all, s.cores.alone >= 0), nil
}

// once measures a contender in one round.
func (s *suite) once(ctx context.Context, c *contender) {
	result, err := s.startLoad(ctx, c.spec)
	if err != nil {
		c.err = err
		return
	}
	c.results = append(c.results, result)
}

// contenders starts the proxies of a scenario. Those that do not start are among them, with the reason.
func (s *suite) contenders(ctx context.Context, sc scenario, echo int, addresses echoAddresses) (all []*contender, err error) {
	for i, p := range s.proxies {
		if !sc.suits(p) {
			continue
		}
		c := &contender{name: p.Name, spec: sc.spec(s.options)}
		all = append(all, c)
		dir := filepath.Join(s.dir, fmt.Sprintf("%s-%d", sc.name, i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return all, err
		}
		c.running, c.err = p.Start(ctx, proxies.Site{
			Dir: dir, Certificates: s.dir, WebSocket: addresses.WebSocket, TCP: addresses.TCP, HTTP: addresses.HTTP,
			Files: s.files, Cores: s.cores.proxy,
		})
		if c.err != nil {
			continue
		}
		c.spec.Address, c.spec.Proxy, c.spec.Echo, c.spec.Core = c.running.Plain, c.running.PID(), echo, s.cores.alone
		if sc.secure {
			c.spec.Address, c.spec.CA = c.running.Secure, filepath.Join(s.dir, "cert.pem")
		}
	}
	if !sc.secure && !sc.stream && !sc.webhook && !sc.policies && sc.kind != load.Idle {
		c := &contender{name: direct, spec: sc.spec(s.options)}
		c.spec.Address, c.spec.Echo, c.spec.Core = addresses.WebSocket, echo, -1
		all = append(all, c)
	}
	return all, nil
}

// echoAddresses are where the echo's process listens.
type echoAddresses struct{ WebSocket, TCP, HTTP string }

// startEcho runs the backend in a process of its own.
func (s *suite) startEcho() (*process.Process, echoAddresses, error) {
	var addresses echoAddresses
	cmd := exec.Command(s.self, roleEcho)
	cmd.Stderr = s.stderr
	read, write, err := os.Pipe()
	if err != nil {
		return nil, addresses, err
	}
	defer read.Close()
	cmd.Stdout = write
	p, err := process.Start(cmd, s.cores.echo)
	write.Close()
	if err != nil {
		return nil, addresses, fmt.Errorf("start the echo: %w", err)
	}
	if err := json.NewDecoder(read).Decode(&addresses); err != nil {
		p.End()
		return nil, addresses, fmt.Errorf("start the echo: %w", err)
	}
	return p, addresses, nil
}

// What a measurement may take beyond the times in its Spec: in all, and for each socket that is to be opened.
const (
	patience          = 30 * time.Second
	patiencePerSocket = 10 * time.Millisecond
)

// startLoad runs the load in a process of its own and waits for what it has measured.
func (s *suite) startLoad(ctx context.Context, spec load.Spec) (load.Result, error) {
	most := spec.Warmup + spec.Duration + spec.Stall + 3*spec.Settle + patience + time.Duration(spec.Connections)*patiencePerSocket
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	text, err := json.Marshal(spec)
	if err != nil {
		return load.Result{}, err
	}
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, s.self, roleLoad)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &out, &complaints
	p, err := process.Start(cmd, s.cores.load)
	if err != nil {
		return load.Result{}, fmt.Errorf("start the load: %w", err)
	}
	<-p.Exited()
	var o outcome
	switch err := json.NewDecoder(&out).Decode(&o); {
	case ctx.Err() != nil:
		return load.Result{}, fmt.Errorf("it took too long: %w", ctx.Err())
	case err != nil:
		return load.Result{}, fmt.Errorf("the load ended without an answer: %s", strings.TrimSpace(complaints.String()))
	case o.Error != "":
		return load.Result{}, errors.New(o.Error)
	}
	return o.Result, nil
}
