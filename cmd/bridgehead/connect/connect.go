// Package connect is a WebSocket client for people and for pipes: it shows what a server does, from the handshake to the code
// of the Close, and sends what is typed or piped to it.
package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Options say where to connect, how, and what to show.
type Options struct {
	URL          string   // see ParseURL
	Address      string   // host:port to dial; "": as the URL says
	Headers      []string // further lines of the handshake, "Name: value"; Host replaces the URL's
	Origin       string
	Subprotocols []string // offered, in this order
	Compression  bool     // offer permessage-deflate

	Timeout time.Duration // of connecting, with all handshakes

	CA        string // a PEM file of roots that are trusted as well as the system's
	Cert, Key string // PEM files of the client's certificate: both or none
	Insecure  bool   // trust any certificate

	Binary   bool          // carry bytes: what is read goes in binary messages, and payloads are written as they come
	Commands bool          // lines that begin with a slash are commands, also when nobody types them
	Count    int           // end after so many messages; 0: never
	Wait     time.Duration // how long to go on, when piped input has ended, after each message; negative: for ever

	Hex        bool // show binary messages as hex alone
	Timestamps bool
	Quiet      bool // messages alone
	Verbose    bool // and the certificate, the headers, and pings and pongs when nobody types
}

// A Terminal is what a client reads from and writes to. It need not be one.
type Terminal struct {
	In    io.Reader // Run may leave a goroutine that waits in its Read
	Out   io.Writer // for messages
	Notes io.Writer // for everything else
	Typed bool      // In is a terminal
	Shown bool      // Out is a terminal
}

// A Client is ready to connect.
type Client struct {
	options Options
	url     *url.URL // ws or wss
	header  http.Header
	tls     *tls.Config
}

// New checks the options, and reads the files that they name.
func New(o Options) (*Client, error) {
	target, err := ParseURL(o.URL)
	if err != nil {
		return nil, err
	}
	c := &Client{options: o, url: target}
	if c.header, err = parseHeaders(o.Headers); err != nil {
		return nil, err
	}
	if o.Origin != "" {
		c.header.Set("Origin", o.Origin)
	}
	if target.User != nil {
		c.header.Set("Authorization", basic(target.User))
		target.User = nil
	}
	if o.Address != "" {
		if _, _, err := net.SplitHostPort(o.Address); err != nil {
			return nil, fmt.Errorf("address %q: it needs a host and a port, as in 127.0.0.1:8443", o.Address)
		}
	}
	for _, s := range o.Subprotocols {
		if !isToken(s) {
			return nil, fmt.Errorf("subprotocol %q: it must be one word without separators", s)
		}
	}
	if o.Count < 0 {
		return nil, fmt.Errorf("count %d: it must not be negative", o.Count)
	}
	if o.Timeout <= 0 {
		return nil, fmt.Errorf("timeout %v: it must be positive", o.Timeout)
	}
	c.tls, err = tlsConfig(&o, target.Hostname())
	return c, err
}

func tlsConfig(o *Options, host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: host, InsecureSkipVerify: o.Insecure, NextProtos: []string{"http/1.1"}}
	if o.CA != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("read the roots: %w", err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the roots: %s holds no certificate in PEM", o.CA)
		}
		config.RootCAs = roots
	}
	if (o.Cert == "") != (o.Key == "") {
		return nil, errors.New("a client certificate needs both its files, --cert and --key")
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Run connects and goes on until the socket has ended. The end of ctx closes it in good order, that of now at once. The error
// says what to do about it; it is nil if the server closed with 1000 or without a code, or answered our Close.
func (c *Client) Run(ctx, now context.Context, t Terminal) error {
	show := newScreen(&c.options, t)
	defer show.end()
	conn, err := c.dial(ctx, show)
	if err != nil {
		return err
	}
	defer conn.Close()
	return newSession(&c.options, conn, show).run(ctx, now)
}
