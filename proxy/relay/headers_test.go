package relay

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
)

// A caller is a client as the handshake shows it.
type caller struct {
	peer    string // its address; default 192.0.2.7
	host    string // default chat.example
	header  http.Header
	trusted bool // the peer is a proxy of ours
	tls     bool
}

func (c caller) handshake() *proxy.Handshake {
	r := httptest.NewRequest("GET", "/rooms/lobby?x=1", nil)
	r.Host, r.RemoteAddr = "chat.example", "192.0.2.7:4711"
	if c.host != "" {
		r.Host = c.host
	}
	if c.peer != "" {
		r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(c.peer), 4711).String()
	}
	if c.header != nil {
		r.Header = c.header
	}
	r.SetPathValue("room", "lobby")
	r.SetPathValue("evil", "a\r\nX-Evil: 1")
	var proxies policy.Proxies
	if c.trusted {
		for _, network := range []string{"192.0.2.7", "private"} {
			var n policy.Network
			_ = n.UnmarshalText([]byte(network)) // that it is one is tested elsewhere
			proxies.Networks = append(proxies.Networks, n)
		}
	}
	r, from := proxies.Meet(r)
	return &proxy.Handshake{Facts: policy.Facts{Request: r, ConnID: "c_1", Client: from.Client, TLS: c.tls}}
}

// ours are the headers that every upstream gets for the default caller.
var ours = map[string]string{
	"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "chat.example", "X-Real-Ip": "192.0.2.7",
	"X-Connection-Id": "c_1", "Forwarded": "for=192.0.2.7;host=chat.example;proto=http",
}

// with is ours with changes, in the form of a header; "" removes one.
func with(changes map[string]string) http.Header {
	all := maps.Clone(ours)
	maps.Copy(all, changes)
	h := http.Header{}
	for name, value := range all {
		if value != "" {
			h[name] = []string{value}
		}
	}
	return h
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	type m = map[string]string
	for _, c := range []struct {
		rule    string
		options Headers
		client  caller
		host    string // default chat.example
		want    http.Header
	}{
		{"what we say of the client", Headers{}, caller{}, "", with(nil)},
		{"that it speaks TLS", Headers{}, caller{tls: true}, "", with(m{
			"X-Forwarded-Proto": "https", "Forwarded": "for=192.0.2.7;host=chat.example;proto=https",
		})},
		{"IPv6 stands in quotes and brackets (RFC 7239, section 6.1)", Headers{}, caller{peer: "2001:db8::7"}, "", with(m{
			"X-Forwarded-For": "2001:db8::7", "X-Real-Ip": "2001:db8::7", "Forwarded": `for="[2001:db8::7]";host=chat.example;proto=http`,
		})},
		{"a host with a port is no token and is quoted", Headers{}, caller{host: "chat.example:8443"}, "chat.example:8443", with(m{
			"X-Forwarded-Host": "chat.example:8443", "Forwarded": `for=192.0.2.7;host="chat.example:8443";proto=http`,
		})},
		{"and ends no quotes", Headers{}, caller{host: `a";for=1.1.1.1;b="\`}, `a";for=1.1.1.1;b="\`, with(m{
			"X-Forwarded-Host": `a";for=1.1.1.1;b="\`, "Forwarded": `for=192.0.2.7;host="a\";for=1.1.1.1;b=\"\\";proto=http`,
		})},
		{"other headers pass", Headers{}, caller{header: http.Header{
			"Cookie": {"a=1", "b=2"}, "Origin": {"https://page.example"}, "Authorization": {"Bearer x"}, "X-Own": {""},
		}}, "", func() http.Header {
			h := with(m{"Origin": "https://page.example", "Authorization": "Bearer x"})
			h["Cookie"], h["X-Own"] = []string{"a=1", "b=2"}, []string{""}
			return h
		}()},
		{"those of its connection do not (RFC 9110, section 7.6.1)", Headers{}, caller{header: http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Keep-Alive": {"1"}, "Proxy-Connection": {"x"}, "Te": {"trailers"},
			"Trailer": {"X"}, "Transfer-Encoding": {"chunked"}, "Content-Length": {"0"}, "Proxy-Authorization": {"Basic x"},
			"Proxy-Authenticate": {"x"}, "Sec-Websocket-Key": {"k"}, "Sec-Websocket-Extensions": {"e"}, "Sec-Websocket-Own": {"o"},
			"Sec_websocket_protocol": {"p"},
		}}, "", with(nil)},
		{"nor those that its Connection header names", Headers{}, caller{header: http.Header{
			"Connection": {"keep-alive, X-Hop", " x-other ,Upgrade"}, "X-Hop": {"1"}, "X_hop": {"1"}, "X-Other": {"1"}, "X-Kept": {"1"},
		}}, "", with(m{"X-Kept": "1"})},
		{"but it deletes none of ours", Headers{Set: m{"X-Room": "{room}"}}, caller{header: http.Header{
			"Connection": {"X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded, X-Real-IP, X-Connection-Id, X-Room, Host"},
		}}, "", with(m{"X-Room": "lobby"})},
		{"nobody but a trusted proxy speaks for its client", Headers{}, caller{header: http.Header{
			"X-Forwarded-For": {"6.6.6.6"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"evil.example"}, "X-Forwarded-Port": {"1"},
			"X-Forwarded-Server": {"evil"}, "X-Real-Ip": {"6.6.6.6"}, "Forwarded": {"for=6.6.6.6"}, "X-Connection-Id": {"c_2"},
		}}, "", with(nil)},
		{"a trusted proxy is added to, as far as it is believed", Headers{}, caller{trusted: true, tls: true, header: http.Header{
			"X-Forwarded-For": {"6.6.6.6, 203.0.113.9", "10.0.0.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"www.example"},
			"X-Forwarded-Port": {"1"}, "Forwarded": {"for=203.0.113.9", "for=10.0.0.1"}, "X-Real-Ip": {"6.6.6.6"}, "X-Connection-Id": {"c_2"},
		}}, "", with(m{
			"X-Forwarded-For": "203.0.113.9, 10.0.0.1, 192.0.2.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "www.example",
			"X-Forwarded-Port": "1", "X-Real-Ip": "203.0.113.9",
			"Forwarded": "for=203.0.113.9;host=www.example;proto=https, for=10.0.0.1, for=192.0.2.7;host=chat.example;proto=https",
		})},
		{"in the spellings of our own alone", Headers{}, caller{trusted: true, header: http.Header{
			"X_forwarded_for": {"6.6.6.6"}, "X.forwarded.host": {"evil.example"}, "X-Real_ip": {"6.6.6.6"},
		}}, "", with(nil)},

		{"a header is set", Headers{Set: m{"x-room": "in {room}"}}, caller{}, "", with(m{"X-Room": "in lobby"})},
		{"in place of the client's, whatever its spelling", Headers{Set: m{"X-Room": "{room}"}}, caller{header: http.Header{
			"X-Room": {"a", "b"}, "X_room": {"c"}, "X.room": {"d"},
		}}, "", with(m{"X-Room": "lobby"})},
		{"even when there is no value for it", Headers{Set: m{"X-Room": "{header.x-none}"}}, caller{header: http.Header{
			"X-Room": {"forged"},
		}}, "", with(nil)},
		{"ours can be set", Headers{Set: m{"X-Forwarded-For": "{client.ip}", "Forwarded": "for=unknown"}}, caller{}, "", with(m{
			"X-Forwarded-For": "192.0.2.7", "Forwarded": "for=unknown",
		})},
		{"Host is set", Headers{Set: m{"host": "{room}.internal"}}, caller{}, "lobby.internal", with(nil)},
		{"Host stays when there is no value for it", Headers{Set: m{"Host": "{header.x-none}"}}, caller{}, "", with(nil)},
		{"the client's are removed, whatever their spelling", Headers{Remove: []string{"Cookie", "x_secret"}}, caller{header: http.Header{
			"Cookie": {"a"}, "X-Secret": {"b"}, "X_secret": {"c"}, "X.secret": {"d"}, "X-Secrets": {"e"},
		}}, "", with(m{"X-Secrets": "e"})},
		{"ours are removed", Headers{Remove: []string{"X-Forwarded-For", "forwarded"}}, caller{}, "", with(m{"X-Forwarded-For": "", "Forwarded": ""})},
		{"what is set is not removed", Headers{Set: m{"X-A": "1"}, Remove: []string{"X-A"}}, caller{}, "", with(m{"X-A": "1"})},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			hs, err := newHeaders(c.options)
			if err != nil {
				t.Fatal(err)
			}
			host, header := hs.of(c.client.handshake())
			if c.host == "" {
				c.host = "chat.example"
			}
			if host != c.host || !maps.EqualFunc(header, c.want, slices.Equal) {
				t.Errorf("host %s\ngot  %v\nwant %v", host, header, c.want)
			}
		})
	}
}

// The rule for a set of headers that servers read through CGI: there `-`, `_` and `.` are one, and so is every case.
func TestNoSpellingOfAVouchedHeaderPasses(t *testing.T) {
	t.Parallel()
	hs, err := newHeaders(Headers{Set: map[string]string{"X-User": "{room}"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(slices.Clone(said), "X-User", "X-Forwarded-Port", "True-Client-Ip") {
		for _, separator := range []string{"-", "_", "."} {
			for _, spell := range []func(string) string{strings.ToLower, strings.ToUpper, strings.Clone, http.CanonicalHeaderKey} {
				spelled := spell(strings.ReplaceAll(name, "-", separator))
				_, header := hs.of(caller{header: http.Header{spelled: {"forged"}}}.handshake())
				if text := strings.Join(slices.Concat(slices.Collect(maps.Values(header))...), " "); strings.Contains(text, "forged") {
					t.Errorf("%s: %v", spelled, header)
				}
			}
		}
	}
}

// Whatever headers a client sends, the upstream gets ours, and none of the client's that reads like them or like a header of the
// handshake.
func FuzzHeaders(f *testing.F) {
	f.Add("X-Forwarded-For", "1.1.1.1", "X-Real-IP, close")
	f.Add("Connection", "Forwarded", "x")
	f.Add("sec_websocket-key", "x", "")
	f.Fuzz(func(t *testing.T, name, value, connection string) {
		if !token.MatchString(name) || strings.ContainsAny(value+connection, "\r\n\x00") {
			return // net/http reads no such header
		}
		hs, err := newHeaders(Headers{Set: map[string]string{"X-User": "{room}"}})
		if err != nil {
			t.Fatal(err)
		}
		asked := http.Header{"Connection": {connection}}
		asked.Add(name, value)
		host, header := hs.of(caller{header: asked}.handshake())
		want := with(map[string]string{"X-User": "lobby"})
		for name, values := range want {
			if !slices.Equal(header[name], values) {
				t.Errorf("%s is %q, want %q", name, header[name], values)
			}
			delete(header, name)
		}
		for name := range header {
			like := policy.FoldHeader(name)
			if hs.drop[like] || strings.HasPrefix(like, "sec-websocket-") {
				t.Errorf("%s passed", name)
			}
		}
		if host != "chat.example" {
			t.Errorf("host %q", host)
		}
	})
}

func TestValidate(t *testing.T) {
	t.Parallel()
	set := func(name, text string) func(*Options) {
		return func(o *Options) { o.Headers.Set = map[string]string{name: text} }
	}
	remove := func(name string) func(*Options) { return func(o *Options) { o.Headers.Remove = []string{"X-A", name} } }
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string // "" is no problem
	}{
		{"the defaults", func(*Options) {}, ""},
		{"without compression", func(o *Options) { o.Compression = "off" }, ""},
		{"nowhere", func(o *Options) { o.To = nil }, "websocket.to: is missing"},
		{"a stream", func(o *Options) { o.To = upstream.To{"ws://h", "h:1"} }, "websocket.to[1]: "},
		{"no timeout", func(o *Options) { o.Connect.Timeout = 0 }, "websocket.connect.timeout: must be positive"},
		{"unknown compression", func(o *Options) { o.Compression = "gzip" }, "websocket.compression: must be pass or off"},
		{"a header to set", set("X-User", "{user}"), ""},
		{"the host to set", set("hOST", "{room}.internal"), ""},
		{"no name", set("X User", "x"), `websocket.headers.set["X User"]: "X User" is no header name`},
		{"an empty name", set("", "x"), `"" is no header name`},
		{"no template", set("X-User", "{user"), "websocket.headers.set.X-User: "},
		{"the handshake's own", set("connection", "x"), "websocket.headers.set.connection: connection belongs to the handshake"},
		{"the handshake's own in another spelling", set("Keep_Alive", "x"), "Keep_Alive belongs to the handshake"},
		{"the handshake's key", set("Sec_WebSocket_Key", "x"), "Sec_WebSocket_Key belongs to the handshake"},
		{"a header to remove", remove("Cookie"), ""},
		{"no name to remove", remove("a:b"), `websocket.headers.remove[1]: "a:b" is no header name`},
		{"the handshake's own to remove", remove("Upgrade"), "websocket.headers.remove[1]: Upgrade belongs to the handshake"},
		{"no host", remove("Host"), "websocket.headers.remove[1]: Host belongs to the handshake"},
	} {
		o := DefaultOptions()
		o.To = upstream.To{"ws://h/{room}"}
		c.change(&o)
		var p yamlpos.Problems
		o.Validate(yamlpos.Path{"websocket"}, &p)
		if got := p.Error(); !strings.Contains(got, c.want) || p.Len() > 1 || (p.Len() == 0) != (c.want == "") {
			t.Errorf("%s: got %q, want one problem like %q", c.name, got, c.want)
		}
	}
}
