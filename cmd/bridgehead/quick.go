package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"bridgehead/admin"
	"bridgehead/cmd/bridgehead/quick"
	"bridgehead/config"
	"bridgehead/server"
)

// quickFlags are the flags of quick as they are given.
type quickFlags struct {
	quick.Options
	websockify quick.Websockify
	verbose    bool
	print      bool
	heartbeat  int // seconds
	idle       int // seconds; 0 is for ever
}

func newQuick() *cobra.Command {
	c := &cobra.Command{
		Use:   "quick [--from ADDRESS] --to ADDRESS",
		Short: "One bridge without a file",
		Long: `Run one bridge, from a port for clients to what stands behind it, without a file.

--from says where clients connect: :8443 or 127.0.0.1:8443 for wss, with a certificate of the local authority, whose root
"bridgehead ca" prints; wss:// and https:// say so at length, ws:// and http:// do without TLS; a path in the URL is the only one
that is served. --to says where their sockets lead:

  host:port, tcp://, tls://, unix:/path    a stream of bytes
  ws://, wss://                            a WebSocket server
  http://, https://                        an HTTP application that gets the messages as POST requests; if it speaks
                                           WebSocket, add --as websocket

Pages of localhost may connect, and those of the port itself if it is reached by an IP address; --origin lists others instead.

The common command lines of websockify work as they are: quick [SOURCE_ADDR:]SOURCE_PORT TARGET_ADDR:TARGET_PORT, with --web,
--cert, --key, --ssl-only, --unix-target, --ssl-target, --heartbeat, --idle-timeout and --verbose. There clients connect without
TLS; with --cert, by TLS alone. With --ssl-only and no --cert the local authority makes the certificate.`,
		Example: `  bridgehead quick --to tcp://localhost:5900                       a VNC server, at wss://127.0.0.1:8443/
  bridgehead quick --from :8443 --to ws://localhost:9000           a chat, for other machines too
  bridgehead quick --from wss://:8443/vnc --to localhost:5900      at this path alone
  bridgehead quick --from ws://:8080 --to localhost:7000 --framing line --text      lines of text, without TLS
  bridgehead quick --to https://app.example.com/events             an HTTP application
  bridgehead quick --to http://localhost:3000 --as websocket       one that speaks WebSocket
  bridgehead quick --to ws://localhost:9000 --origin https://chat.example.com --cert chain.pem --key key.pem
  bridgehead quick --to localhost:5900 --web ./noVNC               with its page, which looks for /websockify
  bridgehead quick --to localhost:5900 --print >config.yaml        the file that it equals, for bridgehead serve
  bridgehead quick 6080 localhost:5900 --web=./noVNC               as websockify is called`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := addQuickFlags(c)
	unknown := addWebsockifyFlags(c, f)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		for _, u := range unknown {
			if cmd.Flags().Changed(u.Name) {
				return fail(exitUsage, u.Told())
			}
		}
		f.websockify.Args, f.websockify.Wraps = args, cmd.ArgsLenAtDash() >= 0
		b, err := f.bridge(cmd.Flags().Changed("heartbeat"))
		if err != nil {
			return misused(cmd, err)
		}
		return runQuick(cmd, b, f)
	}
	return c
}

// addQuickFlags adds our own flags.
func addQuickFlags(c *cobra.Command) *quickFlags {
	f := &quickFlags{}
	flags := c.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.From, "from", "", "where clients connect: an `address` or a URL (default "+quick.DefaultFrom+")")
	flags.StringVar(&f.To, "to", "", "where their sockets lead: an `address` or a URL")
	flags.StringVar(&f.As, "as", "", "what speaks there, whatever the scheme says: `websocket`, tcp or webhook")
	flags.StringVar(&f.Cert, "cert", "", "a PEM `file` with the certificate, instead of the local authority")
	flags.StringVar(&f.Key, "key", "", "a PEM `file` with its key (default the file of --cert)")
	flags.StringArrayVar(&f.Origins, "origin", nil, "an `origin` whose pages may connect, as https://app.example.com; may be repeated")
	flags.StringVar(&f.Web, "web", "", "a `directory` to show beside the sockets, which then are at /websockify (streams) or /ws")
	flags.StringArrayVar(&f.Subprotocols, "subprotocol", nil, "a `name` that a stream accepts (default binary); may be repeated")
	flags.StringVar(&f.Framing, "framing", "", "what a message of a stream is: `raw`, what one read gives, or line (default raw)")
	flags.BoolVar(&f.Text, "text", false, "messages of a stream are text")
	flags.StringVar(&f.Log, "log", "", "what to log: the `level` debug, info, warn or error (default info)")
	flags.BoolVar(&f.print, "print", false, "print the file that it equals, and end")

	complete := func(flag string, words ...string) {
		cobra.CheckErr(c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
	}
	complete("from", "127.0.0.1:8443", ":8443", "ws://127.0.0.1:8080")
	complete("to", "tcp://localhost:", "tls://", "unix:/", "ws://localhost:", "wss://", "http://localhost:", "https://")
	complete("as", "websocket", "tcp", "webhook")
	complete("framing", "raw", "line")
	complete("log", "debug", "info", "warn", "error")
	cobra.CheckErr(c.MarkFlagDirname("web"))
	return f
}

// addWebsockifyFlags adds those flags of websockify that are not ours too, and gives those that are not known here. --help tells
// of them in words.
func addWebsockifyFlags(c *cobra.Command, f *quickFlags) []quick.Unknown {
	flags := c.Flags()
	w := &f.websockify
	flags.StringVar(&w.UnixTarget, "unix-target", "", "")
	flags.BoolVar(&w.SSLTarget, "ssl-target", false, "")
	flags.BoolVar(&w.SSLOnly, "ssl-only", false, "")
	flags.IntVar(&f.heartbeat, "heartbeat", 0, "")
	flags.IntVar(&f.idle, "idle-timeout", 0, "")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "")
	hidden := []string{"unix-target", "ssl-target", "ssl-only", "heartbeat", "idle-timeout", "verbose"}
	for _, h := range quick.Habits() {
		flags.BoolP(h.Name, h.Short, false, "")
		hidden = append(hidden, h.Name)
	}
	unknown := quick.Unknowns()
	for _, u := range unknown {
		if u.Switch {
			flags.BoolP(u.Name, u.Short, false, "")
		} else {
			flags.String(u.Name, "", "")
		}
		hidden = append(hidden, u.Name)
	}
	for _, name := range hidden {
		cobra.CheckErr(flags.MarkHidden(name))
	}
	return unknown
}

// bridge is what the flags amount to.
func (f *quickFlags) bridge(heartbeat bool) (*quick.Bridge, error) {
	o := f.Options
	if f.verbose {
		o.Log = cmp.Or(o.Log, "debug")
	}
	if o.Log != "" && !slices.Contains([]string{"debug", "info", "warn", "error"}, o.Log) {
		return nil, fmt.Errorf("--log %q is none of debug, info, warn, error", o.Log)
	}
	if f.idle < 0 || f.heartbeat < 0 {
		return nil, errors.New("--heartbeat and --idle-timeout are seconds, and 0 is never")
	}
	if heartbeat {
		o.Ping = quick.Ping(f.heartbeat)
	}
	if err := f.websockify.Into(&o); err != nil {
		return nil, err
	}
	return quick.New(o)
}

func runQuick(cmd *cobra.Command, b *quick.Bridge, f *quickFlags) error {
	own, err := withoutFile()
	if err != nil {
		return err
	}
	text := b.Config(own.State)
	if f.print {
		_, err := fmt.Fprint(cmd.OutOrStdout(), text)
		return fail(exitFailed, err)
	}
	cfg, _, err := config.Parse("quick.yaml", []byte(text), noEnvironment)
	if err != nil {
		return fail(exitUsage, fmt.Errorf("the file that these flags amount to, which --print shows, cannot be served: %w", err))
	}
	warnings := b.Warnings()
	if err := b.Probe(cmd.Context()); err != nil {
		warnings = append(warnings, err.Error())
	}
	for _, w := range warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, end := context.WithCancel(cmd.Context())
	defer end()
	log, _ := newLog(cfg.Log, cmd.ErrOrStderr())
	return serve(ctx, cfg, log, server.Source{}, func(s *server.Server) {
		root, _ := s.Root()
		_, port, _ := net.SplitHostPort(s.Addr(quick.Listener).String())
		fmt.Fprint(cmd.OutOrStdout(), b.Guide(port, root))
		if f.idle > 0 {
			watching.Go(func() { endIdle(ctx, end, s.Addr("admin"), time.Duration(f.idle)*time.Second) })
		}
	})
}

// noEnvironment is the environment of files that we write ourselves: nothing in them refers to it.
func noEnvironment(string) (string, bool) { return "", false }

// endIdle ends the program once no socket has been open for so long. It asks the operators' API each second.
func endIdle(ctx context.Context, end func(), operators net.Addr, idle time.Duration) {
	address := operators.String()
	if operators.Network() == "unix" {
		address = "unix:" + address
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for used := time.Now(); time.Since(used) < idle; {
		select {
		case <-ctx.Done():
			return
		case <-second.C:
		}
		if sockets, err := anyOpen(ctx, address); err != nil || sockets {
			used = time.Now()
		}
	}
	end()
}

// anyOpen tells whether a program has open sockets.
func anyOpen(ctx context.Context, operators string) (bool, error) {
	client, base := admin.Client(operators)
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/connections?limit=1", nil)
	if err != nil {
		return false, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var page struct {
		Connections []json.RawMessage `json:"connections"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return false, err
	}
	return len(page.Connections) > 0, nil
}
