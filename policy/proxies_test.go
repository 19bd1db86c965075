package policy

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// believing are trusted proxies that speak in a header.
func believing(t testing.TB, header string, list ...string) *Proxies {
	t.Helper()
	return &Proxies{networks(t, list...), header}
}

func TestClient(t *testing.T) {
	t.Parallel()
	const proxy = "10.0.0.1:4711"
	tests := []struct {
		rule, trusted, peer string
		forwarded           []string
		want                string
	}{
		{"without proxies it is the peer", "", "192.0.2.1:99", nil, "192.0.2.1"},
		{"IPv4 in IPv6 is IPv4", "", "[::ffff:192.0.2.1]:99", nil, "192.0.2.1"},
		{"IPv6", "", "[2001:db8::1]:99", nil, "2001:db8::1"},
		{"an untrusted peer is not believed", "10.0.0.0/8", "192.0.2.1:99", []string{"198.51.100.7"}, "192.0.2.1"},
		{"a trusted peer is", "10.0.0.0/8", proxy, []string{"198.51.100.7"}, "198.51.100.7"},
		{"a trusted peer that says nothing", "10.0.0.0/8", proxy, nil, "10.0.0.1"},
		{"a trusted peer that says an empty text", "10.0.0.0/8", proxy, []string{""}, "10.0.0.1"},
		{"what a client wrote itself stands to the left", "10.0.0.0/8", proxy, []string{"1.1.1.1, 198.51.100.7"}, "198.51.100.7"},
		{"over several lines", "10.0.0.0/8", proxy, []string{"1.1.1.1", "198.51.100.7"}, "198.51.100.7"},
		{"proxies in a row", "10.0.0.0/8", proxy, []string{"1.1.1.1, 198.51.100.7, 10.0.0.2", "10.0.0.3"}, "198.51.100.7"},
		{"proxies all the way", "10.0.0.0/8", proxy, []string{"10.0.0.4, 10.0.0.3"}, "10.0.0.4"},
		{"junk ends the walk", "10.0.0.0/8", proxy, []string{"198.51.100.7, junk, 10.0.0.2"}, "10.0.0.2"},
		{"junk first", "10.0.0.0/8", proxy, []string{"198.51.100.7, unknown"}, "10.0.0.1"},
		{"an empty entry is junk", "10.0.0.0/8", proxy, []string{"198.51.100.7,"}, "10.0.0.1"},
		{"a name is junk", "10.0.0.0/8", proxy, []string{"localhost"}, "10.0.0.1"},
		{"a zone is junk", "10.0.0.0/8", proxy, []string{"fe80::1%eth0"}, "10.0.0.1"},
		{"quotes are junk", "10.0.0.0/8", proxy, []string{`"198.51.100.7"`}, "10.0.0.1"},
		{"with a port", "10.0.0.0/8", proxy, []string{"198.51.100.7:5555"}, "198.51.100.7"},
		{"a port that is none", "10.0.0.0/8", proxy, []string{"198.51.100.7:x"}, "10.0.0.1"},
		{"IPv6 entry", "10.0.0.0/8", proxy, []string{"2001:db8::1"}, "2001:db8::1"},
		{"IPv6 entry in brackets", "10.0.0.0/8", proxy, []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"IPv6 entry with a port", "10.0.0.0/8", proxy, []string{"[2001:db8::1]:443"}, "2001:db8::1"},
		{"IPv4 in brackets is junk", "10.0.0.0/8", proxy, []string{"[198.51.100.7]"}, "10.0.0.1"},
		{"IPv4 in IPv6 in brackets", "10.0.0.0/8", proxy, []string{"[::ffff:198.51.100.7]"}, "198.51.100.7"},
		{"an open bracket is junk", "10.0.0.0/8", proxy, []string{"[2001:db8::1"}, "10.0.0.1"},
		{"a bracket alone is junk", "10.0.0.0/8", proxy, []string{"["}, "10.0.0.1"},
		{"a Unix socket is this machine", "loopback", "@", []string{"198.51.100.7"}, "198.51.100.7"},
		{"a Unix socket with a name", "loopback", "/run/x.sock", []string{"198.51.100.7"}, "198.51.100.7"},
		{"a Unix socket without a name", "loopback", "", []string{"198.51.100.7"}, "198.51.100.7"},
		{"a Unix socket is not believed unasked", "10.0.0.0/8", "@", []string{"198.51.100.7"}, "127.0.0.1"},
	}
	for _, tt := range tests {
		r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{"X-Forwarded-For": tt.forwarded}}
		if got := believing(t, "", strings.Fields(tt.trusted)...).Look(r).Client; got.String() != tt.want {
			t.Errorf("%s: %s, want %s", tt.rule, got, tt.want)
		}
	}
}

func TestClientTLS(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule, peer string
		tls        bool
		proto      []string
		want       bool
	}{
		{"TLS here", "192.0.2.1:1", true, nil, true},
		{"no TLS here", "192.0.2.1:1", false, nil, false},
		{"an untrusted peer is not believed", "192.0.2.1:1", false, []string{"https"}, false},
		{"a trusted peer says https", "10.0.0.1:1", false, []string{"https"}, true},
		{"a trusted peer says WSS", "10.0.0.1:1", false, []string{"WSS"}, true},
		{"a trusted peer says http", "10.0.0.1:1", true, []string{"http"}, false},
		{"a trusted peer says nothing", "10.0.0.1:1", true, nil, true},
		{"the last word is the peer's", "10.0.0.1:1", false, []string{"https, http"}, false},
		{"the last line is the peer's", "10.0.0.1:1", false, []string{"http", "https "}, true},
	}
	for _, tt := range tests {
		r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{"X-Forwarded-Proto": tt.proto}}
		if tt.tls {
			r.TLS = new(tls.ConnectionState)
		}
		if got := believing(t, "", "10.0.0.0/8").Look(r).TLS; got != tt.want {
			t.Errorf("%s: %t, want %t", tt.rule, got, tt.want)
		}
	}
}

// The client is the peer, or an address that stands in the header; never one left of an untrusted one.
func FuzzClient(f *testing.F) {
	f.Add("1.1.1.1, [2001:db8::1]:443, 10.0.0.2", "10.0.0.3")
	f.Fuzz(func(t *testing.T, line1, line2 string) {
		r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": {line1, line2}}}
		got := believing(t, "", "10.0.0.0/8").Look(r).Client
		entries := strings.Split(line1+","+line2, ",")
		for i := len(entries) - 1; i >= 0 && got != netip.MustParseAddr("10.0.0.1"); i-- {
			addr, ok := forwardedAddr(entries[i])
			if !ok {
				t.Fatalf("%q: client %s is left of junk", entries, got)
			}
			if addr == got {
				return
			}
			if !networks(t, "10.0.0.0/8").Contain(addr) {
				t.Fatalf("%q: client %s is left of %s", entries, got, addr)
			}
		}
	})
}

// An attack is a request, and as whom and by which headers it passes. The proxies are 10.0.0.0/8.
type attack struct {
	rule, believed, peer string
	header               http.Header
	client               string
	tls                  bool
	doubt                string      // a part of it
	left                 http.Header // what is left of the header; nil: nothing
}

const stranger, proxy1 = "192.0.2.1:99", "10.0.0.1:4711"

var attacks = []attack{
	{"a stranger is not believed", "", stranger, http.Header{"X-Forwarded-For": {"198.51.100.7"}, "X-Forwarded-Proto": {"https"}}, "192.0.2.1", false, "", nil},
	{"nor in any other form", "CF-Connecting-IP", stranger, http.Header{
		"Forwarded": {"for=6.6.6.6"}, "X-Forwarded-For": {"6.6.6.6"}, "X-Forwarded-Host": {"x"}, "X-Forwarded-Port": {"1"}, "X-Forwarded-User": {"root"},
		"X-Forwarded": {"6.6.6.6"}, "X-Real-Ip": {"6.6.6.6"}, "Cf-Connecting-Ip": {"6.6.6.6"}, "True-Client-Ip": {"6.6.6.6"}, "Client-Cert": {":Zg==:"},
	}, "192.0.2.1", false, "", nil},
	{"nor in any spelling", "X-My-Client", stranger, http.Header{
		"X_forwarded_for": {"6.6.6.6"}, "x-forwarded-for": {"6.6.6.6"}, "X.Forwarded_host": {"x"}, "X-Real_ip": {"6.6.6.6"}, "X_MY_CLIENT": {"6.6.6.6"},
		"X-My.Client": {"6.6.6.6"}, "FORWARDED": {"for=6.6.6.6"}, "CLIENT_CERT": {":Zg==:"}, "Client-Cert.Chain": {"x"},
	}, "192.0.2.1", false, "", nil},
	{"one hop, which adds to what the client wrote", "", proxy1, http.Header{"X-Forwarded-For": {"6.6.6.6, 198.51.100.7"}}, "198.51.100.7", false, "",
		http.Header{"X-Forwarded-For": {"198.51.100.7"}, "Forwarded": {"for=198.51.100.7;proto=http"}}},
	{"two hops", "", proxy1, http.Header{"X-Forwarded-For": {"6.6.6.6", "198.51.100.7, 10.0.0.9"}, "X-Forwarded-Proto": {"https"}}, "198.51.100.7", true, "",
		http.Header{
			"X-Forwarded-For": {"198.51.100.7, 10.0.0.9"}, "X-Forwarded-Proto": {"https"},
			"Forwarded": {"for=198.51.100.7;proto=https, for=10.0.0.9"},
		}},
	{"a client that claims to be a proxy", "", proxy1, http.Header{"X-Forwarded-For": {"6.6.6.6, 10.0.0.7, 198.51.100.7"}}, "198.51.100.7", false, "",
		http.Header{"X-Forwarded-For": {"198.51.100.7"}, "Forwarded": {"for=198.51.100.7;proto=http"}}},
	{"IPv4 in IPv6", "", proxy1, http.Header{"X-Forwarded-For": {"6.6.6.6, ::ffff:198.51.100.7, ::ffff:10.0.0.9"}}, "198.51.100.7", false, "",
		http.Header{"X-Forwarded-For": {"198.51.100.7, 10.0.0.9"}, "Forwarded": {"for=198.51.100.7;proto=http, for=10.0.0.9"}}},
	{"IPv6 with brackets and a port", "", proxy1, http.Header{"X-Forwarded-For": {"[2001:db8::7]:443"}}, "2001:db8::7", false, "",
		http.Header{"X-Forwarded-For": {"2001:db8::7"}, "Forwarded": {`for="[2001:db8::7]";proto=http`}}},
	{"an empty entry", "", proxy1, http.Header{"X-Forwarded-For": {"6.6.6.6, , 10.0.0.9"}}, "10.0.0.9", false, `" " is no address`,
		http.Header{"X-Forwarded-For": {"10.0.0.9"}, "Forwarded": {"for=10.0.0.9;proto=http"}}},
	{"a zone", "", proxy1, http.Header{"X-Forwarded-For": {"fe80::1%eth0"}}, "10.0.0.1", false, "is no address", nil},
	{"an address in octal", "", proxy1, http.Header{"X-Forwarded-For": {"0300.0.2.1"}}, "10.0.0.1", false, "is no address", nil},
	{"a number", "", proxy1, http.Header{"X-Forwarded-For": {"3221225985"}}, "10.0.0.1", false, "is no address", nil},
	{"the header that is not believed, from a proxy", "", proxy1, http.Header{"Forwarded": {"for=6.6.6.6"}, "X-Real-Ip": {"6.6.6.6"}}, "10.0.0.1", false, "", nil},
	{"other spellings, from a proxy", "", proxy1, http.Header{"X_forwarded_for": {"6.6.6.6"}, "x-forwarded-for": {"6.6.6.6"}, "X-Forwarded_for": {"6.6.6.6"}}, "10.0.0.1", false, "", nil},
	{"further words of a proxy", "", proxy1, http.Header{"X-Forwarded-Host": {"www.example"}, "X-Forwarded-Port": {"443"}, "X_forwarded_port": {"1"}, "Other": {"1"}},
		"10.0.0.1", false, "", http.Header{"X-Forwarded-Host": {"www.example"}, "X-Forwarded-Port": {"443"}, "Other": {"1"}}},
	{"with the host, if the header has one", "", proxy1, http.Header{"X-Forwarded-For": {"198.51.100.7"}, "X-Forwarded-Host": {"www.example:8443"}}, "198.51.100.7", false, "",
		http.Header{
			"X-Forwarded-For": {"198.51.100.7"}, "X-Forwarded-Host": {"www.example:8443"}, "Forwarded": {`for=198.51.100.7;host="www.example:8443";proto=http`},
		}},

	{"Forwarded", "forwarded", proxy1, http.Header{"Forwarded": {`for=6.6.6.6, for=198.51.100.7;proto=https;by=10.0.0.9, For="10.0.0.9:4711";proto=http`}},
		"198.51.100.7", true, "", http.Header{
			"Forwarded": {`for=198.51.100.7;proto=https;by=10.0.0.9, For="10.0.0.9:4711";proto=http`}, "X-Forwarded-For": {"198.51.100.7, 10.0.0.9"},
		}},
	{"Forwarded over several lines", "Forwarded", proxy1, http.Header{"Forwarded": {"for=6.6.6.6", `for="[2001:db8::7]:_x"`, "for=10.0.0.9"}}, "2001:db8::7", false, "",
		http.Header{"Forwarded": {`for="[2001:db8::7]:_x", for=10.0.0.9`}, "X-Forwarded-For": {"2001:db8::7, 10.0.0.9"}}},
	{"Forwarded with a host", "Forwarded", proxy1, http.Header{"Forwarded": {`host="www.example:8443";for=198.51.100.7`}, "X-Forwarded-Host": {"evil"}}, "198.51.100.7", false, "",
		http.Header{"Forwarded": {`host="www.example:8443";for=198.51.100.7`}, "X-Forwarded-For": {"198.51.100.7"}, "X-Forwarded-Host": {"www.example:8443"}}},
	{"an unclosed quote of the client's", "Forwarded", proxy1, http.Header{"Forwarded": {`for=6.6.6.6;host="`, `for=198.51.100.7`}}, "198.51.100.7", false, "",
		http.Header{"Forwarded": {"for=198.51.100.7"}, "X-Forwarded-For": {"198.51.100.7"}}},
	{"a quote of the client's that is added to", "Forwarded", proxy1, http.Header{"Forwarded": {`for="6.6.6.6, for="198.51.100.7:1"`}}, "198.51.100.7", false, "",
		http.Header{"Forwarded": {`for="198.51.100.7:1"`}, "X-Forwarded-For": {"198.51.100.7"}}},
	{"an escape of the client's that is added to", "Forwarded", proxy1, http.Header{"Forwarded": {`for="\, for=198.51.100.7`}}, "198.51.100.7", false, "",
		http.Header{"Forwarded": {"for=198.51.100.7"}, "X-Forwarded-For": {"198.51.100.7"}}},
	{"commas and quotes in quotes", "Forwarded", proxy1, http.Header{"Forwarded": {`for=198.51.100.7;host="a, for=6.6.6.6, \"b"`}}, "198.51.100.7", false, "", http.Header{
		"Forwarded": {`for=198.51.100.7;host="a, for=6.6.6.6, \"b"`}, "X-Forwarded-For": {"198.51.100.7"}, "X-Forwarded-Host": {`a, for=6.6.6.6, "b`},
	}},
	{"unknown", "Forwarded", proxy1, http.Header{"Forwarded": {"for=6.6.6.6, for=unknown;proto=https, for=10.0.0.9;proto=http"}}, "10.0.0.9", true, "",
		http.Header{"Forwarded": {"for=unknown;proto=https, for=10.0.0.9;proto=http"}, "X-Forwarded-For": {"10.0.0.9"}}},
	{"obfuscated", "Forwarded", proxy1, http.Header{"Forwarded": {`for=6.6.6.6, for="_hidden:_port"`}}, "10.0.0.1", false, "", http.Header{"Forwarded": {`for="_hidden:_port"`}}},
	{"no for", "Forwarded", proxy1, http.Header{"Forwarded": {"for=6.6.6.6, by=10.0.0.1;proto=https"}}, "10.0.0.1", true, "", http.Header{"Forwarded": {"by=10.0.0.1;proto=https"}}},
	{"an empty element", "Forwarded", proxy1, http.Header{"Forwarded": {"for=6.6.6.6, , for=10.0.0.9"}}, "10.0.0.9", false, "",
		http.Header{"Forwarded": {"for=10.0.0.9"}, "X-Forwarded-For": {"10.0.0.9"}}},
	{"X-Forwarded-* beside Forwarded", "Forwarded", proxy1, http.Header{"X-Forwarded-For": {"6.6.6.6"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Port": {"1"}}, "10.0.0.1", false, "", nil},
	{"twice the same", "Forwarded", proxy1, http.Header{"Forwarded": {"for=6.6.6.6;for=10.0.0.9"}}, "10.0.0.1", false, "breaks RFC 7239", nil},
	{"IPv6 without quotes", "Forwarded", proxy1, http.Header{"Forwarded": {"for=[2001:db8::7]"}}, "10.0.0.1", false, "breaks RFC 7239", nil},
	{"IPv6 without brackets", "Forwarded", proxy1, http.Header{"Forwarded": {`for="2001:db8::7"`}}, "10.0.0.1", false, "breaks RFC 7239", nil},
	{"IPv4 in brackets", "Forwarded", proxy1, http.Header{"Forwarded": {`for="[198.51.100.7]"`}}, "10.0.0.1", false, "breaks RFC 7239", nil},
	{"a zone in Forwarded", "Forwarded", proxy1, http.Header{"Forwarded": {`for="[fe80::1%eth0]"`}}, "10.0.0.1", false, "breaks RFC 7239", nil},
	{"a name", "Forwarded", proxy1, http.Header{"Forwarded": {"for=localhost"}}, "10.0.0.1", false, "breaks RFC 7239", nil},
	{"a port too large to be one", "Forwarded", proxy1, http.Header{"Forwarded": {`for="198.51.100.7:123456"`}}, "10.0.0.1", false, "breaks RFC 7239", nil},
	{"a space behind a semicolon", "Forwarded", proxy1, http.Header{"Forwarded": {"for=198.51.100.7; proto=https"}}, "10.0.0.1", false, "breaks RFC 7239", nil},
	{"X-Forwarded-For in Forwarded", "Forwarded", proxy1, http.Header{"Forwarded": {"198.51.100.7"}}, "10.0.0.1", false, "breaks RFC 7239", nil},

	{"a single header", "CF-Connecting-IP", proxy1, http.Header{"Cf-Connecting-Ip": {" 2001:db8::7 "}, "X-Forwarded-For": {"6.6.6.6"}, "X-Forwarded-Proto": {"https"}},
		"2001:db8::7", true, "", http.Header{
			"Cf-Connecting-Ip": {"2001:db8::7"}, "X-Forwarded-For": {"2001:db8::7"}, "X-Forwarded-Proto": {"https"}, "Forwarded": {`for="[2001:db8::7]";proto=https`},
		}},
	{"a single header twice", "CF-Connecting-IP", proxy1, http.Header{"Cf-Connecting-Ip": {"6.6.6.6", "198.51.100.7"}}, "10.0.0.1", false, "CF-Connecting-IP came 2 times", nil},
	{"a list in it", "CF-Connecting-IP", proxy1, http.Header{"Cf-Connecting-Ip": {"6.6.6.6, 198.51.100.7"}}, "10.0.0.1", false, "is not one address", nil},
	{"nothing in it", "CF-Connecting-IP", proxy1, http.Header{"Cf-Connecting-Ip": {""}}, "10.0.0.1", false, "is not one address", nil},
	{"without it", "CF-Connecting-IP", proxy1, http.Header{"Cf_connecting_ip": {"6.6.6.6"}, "X-Forwarded-For": {"6.6.6.6"}, "True-Client-Ip": {"6.6.6.6"}}, "10.0.0.1", false, "", nil},
	{"another one, from a proxy", "X-Real-IP", proxy1, http.Header{"Cf-Connecting-Ip": {"6.6.6.6"}, "X-Real-Ip": {"198.51.100.7"}}, "198.51.100.7", false, "", http.Header{
		"X-Real-Ip": {"198.51.100.7"}, "X-Forwarded-For": {"198.51.100.7"}, "Forwarded": {"for=198.51.100.7;proto=http"},
	}},
}

func TestNobodyIsBelievedWhoIsNotToBe(t *testing.T) {
	t.Parallel()
	for _, a := range attacks {
		t.Run(a.rule, func(t *testing.T) {
			t.Parallel()
			r := &http.Request{RemoteAddr: a.peer, Header: a.header.Clone(), Trailer: a.header.Clone()}
			r.Trailer["X-Sum"] = nil
			met, got := believing(t, a.believed, "10.0.0.0/8").Meet(r)
			if got.Client.String() != a.client || got.TLS != a.tls || !strings.Contains(got.Doubt, a.doubt) || (got.Doubt == "") != (a.doubt == "") {
				t.Errorf("%s, TLS %t, doubt %q; want %s, %t, %q", got.Client, got.TLS, got.Doubt, a.client, a.tls, a.doubt)
			}
			if !maps.EqualFunc(met.Header, a.left, slices.Equal) {
				t.Errorf("left is\n%q, want\n%q", met.Header, a.left)
			}
			delete(met.Trailer, "Other")
			if len(met.Trailer) != 1 {
				t.Errorf("in the trailer is left %q", met.Trailer)
			}
			if strange := a.peer == stranger; (Unbelieved(met) != "") != strange {
				t.Errorf("unbelieved: %q", Unbelieved(met))
			}
		})
	}
}

// What servers take for a header of a proxy's passes in no spelling.
func TestNoSpellingOfAProxysHeaderPasses(t *testing.T) {
	t.Parallel()
	names := append(slices.Collect(maps.Keys(vouching)), "x-forwarded-for", "x-forwarded-proto", "x-forwarded-anything", "x-my-own")
	for _, name := range names {
		for _, separator := range []string{"-", "_", "."} {
			for _, spell := range []func(string) string{strings.ToLower, strings.ToUpper, http.CanonicalHeaderKey} {
				spelled := spell(strings.ReplaceAll(name, "-", separator))
				for _, peer := range []string{stranger, proxy1} {
					r := &http.Request{RemoteAddr: peer, Header: http.Header{spelled: {"forged"}}}
					met, _ := believing(t, "X-My-Own", "10.0.0.0/8").Meet(r)
					if kept := peer == proxy1 && strings.HasPrefix(spelled, "X-Forwarded-") && spelled != XForwardedFor && !strings.ContainsAny(spelled, "_."); len(met.Header) > 0 != kept {
						t.Errorf("%s from %s: %q", spelled, peer, met.Header)
					}
				}
			}
		}
	}
	innocent := http.Header{
		"Client-Certs": {"1"}, "X-Client-Cert": {"3"}, "Clientscert": {"4"}, "X-Forwardedfor": {"5"}, "Forwarded-By": {"6"}, strings.Repeat("X", 500): {"7"},
	}
	if met, _ := new(Proxies).Meet(&http.Request{RemoteAddr: stranger, Header: innocent.Clone()}); len(met.Header) != len(innocent) || Unbelieved(met) != "" {
		t.Errorf("left is %q", met.Header)
	}
}

// A thousand entries, and a thousand lines, cost what reading them costs.
func TestLongChains(t *testing.T) {
	t.Parallel()
	for header, entry := range map[string]string{XForwardedFor: "10.0.0.%d", Forwarded: "for=10.0.0.%d"} {
		var entries []string
		for i := range 1000 {
			entries = append(entries, fmt.Sprintf(entry, i%250+1))
		}
		for _, lines := range [][]string{entries, {strings.Join(entries, ",")}} {
			r := &http.Request{RemoteAddr: proxy1, Header: http.Header{header: lines}}
			_, got := believing(t, header, "10.0.0.0/8").Meet(r)
			if got.Client.String() != "10.0.0.1" || len(got.hops) != 1000 || got.hops[0] != got.Client {
				t.Errorf("%s: %s by %d hops", header, got.Client, len(got.hops))
			}
			_, got = believing(t, header, "10.0.0.1", "10.0.0.250").Meet(&http.Request{RemoteAddr: proxy1, Header: http.Header{header: lines}})
			if got.Client.String() != "10.0.0.249" || len(got.hops) != 2 {
				t.Errorf("%s: %s by %d hops", header, got.Client, len(got.hops))
			}
		}
	}
}

func TestCheckClientHeader(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"X-Forwarded-For": "", "x-forwarded-for": "", "Forwarded": "", "CF-Connecting-IP": "", "X-Real-IP": "", "X-My-Own": "",
		"":                      "must name a header",
		"X Forwarded For":       "cannot be the name",
		strings.Repeat("a", 65): "cannot be the name",
		"CF_Connecting_IP":      "write it as Cf-Connecting-Ip",
		"X-Forwarded-Host":      "does not say who the client is",
		"Cookie":                "does not say who the client is",
		"Sec-WebSocket-Key":     "does not say who the client is",
		"Proxy-Authorization":   "does not say who the client is",
		"host":                  "does not say who the client is",
	} {
		if err := CheckClientHeader(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

// Of whatever strangers write in front of what a proxy has added, nothing is believed.
func FuzzForwarded(f *testing.F) {
	for _, a := range attacks {
		for _, line := range a.header["Forwarded"] {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, forged string) {
		p := believing(t, Forwarded, "10.0.0.0/8")
		for _, lines := range [][]string{{forged, "for=198.51.100.7;proto=https"}, {forged + `, for="198.51.100.7:1";proto=https`}} {
			met, got := p.Meet(&http.Request{RemoteAddr: proxy1, Header: http.Header{Forwarded: lines}})
			if got.Client.String() != "198.51.100.7" || !got.TLS || got.Doubt != "" || len(got.hops) != 1 || strings.Contains(met.Header.Get(Forwarded), ",") {
				t.Fatalf("%q: %+v, %q", lines, got, met.Header)
			}
		}
		met, got := p.Meet(&http.Request{RemoteAddr: proxy1, Header: http.Header{Forwarded: {forged}}})
		if got.Named != (len(got.hops) > 0) || got.Named && got.hops[0] != got.Client || !got.Client.IsValid() || got.Client.Zone() != "" || got.Client.Is4In6() {
			t.Fatalf("%q: %+v", forged, got)
		}
		// What is believed of it is believed again, and says the same.
		if again := p.Look(met); again.Client != got.Client || again.TLS != got.TLS || again.Doubt != "" {
			t.Fatalf("%q: %+v, and then of %q %+v", forged, got, met.Header[Forwarded], again)
		}
	})
}
