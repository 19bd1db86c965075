//go:build linux

// Command bench measures the product beside other proxies on loopback: the processor time that each spends on an echo's round trip
// and on a handshake, its latency, and the memory that an idle socket costs it; and tells which targets were reached. Every proxy, the
// load and the echo behind are processes of their own; the proxy has a core for itself. The peers are those that are installed.
//
//	go run ./test/bench                               all scenarios, in about six minutes
//	go run ./test/bench -run '^ws-64$' -rounds 9      one of them, for longer
//	go run ./test/bench -run idle -idle 8000          memory, with 8,000 sockets
//	go run ./test/bench -also before=bin/before     another build beside this one
//	go run ./test/bench -with 'drain: 1s'             the product once more with this line in its configuration
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"bridgehead/test/bench/echo"
	"bridgehead/test/bench/load"
)

// The exit codes, as those of the product.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// The words by which the program runs itself in other processes.
const (
	roleLoad = "load"
	roleEcho = "echo"
)

// run is the program without its process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var err error
	switch {
	case len(args) == 1 && args[0] == roleLoad:
		err = serveLoad(ctx, os.Stdin, stdout)
	case len(args) == 1 && args[0] == roleEcho:
		err = serveEcho(ctx, stdout)
	default:
		o, usageErr := parse(args, stderr)
		if errors.Is(usageErr, flag.ErrHelp) {
			return exitOK
		}
		if usageErr != nil {
			return exitUsage // flag has told it
		}
		err = bench(ctx, o, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitFailed
	}
	return exitOK
}

// An outcome is what the load's process answers.
type outcome struct {
	Result load.Result
	Error  string
}

// serveLoad does what one Spec says.
func serveLoad(ctx context.Context, in io.Reader, out io.Writer) error {
	var spec load.Spec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	var o outcome
	result, err := load.Run(ctx, spec)
	if err != nil {
		o.Error = err.Error()
	}
	o.Result = result
	return json.NewEncoder(out).Encode(o)
}

// serveEcho tells its addresses and serves until it is killed.
func serveEcho(ctx context.Context, out io.Writer) error {
	s, err := echo.Listen()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(s); err != nil {
		return err
	}
	return s.Serve(ctx)
}

// options are what the flags say.
type options struct {
	run, peers       *regexp.Regexp
	rounds, idle     int
	warmup, duration time.Duration
	settle           time.Duration
	markdown         bool
	also             map[string]string // binaries of the product by name
	with             []string          // lines of its configuration
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pattern := func(p **regexp.Regexp) func(string) error {
		return func(text string) (err error) { *p, err = regexp.Compile(text); return err }
	}
	o.run, o.peers, o.also = regexp.MustCompile(""), regexp.MustCompile(""), make(map[string]string)
	flags.Func("run", "`pattern` of the scenarios to measure; default: all", pattern(&o.run))
	flags.Func("peers", "`pattern` of the other programs to measure; default: all that are installed; '^$' for none", pattern(&o.peers))
	flags.IntVar(&o.rounds, "rounds", 3, "how often everything but memory is measured")
	flags.DurationVar(&o.duration, "duration", 800*time.Millisecond, "how long each measurement takes")
	flags.DurationVar(&o.warmup, "warmup", 200*time.Millisecond, "how long traffic flows before")
	flags.IntVar(&o.idle, "idle", 1000, "how many sockets rest while memory is measured")
	flags.DurationVar(&o.settle, "settle", 3*time.Second, "how long they rest before")
	flags.BoolVar(&o.markdown, "md", false, "print Markdown")
	flags.Func("also", "`name=path` of another binary of the product to measure; may be repeated", func(text string) error {
		name, path, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("%q is not name=path", text)
		}
		o.also[name] = path
		return nil
	})
	flags.Func("with", "a `line` of configuration: measure the product with it too; may be repeated", func(text string) error {
		o.with = append(o.with, text)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	return o, o.check(flags, stderr)
}

func (o *options) check(flags *flag.FlagSet, stderr io.Writer) (err error) {
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("%q is not expected: flags only", flags.Arg(0))
	case o.rounds < 1 || o.idle < 1 || o.duration <= 0 || o.warmup < 0 || o.settle < 0:
		err = errors.New("rounds, idle and duration must be greater than 0, and no time less")
	case len(o.scenarios()) == 0:
		err = fmt.Errorf("no scenario is like %q; there are %s", o.run, strings.Join(names(), ", "))
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	return err
}
