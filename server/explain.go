package server

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"bridgehead/config"
	"bridgehead/hub"
	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/policy/auth"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
	"bridgehead/routes"
	certs "bridgehead/tls"
	"bridgehead/ws"
)

// A Question is a client whose way is to be explained.
type Question struct {
	URL          *url.URL    // ws and wss for a socket, http and https for a page
	Peer         netip.Addr  // where its connection comes from; the zero Addr is some client
	Header       http.Header // beside those of the handshake; Host too
	Subprotocols []string    // that it offers
	Token        string      // to be put where the route looks for one first; "": none
}

// Explain tells what a program of this configuration would do with a client. It is found out by the code that serves, and touches
// nothing: no port is opened, no backend asked, no certificate made. Beside the configuration it reads the certificates that are
// listed, not their keys, and looks for the one file that a page asks for. The error is for a client that cannot be.
func Explain(c *config.Config, q Question) (*Explanation, error) {
	x := &explainer{
		Explanation: Explanation{URL: q.URL.Redacted(), Config: c.File, OK: true, Status: http.StatusOK}, config: c, question: q,
		table: routeTable(c), document: readAgain(c.File),
	}
	if !isPage(q.URL) {
		x.Status = http.StatusSwitchingProtocols
	}
	if err := x.arrive(); err != nil {
		return nil, err
	}
	x.explainListener()
	if x.reach.listener.Redirect {
		x.explainRedirect()
	} else {
		x.explainRoute()
	}
	x.explainAnswer()
	return &x.Explanation, nil
}

// An explainer is an Explanation in the making.
type explainer struct {
	Explanation
	config   *config.Config
	question Question
	table    *routes.Table
	document *yamlpos.Document // nil: lines are not known
	reach    reach
	request  *http.Request
	notes    []string // on the answer
}

// routeTable has the routes, without handlers.
func routeTable(c *config.Config) *routes.Table {
	all := make([]routes.Route, len(c.Routes))
	for i := range c.Routes {
		pattern, _ := c.Routes[i].Pattern() // which was validated
		all[i] = routes.Route{Name: c.Routes[i].Name, Pattern: pattern, Listeners: c.Routes[i].Listeners}
	}
	return routes.New(all)
}

// arrive finds the listener: of those that the URL may lead to the first that has a route for it, or else the first.
func (x *explainer) arrive() error {
	for _, r := range reaches(x.config.Listeners, x.question.URL) {
		request, err := x.question.request(r.listener)
		if err != nil {
			return err
		}
		_, matches := x.table.Match(r.listener.Name, request)
		if matches || x.request == nil {
			x.reach, x.request = r, request
		}
		if matches {
			return nil
		}
	}
	return nil
}

// request is what arrives at a listener: written as a client does, and read as net/http does.
func (q *Question) request(l *config.Listener) (*http.Request, error) {
	if strings.ContainsFunc(q.URL.Host, func(r rune) bool { return r > 0x7E }) {
		return nil, fmt.Errorf("host %q: write it as clients send it, in its xn-- form", q.URL.Host)
	}
	wire := ws.Request{
		Host: cmp.Or(q.Header.Get("Host"), q.URL.Host), Target: q.URL.RequestURI(), Key: ws.NewKey(),
		Subprotocols: q.Subprotocols, Header: q.Header,
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire.Append(nil))))
	if err != nil {
		return nil, fmt.Errorf("this is no request: %w", err)
	}
	if isPage(q.URL) {
		for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Version", "Sec-Websocket-Key", "Sec-Websocket-Protocol"} {
			r.Header.Del(name)
		}
	}
	if q.URL.User != nil && r.Header.Get("Authorization") == "" {
		password, _ := q.URL.User.Password()
		r.SetBasicAuth(q.URL.User.Username(), password)
	}
	if l.TLS {
		r.TLS = new(tls.ConnectionState)
	}
	r.RemoteAddr = netip.AddrPortFrom(q.peer(l), 50_000).String()
	return r, nil
}

// someone is an address for examples (RFC 5737), as that of a client that nobody has named.
var someone = netip.AddrFrom4([4]byte{203, 0, 113, 1})

// peer is where the connection comes from: if nobody says, from this machine to a listener that takes no others.
func (q *Question) peer(l *config.Listener) netip.Addr {
	switch {
	case q.Peer.IsValid():
		return q.Peer
	case l.IsLocal():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return someone
}

// explainListener tells where the client arrives, and as whom.
func (x *explainer) explainListener() {
	l, u := x.reach.listener, x.question.URL
	x.Listener = l.Name
	text := x.reach.String()
	if l.IsLocal() && !isLoopback(u.Hostname()) && x.reach.note == "" {
		text += "; clients of other machines reach it only through something in front"
	}
	if x.reach.wrong != "" {
		x.add(Step{Subject: "listener", Verdict: No, Status: x.reach.status, Text: text})
	} else {
		x.tell("listener", Yes, "%s", text)
	}
	if l.TLS {
		x.explainCertificate()
		x.explainClientCA(l.ClientCA)
	}
	x.explainClient()
}

// explainClientCA tells which certificate the client has to show.
func (x *explainer) explainClientCA(o *certs.ClientCA) {
	if o == nil {
		return
	}
	host := routes.Hostname(x.question.URL.Host)
	if _, err := netip.ParseAddr(host); err == nil { // it is not named in TLS
		host = strings.ToLower(x.config.Certificates.DefaultSNI)
	}
	asked, requested := o.Asks(host), o.Asks(routes.Hostname(x.request.Host))
	by := "one that " + strings.Join(o.Files, " or ") + " has signed"
	switch {
	case requested && !asked && !o.Optional:
		x.deny("client_ca", http.StatusMisdirectedRequest, "the Host header names a host whose clients have to show a certificate, and the "+
			"TLS handshake another, whose clients are not asked for it")
	case !asked:
		x.tell("client_ca", Yes, "no certificate is asked for: the host is not among client_ca.hosts")
	case o.Optional:
		x.tell("client_ca", Yes, "the client may show a certificate: %s", by)
	default:
		x.tell("client_ca", Unknown, "the client has to show a certificate: %s", by)
		x.notes = append(x.notes, "if the client shows such a certificate")
	}
}

func (x *explainer) explainCertificate() {
	chosen, err := certs.Explain(x.config.Certificates, certNames(secureRoutes(x.config)), routes.Hostname(x.question.URL.Host))
	switch {
	case err != nil:
		x.tell("certificate", Unknown, "%v", err)
	case chosen.OK:
		x.tell("certificate", Yes, "%s", chosen.Text)
	default:
		x.deny("certificate", 0, "%s", chosen.Text)
	}
}

// explainClient tells who the client is, and why.
func (x *explainer) explainClient() {
	peer, trusted := policy.Peer(x.request), x.config.TrustedProxies
	client, _ := trusted.Client(x.request)
	x.Client = client.String()
	text, forwarded := x.Client, x.request.Header.Get("X-Forwarded-For") != ""
	if x.reach.listener.ProxyProtocol {
		text += ", as the PROXY header of a trusted proxy has to say"
	}
	switch {
	case client != peer:
		text += fmt.Sprintf(", as X-Forwarded-For of the trusted proxy %s says", peer)
	case forwarded && !trusted.Trusts(x.request):
		text += ", whose X-Forwarded-For is not believed: it is not among trusted_proxies"
	case trusted.Trusts(x.request):
		text += ", a trusted proxy that names no client in X-Forwarded-For"
	}
	switch {
	case x.question.Peer.IsValid():
	case peer == someone:
		text += " (assumed, an address for examples: --client names another)"
	default:
		text += " (assumed, as the listener takes no connections from other machines: --client names another)"
	}
	x.tell("client", "", "%s", text)
}

// explainRoute finds the route, and asks it.
func (x *explainer) explainRoute() {
	match, ok := x.table.Match(x.Listener, x.request)
	if !ok {
		x.explainMisses()
		return
	}
	r := &x.config.Routes[match.Index]
	x.Route = r.Name
	parts := []string{fmt.Sprintf("%s (%s): %s", r.Name, x.place(yamlpos.Path{"routes", match.Index}), patternText(r))}
	for _, c := range match.Captures {
		if x.Captures == nil {
			x.Captures = make(map[string]string)
		}
		x.Captures[c.Name] = c.Value
		x.request.SetPathValue(c.Name, c.Value)
		parts = append(parts, fmt.Sprintf("%s = %q", c.Name, c.Value))
	}
	x.tell("route", Yes, "%s", strings.Join(parts, "; "))
	if r.Files != nil {
		x.explainFiles(r)
		return
	}
	x.explainProxy(r)
}

// patternText is a route's host and path as people read them.
func patternText(r *config.Route) string {
	return "host " + cmp.Or(r.Host, "any") + ", path " + cmp.Or(r.Path, "any")
}

// explainFiles looks for the file as the program would.
func (x *explainer) explainFiles(r *config.Route) {
	row, err := newFiles(r)
	if err != nil {
		x.tell("files", Unknown, "%v", err)
		x.notes = append(x.notes, "if there is such a file")
		return
	}
	head := x.request.Clone(x.request.Context())
	head.Method = http.MethodHead // which is answered as GET, without the content
	if !x.explainGate(r, head) {
		return
	}
	answer := record(row.handler, head)
	text := fmt.Sprintf("%s from the directory %s", answerText(answer.status), r.Files.Dir)
	switch {
	case !isPage(x.question.URL):
		x.deny("files", answer.status, "the route serves files from the directory %s, and no sockets", r.Files.Dir)
	case answer.status >= http.StatusBadRequest:
		x.deny("files", answer.status, "%s", text)
	default:
		x.Status = answer.status
		x.tell("files", Yes, "%s", text)
	}
}

// explainProxy asks the policies and the bridge of a route.
func (x *explainer) explainProxy(r *config.Route) {
	p, err := x.proxy(r)
	if err != nil {
		x.tell("backend", Unknown, "%v", err)
		return
	}
	if x.question.Token != "" && !p.Present(x.request, x.question.Token) {
		x.notes = append(x.notes, "the token is put nowhere, as the route looks for none")
	}
	x.hide(p.Secrets())
	for _, v := range p.Explain(x.request) {
		step := stepOf(v)
		if v.Plan != nil {
			step.Verdict, step.Notes = Unknown, v.Plan.Notes
			x.plan(v.Plan)
		}
		if v.Subject == "origin" && x.request.Header["Origin"] == nil {
			step.Text += "; --origin gives one"
		}
		x.add(step)
	}
}

// stepOf is a verdict as a step.
func stepOf(v proxy.Verdict) Step {
	step := Step{Subject: v.Subject, Verdict: Yes, Text: v.Text}
	if v.Refusal != nil {
		step.Verdict, step.Status, step.body = No, v.Refusal.Status, string(v.Refusal.Body)
	}
	if v.Unknown {
		step.Verdict = Unknown
	}
	return step
}

// explainGate tells whom a route without sockets lets in. It is false if nobody can tell.
func (x *explainer) explainGate(r *config.Route, request *http.Request) bool {
	p, err := x.plans(r)
	var gate *proxy.Gate
	if err == nil {
		pattern, _ := r.Pattern() // which was validated
		gate, err = p.gate(r, pattern.HasHost())
	}
	switch {
	case err != nil:
		x.tell("auth", Unknown, "%v", err)
		return false
	case gate == nil:
		return true
	}
	if x.question.Token != "" && !gate.Present(request, x.question.Token) {
		x.notes = append(x.notes, "the token is put nowhere, as the route looks for none")
	}
	x.hide(gate.Auth.Secrets())
	for _, v := range gate.Explain(request) {
		x.add(stepOf(v))
	}
	return true
}

// hide takes tokens out of the URL that is shown.
func (x *explainer) hide(secrets []string) {
	u := *x.question.URL
	query := u.Query()
	for _, name := range secrets {
		if query.Has(name) {
			query.Set(name, "xxxxx") // as the password, which Redacted hides so
			u.RawQuery = query.Encode()
		}
	}
	x.URL = u.Redacted()
}

// plan takes over what a bridge would do.
func (x *explainer) plan(p *proxy.Plan) {
	x.Backends = p.To
	switch {
	case isPage(x.question.URL):
		x.notes = append(x.notes, "if the backend agrees")
	case p.Subprotocol != "":
		x.notes = append(x.notes, "with the subprotocol "+p.Subprotocol)
	case p.Chooses && len(x.question.Subprotocols) > 0:
		x.notes = append(x.notes, "without any of the subprotocols, so that a browser fails the socket: list one under tcp.subprotocols")
	}
}

// proxy is the route's, of a program that never begins.
func (x *explainer) proxy(r *config.Route) (*proxy.Proxy, error) {
	p, err := x.plans(r)
	if err != nil {
		return nil, err
	}
	pattern, err := r.Pattern()
	if err != nil {
		return nil, err
	}
	terms, err := p.terms(r, pattern.HasHost())
	if err != nil {
		return nil, err
	}
	return proxy.New(p.server.proxyConfig(r.Name), terms)
}

// plans are those of a program that never begins, with what the route needs.
func (x *explainer) plans(r *config.Route) (*plan, error) {
	s := x.sketch()
	entries := x.config.Groups()
	for name, o := range entries {
		o.TLS = upstream.TLS{} // without its files
		entries[name] = o
	}
	groups, err := upstream.NewGroups(entries, upstream.Setup{Log: s.log})
	if err != nil {
		return nil, err
	}
	asked := make(map[string]auth.Options)
	for _, name := range r.Auth.Names() {
		asked[name] = x.config.Authenticators[name]
	}
	set, err := auth.NewSet(asked, nil, auth.Setup{Log: s.log, Still: true})
	if err != nil {
		return nil, err
	}
	return &plan{server: s, generation: &generation{config: x.config, groups: groups, auth: set}}, nil
}

// sketch is a program that has nothing but its listeners' addresses.
func (x *explainer) sketch() *Server {
	s := &Server{
		log: slog.New(slog.DiscardHandler), hub: hub.New(), limits: policy.NewStore(1), capacity: policy.NewCapacity(x.config.MaxConnections),
	}
	g := &generation{config: x.config}
	for _, l := range x.config.Listeners {
		g.fronts = append(g.fronts, &front{name: l.Name, public: true, secure: l.TLS, socket: unopened{address: tcpAddress(&l)}})
	}
	s.now.Store(g)
	return s
}

// An unopened listener has an address, and that is all.
type unopened struct {
	net.Listener
	address net.Addr
}

func (u unopened) Addr() net.Addr { return u.address }

// tcpAddress is the first address of a listener that has a port; nil: none has.
func tcpAddress(l *config.Listener) net.Addr {
	for _, address := range l.Address {
		if port, err := strconv.Atoi(portAt(address)); err == nil {
			return &net.TCPAddr{Port: port}
		}
	}
	return nil
}

// explainRedirect tells where a listener sends its clients.
func (x *explainer) explainRedirect() {
	answer := record(http.HandlerFunc(x.sketch().redirect), x.request)
	if to := answer.header.Get("Location"); to != "" {
		x.Status = answer.status
		x.notes = append(x.notes, "to "+to)
		return
	}
	x.add(Step{Subject: "redirect", Verdict: No, Status: answer.status, body: answer.body.String(),
		Text: "WebSocket clients follow no redirects: use a wss:// URL"})
}

// explainAnswer sums up.
func (x *explainer) explainAnswer() {
	text := answerText(x.Status)
	switch {
	case x.body != "":
		line, _, _ := strings.Cut(x.body, "\n")
		text += fmt.Sprintf(": %q", line)
	case x.OK && !isPage(x.question.URL):
		text += ", if the backend agrees"
	}
	if x.OK {
		text = strings.Join(append([]string{text}, x.notes...), ", ")
	} else if !isPage(x.question.URL) {
		text += "; a browser's script sees close code 1006 and no reason"
	}
	x.Steps = append(x.Steps, Step{Subject: "answer", Asked: true, Text: text})
}

// A recorder keeps the answer of a handler.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func record(h http.Handler, r *http.Request) *recorder {
	a := &recorder{header: http.Header{}}
	h.ServeHTTP(a, r)
	a.status = cmp.Or(a.status, http.StatusOK)
	return a
}

// Header is http.ResponseWriter's.
func (a *recorder) Header() http.Header { return a.header }

// WriteHeader is http.ResponseWriter's.
func (a *recorder) WriteHeader(status int) { a.status = cmp.Or(a.status, status) }

// Write is http.ResponseWriter's.
func (a *recorder) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}
