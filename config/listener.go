package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"bridgehead/internal/sockets"
	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
	certs "bridgehead/tls"
)

// A Listener is one address to accept clients on.
type Listener struct {
	// A name for `listeners` in routes and for the log. Default: the address.
	Name string `yaml:"name"`
	// Where to listen, at one address or several: `host:port`; `":8080"` in quotes for every address of this machine;
	// `"[fe80::1%eth0]:443"` with the interface of a link-local address; `unix:/path`; or `systemd:NAME` for the sockets that systemd
	// hands over under that name (`FileDescriptorName` in the socket unit).
	Address []string `yaml:"address"`
	// Who may connect to the Unix sockets: permissions in octal.
	Mode string `yaml:"mode"`
	// Whose the Unix sockets are: `user`, `user:group` or `:group`. Default: the user and group of this program.
	Owner string `yaml:"owner"`
	// Whether clients speak TLS here; its certificates come from `certificates`.
	TLS bool `yaml:"tls"`
	// Ask clients for certificates. What they have proven is told to the backends: in the header `Client-Cert`, in the event `connect` of
	// a webhook, and in `cert.NAME`.
	ClientCA *certs.ClientCA `yaml:"client_ca"`
	// Expect a PROXY header, version 1 or 2, before anything else, and take the client's address from it. Only `trusted_proxies` may
	// connect then.
	ProxyProtocol bool `yaml:"proxy_protocol"`
	// Tell browsers to come by TLS alone from now on (`Strict-Transport-Security`). Default: browsers are told nothing.
	HSTS *HSTS `yaml:"hsts"`
	// Whether clients may speak HTTP/2 here too, and open their WebSockets by it (RFC 8441). A listener without TLS takes those that
	// know it does (h2c with prior knowledge).
	HTTP2 bool `yaml:"http2"`
	// Answer every request with a redirect to https instead of serving routes.
	Redirect bool `yaml:"redirect"`
	// The greatest number of connections, those of open sockets included; more are refused. The fuller it is, the less one address may
	// have: never more than are left for all others, so at most half. `trusted_proxies` and this machine have no such share. 0 is no
	// limit.
	MaxConnections int `yaml:"max_connections"`
	// The greatest number of connections whose first request has not come yet; more are refused, in shares as with `max_connections`.
	// 0 is no limit.
	MaxHandshakes int `yaml:"max_handshakes"`
	// How long a client may take for its TLS handshake, and for the head of a request; and a proxy for its PROXY header.
	HeaderTimeout time.Duration `yaml:"header_timeout"`
	// How long a client may take for a whole request with its body; on a route with `http: true`, for each part of the body.
	BodyTimeout time.Duration `yaml:"body_timeout"`
	// The largest head of a request.
	HeaderSize unit.Size `yaml:"header_size"`
	// The largest body of a request; handshakes have none.
	BodySize unit.Size `yaml:"body_size"`
	// How long an idle connection between requests is kept.
	KeepAlive time.Duration `yaml:"keep_alive"`
}

// HSTS is what browsers are told of a host's security (RFC 6797).
type HSTS struct {
	// How long they remember it.
	MaxAge time.Duration `yaml:"max_age"`
	// Whether it holds for all names below the host's, too.
	Subdomains bool `yaml:"subdomains"`
	// Whether the host may be put on the lists that browsers bring with them. There is hardly a way back.
	Preload bool `yaml:"preload"`
}

// DefaultHSTS has the values of keys that are not given.
func DefaultHSTS() HSTS { return HSTS{MaxAge: year} }

const year = 365 * 24 * time.Hour

// String is the header's value.
func (h *HSTS) String() string {
	text := "max-age=" + strconv.FormatInt(int64(h.MaxAge/time.Second), 10)
	if h.Subdomains {
		text += "; includeSubDomains"
	}
	if h.Preload {
		text += "; preload"
	}
	return text
}

func (h *HSTS) validate(at yamlpos.Path, p *yamlpos.Problems) {
	if h.MaxAge < 0 {
		p.Add(at.Key("max_age"), "must not be negative; off makes browsers forget")
	}
	if h.Preload && (!h.Subdomains || h.MaxAge < year) {
		p.Add(at.Key("preload"), "needs subdomains: true and a max_age of at least 8760h: the lists take no others")
	}
}

// DefaultListener has the values of keys that are not given.
func DefaultListener() Listener {
	return Listener{
		Mode: "0660", MaxHandshakes: 4096, HeaderTimeout: 10 * time.Second, BodyTimeout: 30 * time.Second, KeepAlive: time.Minute,
		HeaderSize: 64 * unit.KiB, BodySize: unit.MiB,
	}
}

// defaultListeners serve a file that names none: host and backend make a complete one.
func defaultListeners() []Listener {
	public, redirect := DefaultListener(), DefaultListener()
	public.Name, public.Address, public.TLS = "https", []string{":443"}, true
	redirect.Name, redirect.Address, redirect.Redirect = "http", []string{":80"}, true
	return []Listener{public, redirect}
}

// Validate reports what cannot work. It looks and never acts.
func (l *Listener) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	l.validateAddress(at, p)
	if l.HSTS != nil && !l.TLS {
		p.Add(at.Key("hsts"), "needs tls: true: browsers do not believe it otherwise (RFC 6797); a proxy in front that ends TLS says it itself")
	} else if l.HSTS != nil {
		l.HSTS.validate(at.Key("hsts"), p)
	}
	for key, n := range map[string]int{"max_connections": l.MaxConnections, "max_handshakes": l.MaxHandshakes} {
		if n < 0 {
			p.Add(at.Key(key), "must not be negative; 0 is no limit")
		}
	}
	if l.ClientCA != nil {
		l.ClientCA.Validate(at.Key("client_ca"), p)
		if !l.TLS && !p.Within(at.Key("client_ca")) {
			p.Add(at.Key("client_ca"), "needs tls: true on this listener: certificates are shown in the TLS handshake")
		}
	}
	if l.TLS && l.Redirect {
		p.Add(at.Key("redirect"), "must not stand beside tls: clients are redirected to https, which they speak here already")
	}
	if l.HeaderTimeout <= 0 {
		p.Add(at.Key("header_timeout"), "must not be off: clients that send nothing would hold connections for ever")
	}
	if l.HeaderSize <= 0 {
		p.Add(at.Key("header_size"), "must not be off: it bounds the memory that a client can take")
	}
}

func (l *Listener) validateAddress(at yamlpos.Path, p *yamlpos.Problems) {
	addresses := l.Address
	if len(addresses) == 0 {
		addresses = []string{""}
	}
	for i, address := range addresses {
		place := at.Key("address")
		if len(addresses) > 1 {
			place = place.Index(i)
		}
		if err := checkAddress(address); err != "" {
			p.Add(place, "%s", err)
		}
	}
	if err := new(sockets.Mode).UnmarshalText([]byte(l.Mode)); err != nil {
		p.Add(at.Key("mode"), "%v", err)
	}
	if err := new(sockets.Owner).UnmarshalText([]byte(l.Owner)); err != nil && l.Owner != "" {
		p.Add(at.Key("owner"), "%v", err)
	}
}

// Access is who may connect to the Unix sockets.
func (l *Listener) Access() (a sockets.Access) {
	_ = a.Mode.UnmarshalText([]byte(l.Mode)) // which was validated
	if l.Owner != "" {
		_ = a.Owner.UnmarshalText([]byte(l.Owner))
	}
	return a
}

const (
	// unixScheme begins the address of a unix socket.
	unixScheme = "unix:"
	// systemdScheme begins the name of a socket that systemd hands over.
	systemdScheme = "systemd:"
)

func isUnix(address string) bool { return strings.HasPrefix(address, unixScheme) }

// checkAddress tells what is wrong with an address to listen on, or "".
func checkAddress(address string) string {
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		if err := sockets.CheckPath(path); err != nil {
			return strconv.Quote(address) + " " + err.Error()
		}
		return ""
	}
	if name, ok := strings.CutPrefix(address, systemdScheme); ok {
		if name == "" || strings.ContainsAny(name, ": /") {
			return strconv.Quote(address) + " has no name: write systemd:NAME, as FileDescriptorName= of the socket unit says"
		}
		return ""
	}
	if address == "" {
		return `is missing: write host:port, or ":443" for all addresses of this machine`
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return strconv.Quote(address) + ` is no address: write host:port, or ":443" for all addresses of this machine`
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return strconv.Quote(address) + " has no port from 0 to 65535"
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == "" {
		return fmt.Sprintf("%q is link-local, and every interface has such addresses: name one, as in \"[%s%%eth0]:%s\"", address, host, port)
	}
	return ""
}

// IsLocal tells whether only this machine can reach the listener. Of sockets that systemd hands over that is not known.
func (l *Listener) IsLocal() bool {
	return !slices.ContainsFunc(l.Address, func(address string) bool { return !isLocal(address) })
}

func isLocal(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	addr, err := netip.ParseAddr(host)
	return isUnix(address) || err == nil && addr.IsLoopback() || host == "localhost"
}

// isHanded tells whether systemd knows the addresses.
func isHanded(address string) bool { return strings.HasPrefix(address, systemdScheme) }
