package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bridgehead/cmd/bridgehead/connect"
)

func newConnect() *cobra.Command {
	c := &cobra.Command{
		Use:   "connect URL",
		Short: "Talk to a WebSocket server: type lines, or pipe them",
		Long: `Open a WebSocket, show what was negotiated and what comes, and send what is typed or piped.

The URL may begin with https or http for wss and ws. Without a scheme it is wss; on this machine ws, unless the port ends in 443.

On a terminal each line is a text message, and /help lists the commands for pings, bytes, files and closing. Ctrl-C and Ctrl-D
close with 1000; a second Ctrl-C ends at once.

In a pipe each line of the input is a text message and each message a line of the output, binary ones in hex; everything else
goes to standard error. When the input has ended, and no message came for --wait, it closes with 1000.

Exit codes: 0 closed by us, or by the server with 1000 or without a code; 1 refused, broken, or closed with another code; 2 wrong
usage.`,
		Example: `  bridgehead connect wss://localhost:8443/chat --ca state/ca/root.pem
  bridgehead connect -v -s chat.v1 --origin https://www.example.com wss://chat.example.com/ws
  bridgehead connect --address 127.0.0.1:8443 wss://chat.example.com/ws     before DNS leads there
  bridgehead connect -q -n 10 wss://feed.example.com/ > ten-messages.txt
  bridgehead connect --binary wss://localhost:8443/echo < image.png > copy.png`,
		Args:              oneURL,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o := connectFlags(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		o.URL = args[0]
		if o.Count > 0 && !cmd.Flags().Changed("wait") {
			o.Wait = -1
		}
		client, err := connect.New(*o)
		if err != nil {
			return misused(cmd, err)
		}
		return fail(exitFailed, runConnect(cmd, client))
	}
	return c
}

func connectFlags(c *cobra.Command) *connect.Options {
	o, f := new(connect.Options), c.Flags()
	f.StringArrayVarP(&o.Headers, "header", "H", nil, "send a header, as in 'Name: value'; again for more; Host too")
	f.StringVar(&o.Origin, "origin", "", "say which page asks, as in https://www.example.com")
	f.StringSliceVarP(&o.Subprotocols, "subprotocol", "s", nil, "offer a subprotocol; again for more, the best first")
	f.BoolVar(&o.Compression, "compression", false, "offer permessage-deflate")
	f.StringVar(&o.Address, "address", "", "connect to this host:port, whatever the URL's host leads to")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Second, "how long connecting may take, with the handshakes")
	f.StringVar(&o.CA, "ca", "", "trust the roots in this PEM file, besides the system's")
	f.StringVar(&o.Cert, "cert", "", "the client's certificate, a PEM file")
	f.StringVar(&o.Key, "key", "", "and its key")
	f.BoolVar(&o.Insecure, "insecure", false, "trust any certificate")
	f.BoolVar(&o.Binary, "binary", false, "send the input in binary messages, write payloads as they come")
	f.BoolVar(&o.Commands, "commands", false, "take lines of piped input that begin with / as commands, as those that are typed")
	f.IntVarP(&o.Count, "count", "n", 0, "end after so many messages")
	f.DurationVar(&o.Wait, "wait", time.Second,
		"when piped input has ended, go on until no message came for so long; -1s: for ever, as with --count")
	f.BoolVar(&o.Hex, "hex", false, "show binary messages as hex alone, however long")
	f.BoolVar(&o.Timestamps, "timestamps", false, "show when")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "show messages alone")
	f.BoolVarP(&o.Verbose, "verbose", "v", false, "show the certificate and the answer's headers as well")
	return o
}

func oneURL(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return misused(c, errors.New("connect needs one URL, as in wss://example.com/path"))
	}
	return nil
}

// runConnect runs the client between the standard streams. The first signal closes the socket in good order, the second ends it.
func runConnect(cmd *cobra.Command, client *connect.Client) error {
	now, end := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer end()
	context.AfterFunc(cmd.Context(), func() {
		again, stop := signal.NotifyContext(now, os.Interrupt, syscall.SIGTERM)
		defer stop()
		<-again.Done()
		end()
	})
	// A reader of ours that ends, as head does, is told by the next write, and not by a signal: the socket is to be closed.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)

	in, out := cmd.InOrStdin(), cmd.OutOrStdout()
	return client.Run(cmd.Context(), now, connect.Terminal{
		In: in, Out: out, Notes: cmd.ErrOrStderr(), Typed: isTerminal(in), Shown: isTerminal(out),
	})
}

// isTerminal tells whether a stream is a terminal: a character device, but for the null device.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
