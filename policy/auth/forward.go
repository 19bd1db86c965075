package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
)

// Forward are the options of an endpoint that decides.
type Forward struct {
	// The endpoint, an http or https URL. It gets a GET with what the client sent, and lets it in by any 2xx. A redirect or a 4xx of
	// its reaches the client as it is.
	URL string `yaml:"url"`
	// Headers of the client that the endpoint gets, beside X-Forwarded-For, -Host, -Method, -Proto and -Uri and X-Original-URL. The
	// client's cookies go there only for pages that `origins` allows by name.
	RequestHeaders []string `yaml:"request_headers"`
	// Headers of the endpoint's 2xx that the upstream gets in place of the client's own.
	Headers []string `yaml:"headers"`
	// The header of the endpoint's 2xx that names the user, such as X-Auth-Request-User. Default: none.
	User string `yaml:"user"`
	// Claims that headers of the endpoint's 2xx give: names, each with its header.
	Claims map[string]string `yaml:"claims"`
	// How long the endpoint may take to answer.
	Timeout time.Duration `yaml:"timeout"`
	// The greatest number of questions under way at once; more wait for as long as one may take.
	InFlight int `yaml:"in_flight"`
	// How long a 2xx is good for the same request again, 5m at most.
	Cache time.Duration `yaml:"cache"`
	// How often the endpoint is asked again for as long as the socket is open; one that it refuses is closed, and so is one of another
	// user by then. An endpoint that does not answer is asked twice more before that.
	Recheck time.Duration `yaml:"recheck"`
	// A PEM file with the authorities that sign the endpoint's certificate, read again when it changes. Default: those of the system.
	CA string `yaml:"ca"`
}

// DefaultForward has the values of keys that are not given.
func DefaultForward() Forward {
	return Forward{RequestHeaders: []string{"Authorization", "Cookie", "User-Agent"}, Timeout: 5 * time.Second, InFlight: 64}
}

const (
	maxCache        = 5 * time.Minute
	leastRecheck    = time.Second
	largestRefusal  = 64 << 10 // of the body of a refusal, which reaches the client
	drainedOfAnswer = 4 << 10  // of the body of a 2xx, to keep the connection
	drainedFor      = 100 * time.Millisecond
)

// Validate reports what cannot work.
func (o *Forward) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	validateURL(o.URL, at.Key("url"), p)
	for _, list := range []struct {
		key   string
		names []string
	}{{"request_headers", o.RequestHeaders}, {"headers", o.Headers}} {
		for i, name := range list.names {
			validateHeader(name, at.Key(list.key).Index(i), p)
		}
	}
	if o.User != "" {
		validateHeader(o.User, at.Key("user"), p)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Claims)) {
		validateHeader(o.Claims[name], at.Key("claims").Key(name), p)
	}
	validatePositive(o.Timeout, at.Key("timeout"), p)
	if o.InFlight < 1 {
		p.Add(at.Key("in_flight"), "must be 1 at least, else nobody is ever let in")
	}
	if o.Cache < 0 || o.Cache > maxCache {
		p.Add(at.Key("cache"), "must lie between off and 5m: whoever is locked out comes in for so long")
	}
	if o.Recheck != 0 && o.Recheck < leastRecheck {
		p.Add(at.Key("recheck"), "must be 1s at least, or off")
	}
}

// ofConnection are the headers that belong to one connection, or to a body (RFC 9110, section 7.6.1).
var ofConnection = []string{
	"host", "connection", "upgrade", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "transfer-encoding", "content-length",
}

// fieldName is what a header may be called (RFC 9110, section 5.6.2).
var fieldName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

func validateHeader(name string, at yamlpos.Path, p *yamlpos.Problems) {
	switch f := fold(name); {
	case !fieldName.MatchString(name):
		p.Add(at, "%q cannot be the name of a header", name)
	case slices.Contains(ofConnection, f), strings.HasPrefix(f, "sec-websocket-"):
		p.Add(at, "%s belongs to the handshake and is not passed on", name)
	}
}

// An endpoint is the authenticator that asks another.
type endpoint struct {
	options   *Forward
	transport *transport
	inFlight  chan struct{} // holds one element per question under way
	cache     *cache
	still     bool
	log       *slog.Logger
	stopped   context.Context
	stop      context.CancelFunc
}

func (o *Forward) open(with Setup) (authenticator, error) {
	transport, err := newTransport(o.CA, o.InFlight, with)
	if err != nil {
		return nil, err
	}
	e := &endpoint{
		options: o, transport: transport, inFlight: make(chan struct{}, o.InFlight), cache: newCache(o.Cache), still: with.Still, log: with.Log,
	}
	e.stopped, e.stop = context.WithCancel(context.Background())
	return e, nil
}

func (e *endpoint) places() []place { return nil }

// headers are those that only the endpoint may say.
func (e *endpoint) headers() []string { return e.options.Headers }

func (e *endpoint) close() {
	e.stop()
	e.transport.close()
}

// check asks the endpoint, or remembers what it said to the same question.
func (e *endpoint) check(ctx context.Context, a *ask) (*Identity, error) {
	if e.still {
		return &Identity{Proof: "by " + e.options.URL}, &Unasked{"it depends on what " + e.options.URL + " answers, which is not asked here", true}
	}
	question := e.question(a)
	sum := digest(question)
	if id := e.cache.get(sum, time.Now()); id != nil {
		return e.rechecked(id, question), nil
	}
	id, err := e.ask(ctx, question)
	if denied, ok := errors.AsType[*Denied](err); ok && a.noCookies != nil && a.Request.Header["Cookie"] != nil && !denied.undecided() {
		denied.Err = fmt.Errorf("%w; the client's cookies were not sent: %w", denied.Err, a.noCookies)
	}
	if err != nil {
		return nil, err
	}
	e.cache.put(sum, id, time.Now())
	return e.rechecked(id, question), nil
}

// question is what the endpoint is told of a client. It holds nothing of the request but what it says.
func (e *endpoint) question(a *ask) http.Header {
	r, q := a.Request, http.Header{}
	for _, name := range e.options.RequestHeaders {
		name = http.CanonicalHeaderKey(name)
		if lines := r.Header[name]; len(lines) > 0 && (name != "Cookie" || a.noCookies == nil) {
			for _, line := range lines {
				q.Add(name, strings.Clone(line))
			}
		}
	}
	proto := "http"
	if a.TLS {
		proto = "https"
	}
	uri := r.URL.RequestURI()
	q.Set("X-Forwarded-Method", r.Method)
	q.Set("X-Forwarded-Proto", proto)
	q.Set("X-Forwarded-Host", strings.Clone(r.Host))
	q.Set("X-Forwarded-Uri", uri)
	q.Set("X-Forwarded-For", a.Client.String())
	q.Set("X-Original-Url", proto+"://"+r.Host+uri)
	if origin := r.Header.Get("Origin"); origin != "" {
		q.Set("Origin", strings.Clone(origin))
	}
	if q["User-Agent"] == nil {
		q.Set("User-Agent", "bridgehead")
	}
	return q
}

// digest tells questions apart.
func digest(q http.Header) [sha256.Size]byte {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(q)) {
		for _, line := range q[name] {
			fmt.Fprintf(h, "%d:%s%d:%s", len(name), name, len(line), line)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// ask asks the endpoint once.
func (e *endpoint) ask(ctx context.Context, question http.Header) (*Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, e.options.Timeout)
	defer cancel()
	defer context.AfterFunc(e.stopped, cancel)()
	select {
	case e.inFlight <- struct{}{}:
		defer func() { <-e.inFlight }()
	case <-ctx.Done():
		return nil, e.unanswered(ctx, errors.New("in_flight questions are under way already, and none ended in time"))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.options.URL, nil)
	if err != nil {
		return nil, unavailable(http.StatusBadGateway, "%w", err)
	}
	req.Header = question.Clone()
	resp, err := e.transport.RoundTrip(req)
	if err != nil {
		return nil, e.unanswered(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		defer time.AfterFunc(drainedFor, cancel).Stop()
		_, _ = io.CopyN(io.Discard, resp.Body, drainedOfAnswer) // a larger or later one costs the connection
		return e.identity(resp.Header), nil
	}
	return nil, e.refusal(ctx, resp)
}

// unanswered says why the endpoint has not decided.
func (e *endpoint) unanswered(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case e.stopped.Err() != nil:
		return unavailable(http.StatusServiceUnavailable, "the authenticator was replaced by a reload")
	case errors.Is(cause, context.DeadlineExceeded), isTimeout(err):
		return unavailable(http.StatusGatewayTimeout, "%s has not answered within %s", e.options.URL, e.options.Timeout)
	case cause != nil:
		return cause
	}
	return unavailable(http.StatusBadGateway, "%s cannot be asked: %w", e.options.URL, err)
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// identity is what the endpoint says of a client that it lets in.
func (e *endpoint) identity(h http.Header) *Identity {
	id := &Identity{Header: http.Header{}, Cookies: slices.Clone(h["Set-Cookie"])}
	for _, name := range e.options.Headers {
		name = http.CanonicalHeaderKey(name)
		if lines := h[name]; len(lines) > 0 {
			id.Header[name] = slices.Clone(lines)
		}
	}
	if e.options.User != "" {
		id.User = h.Get(e.options.User)
	}
	for name, header := range e.options.Claims {
		if lines := h.Values(header); len(lines) > 0 {
			if id.Claims == nil {
				id.Claims = policy.Claims{}
			}
			id.Claims[name] = strings.Join(lines, ", ")
		}
	}
	id.Proof = "let in by " + e.options.URL
	return id
}

// passing are the headers of a refusal that reach the client.
var passing = []string{"Location", "Www-Authenticate", "Set-Cookie", "Retry-After", "Content-Type", "Cache-Control"}

// refusal hands the endpoint's no to the client. What is neither yes nor no is a fault.
func (e *endpoint) refusal(ctx context.Context, resp *http.Response) error {
	class := resp.StatusCode / 100
	if class != 3 && class != 4 {
		return unavailable(http.StatusBadGateway, "%s answered %d, which is neither yes nor no", e.options.URL, resp.StatusCode)
	}
	d := &Denied{Status: resp.StatusCode, Header: http.Header{}, Reason: reasonRefused}
	d.Err = fmt.Errorf("%s answered %d %s", e.options.URL, resp.StatusCode, http.StatusText(resp.StatusCode))
	for _, name := range passing {
		if lines := resp.Header[name]; len(lines) > 0 {
			d.Header[name] = lines
		}
	}
	var body bytes.Buffer
	n, err := io.Copy(&body, io.LimitReader(resp.Body, largestRefusal+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return e.unanswered(ctx, err)
	case err == nil && n <= largestRefusal:
		d.Body = body.Bytes()
	default: // nobody needs half a page
		d.Header.Del("Content-Type")
	}
	return d
}

// misses is how often in a row the endpoint may fail to decide about an open socket.
const misses = 3

// rechecked is the identity of one socket, which is asked about again.
func (e *endpoint) rechecked(id *Identity, question http.Header) *Identity {
	own := *id
	if e.options.Recheck == 0 {
		return &own
	}
	missed := 0
	own.Rechecks = []Recheck{{Every: e.options.Recheck, Ask: func(ctx context.Context) error {
		now, err := e.ask(ctx, question)
		denied, ok := errors.AsType[*Denied](err)
		switch {
		case err == nil && now.User != own.User:
			return deny(reasonForbidden, "the endpoint names another user now")
		case err == nil:
			missed = 0
			return nil
		case ok && !denied.undecided():
			return err
		}
		if missed++; missed < misses {
			e.log.Debug("a socket could not be checked again", "error", err, "missed", missed)
			return nil
		}
		return deny(reasonEndpoint, "nobody could tell whether it may stay, %d times: %w", misses, err)
	}}}
	return &own
}
