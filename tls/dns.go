package tls

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/cloudflare"
	"github.com/libdns/rfc2136"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
)

// DNS says who puts a record into the DNS that shows an authority that a host is ours (dns-01), and takes it away again. It is one of
// `cloudflare`, `rfc2136`, `acme_dns`, `exec` and `webhook`.
type DNS struct {
	// The API of Cloudflare.
	Cloudflare *Cloudflare `yaml:"cloudflare"`
	// A name server that takes updates (RFC 2136), signed by a key (TSIG), as bind, knot and PowerDNS do.
	RFC2136 *RFC2136 `yaml:"rfc2136"`
	// A server of acme-dns, to which a CNAME at `_acme-challenge` of each host leads.
	ACMEDNS *ACMEDNS `yaml:"acme_dns"`
	// A command and its arguments, run with `present` or `cleanup`, the name of the record and its text behind them. It must wait until
	// every name server knows the record, and exit with 0.
	Exec []string `yaml:"exec"`
	// A URL that gets a POST of `{"action": "present", "name": "_acme-challenge.example.com", "value": "…"}`, and one with `cleanup`
	// afterwards. It must answer 2xx, and not before every name server knows the record.
	Webhook string `yaml:"webhook"`
	// The hosts that it is for: `*.example.com`, for every name below, or `chat.example.org`. Default: all.
	Hosts []string `yaml:"hosts"`
	// How long to wait after the record was put there, before looking for it.
	Delay time.Duration `yaml:"delay"`
	// How long to look for the record in the DNS until the authority is told of it; `off` does not look. With `exec` and `webhook` nobody
	// looks.
	Timeout time.Duration `yaml:"timeout"`
	// Name servers to ask, as `host:port`. Default: the system's, and those that the domain belongs to.
	Resolvers []string `yaml:"resolvers"`
}

// DefaultDNS are the values of keys that are not given.
func DefaultDNS() DNS { return DNS{Timeout: 2 * time.Minute} }

// Cloudflare is an account there.
type Cloudflare struct {
	// An API token that may read the zone and edit its DNS.
	Token unit.Secret `yaml:"token"`
}

// RFC2136 is a name server that takes updates.
type RFC2136 struct {
	// Its address, `host:port`.
	Server string `yaml:"server"`
	// The name of the key.
	KeyName string `yaml:"key_name"`
	// The key, in base64.
	Key unit.Secret `yaml:"key"`
	// How updates are signed: `hmac-sha256`, `hmac-sha384` or `hmac-sha512`.
	Algorithm string `yaml:"algorithm"`
}

// DefaultRFC2136 are the values of keys that are not given.
func DefaultRFC2136() RFC2136 { return RFC2136{Algorithm: "hmac-sha256"} }

// ACMEDNS is an account at an acme-dns server.
type ACMEDNS struct {
	// The URL of the server.
	Server string `yaml:"server"`
	// The account, as the server gave it.
	Username string `yaml:"username"`
	// Its password.
	Password unit.Secret `yaml:"password"`
	// Its subdomain.
	Subdomain string `yaml:"subdomain"`
}

// provider is the index of who sets the records for a host, or a wildcard; -1: nobody.
func (o *Options) provider(subject string) int {
	if certmagic.SubjectIsIP(subject) { // RFC 8738, section 7
		return -1
	}
	return slices.IndexFunc(o.DNS, func(d DNS) bool { return matchesHost(d.Hosts, subject) })
}

func (d *DNS) validate(at yamlpos.Path, p *yamlpos.Problems) {
	var given []string
	for _, way := range []struct {
		key   string
		given bool
	}{
		{"cloudflare", d.Cloudflare != nil}, {"rfc2136", d.RFC2136 != nil}, {"acme_dns", d.ACMEDNS != nil},
		{"exec", len(d.Exec) > 0}, {"webhook", d.Webhook != ""},
	} {
		if way.given {
			given = append(given, way.key)
		}
	}
	switch {
	case len(given) == 0:
		p.Add(at, "says nobody who sets records: give it one of cloudflare, rfc2136, acme_dns, exec and webhook")
	case len(given) > 1:
		p.Add(at.Key(given[1]), "stands beside %s: one of them sets records", given[0])
	}
	d.validateProvider(at, p)
	if d.Webhook != "" {
		validateHTTP(at.Key("webhook"), p, d.Webhook)
	}
	for i, resolver := range d.Resolvers {
		if _, _, err := net.SplitHostPort(resolver); err != nil {
			p.Add(at.Key("resolvers").Index(i), "%q is no address: write host:port, such as 9.9.9.9:53", resolver)
		}
	}
	validatePatterns(at.Key("hosts"), p, d.Hosts)
}

func (d *DNS) validateProvider(at yamlpos.Path, p *yamlpos.Problems) {
	missing := func(at yamlpos.Path, key, value, what string) {
		if value == "" {
			p.Add(at, "%s is missing: %s", key, what)
		}
	}
	if c := d.Cloudflare; c != nil {
		missing(at.Key("cloudflare"), "token", c.Token.Reveal(), "an API token that may read the zone and edit its DNS")
	}
	if r := d.RFC2136; r != nil {
		at := at.Key("rfc2136")
		if _, _, err := net.SplitHostPort(r.Server); err != nil {
			p.Add(at.Key("server"), "%q is no address: write host:port, such as 10.0.0.53:53", r.Server)
		}
		missing(at, "key_name", r.KeyName, "the name of the key that the server knows")
		missing(at, "key", r.Key.Reveal(), "the key in base64, best as ${NAME} from the environment")
		p.OneOf(at.Key("algorithm"), r.Algorithm, "hmac-sha256", "hmac-sha384", "hmac-sha512")
	}
	if a := d.ACMEDNS; a != nil {
		at := at.Key("acme_dns")
		validateHTTP(at.Key("server"), p, a.Server)
		missing(at, "username", a.Username, "as the server gave it")
		missing(at, "password", a.Password.Reveal(), "as the server gave it")
		missing(at, "subdomain", a.Subdomain, "as the server gave it")
	}
}

func validateHTTP(at yamlpos.Path, p *yamlpos.Problems, text string) {
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		p.Add(at, "%q is no URL: write it as https://host/path", text)
	}
}

// solver makes records for an authority.
func (d *DNS) solver(logger *zap.Logger) acmez.Solver {
	var provider certmagic.DNSProvider
	switch {
	case d.Cloudflare != nil:
		provider = &cloudflare.Provider{APIToken: d.Cloudflare.Token.Reveal()}
	case d.RFC2136 != nil:
		r := d.RFC2136
		provider = &rfc2136.Provider{KeyName: r.KeyName, KeyAlg: r.Algorithm, Key: r.Key.Reveal(), Server: r.Server}
	case d.ACMEDNS != nil:
		return &recordSolver{d.ACMEDNS.set, d.Delay}
	case d.Webhook != "":
		return &recordSolver{d.post, d.Delay}
	default:
		return &recordSolver{d.run, d.Delay}
	}
	timeout := d.Timeout
	if timeout == 0 {
		timeout = -1 // do not look
	}
	return &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
		DNSProvider: provider, TTL: time.Minute, PropagationDelay: d.Delay, PropagationTimeout: timeout,
		Resolvers: d.Resolvers, Logger: logger,
	}}
}

// A recordSolver has somebody else set the whole record, who knows where it belongs.
type recordSolver struct {
	act   func(ctx context.Context, action, name, value string) error
	delay time.Duration
}

// What is done with a record.
const (
	present = "present"
	cleanup = "cleanup"
)

// The bounds of the two actions. The first may have to wait for every name server; the end of the program may have to wait for the
// second.
const (
	presentTimeout = 5 * time.Minute
	cleanupTimeout = 30 * time.Second
)

func (s *recordSolver) do(ctx context.Context, action string, timeout time.Duration, c acme.Challenge) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	name := c.DNS01TXTRecordName()
	if err := s.act(ctx, action, name, c.DNS01KeyAuthorization()); err != nil {
		return fmt.Errorf("%s the record %s: %w", action, name, err)
	}
	return nil
}

// Present is acmez.Solver's.
func (s *recordSolver) Present(ctx context.Context, c acme.Challenge) error {
	return s.do(ctx, present, presentTimeout, c)
}

// CleanUp is acmez.Solver's.
func (s *recordSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	return s.do(ctx, cleanup, cleanupTimeout, c)
}

// Wait is acmez.Waiter's.
func (s *recordSolver) Wait(ctx context.Context, _ acme.Challenge) error {
	timer := time.NewTimer(s.delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// run runs the command of `exec`.
func (d *DNS) run(ctx context.Context, action, name, value string) error {
	cmd := exec.CommandContext(ctx, d.Exec[0], append(d.Exec[1:len(d.Exec):len(d.Exec)], action, name, value)...)
	cmd.WaitDelay = time.Second // for children that keep its output open
	out := &tail{max: 1 << 10}
	cmd.Stdout, cmd.Stderr, cmd.Env = out, out, os.Environ()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", d.Exec[0], err, strings.TrimSpace(strings.ToValidUTF8(string(out.kept), "?")))
	}
	return nil
}

// A tail keeps the end of what is written to it.
type tail struct {
	kept []byte
	max  int
}

// Write is io.Writer's.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	t.kept = append(t.kept, p[max(0, n-t.max):]...)
	t.kept = t.kept[max(0, len(t.kept)-t.max):]
	return n, nil
}

// post calls the URL of `webhook`.
func (d *DNS) post(ctx context.Context, action, name, value string) error {
	return postJSON(ctx, d.Webhook, map[string]string{"action": action, "name": name, "value": value}, nil)
}

// set gives a record to an acme-dns server, which forgets the oldest by itself.
func (a *ACMEDNS) set(ctx context.Context, action, _, value string) error {
	if action == cleanup {
		return nil
	}
	return postJSON(ctx, strings.TrimSuffix(a.Server, "/")+"/update", map[string]string{"subdomain": a.Subdomain, "txt": value},
		http.Header{"X-Api-User": {a.Username}, "X-Api-Key": {a.Password.Reveal()}})
}

// postJSON sends a body, and wants 2xx.
func postJSON(ctx context.Context, to string, body any, header http.Header) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(text))
	if err != nil {
		return err
	}
	maps.Copy(r.Header, header)
	r.Header.Set("Content-Type", "application/json")
	return fetch(r)
}

// An answerError is any status but 2xx.
type answerError struct {
	status string
	text   string
}

func (e *answerError) Error() string {
	return strings.TrimSpace("it answers " + e.status + " " + e.text)
}

// fetch wants 2xx. It follows no redirects, and keeps no connections.
func fetch(r *http.Request) error {
	client := &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(r)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok { // without the URL, in which there may be a secret
			err = failed.Err
		}
		return fmt.Errorf("ask %s: %w", r.URL.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		var text []byte
		if resp.StatusCode >= http.StatusBadRequest { // a redirect tells the URL again, in which there may be a secret
			text, _ = io.ReadAll(io.LimitReader(resp.Body, 200))
		}
		return &answerError{resp.Status, strings.TrimSpace(strings.ToValidUTF8(string(text), "?"))}
	}
	return nil
}
