package policy

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func networks(t testing.TB, list ...string) Networks {
	t.Helper()
	n := make(Networks, len(list))
	for i, s := range list {
		if err := n[i].UnmarshalText([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if n[i].String() != s {
			t.Errorf("%q prints as %q", s, n[i])
		}
	}
	return n
}

func TestContain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		network, addr string
		want          bool
	}{
		{"10.0.0.0/8", "10.255.0.1", true},
		{"10.0.0.0/8", "11.0.0.1", false},
		{"10.0.0.0/8", "::ffff:10.0.0.1", true},
		{"::ffff:10.0.0.0/104", "10.0.0.1", true},
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"::ffff:192.0.2.1", "192.0.2.1", true},
		{"2001:db8::/32", "2001:db8:1::1", true},
		{"2001:db8::/32", "2001:db9::1", false},
		{"fe80::/10", "fe80::1%eth0", true},
		{"0.0.0.0/0", "::1", false},
		{"::/0", "127.0.0.1", false},
		{"loopback", "127.1.2.3", true},
		{"loopback", "::1", true},
		{"loopback", "::ffff:127.0.0.1", true},
		{"loopback", "10.0.0.1", false},
		{"private", "10.1.1.1", true},
		{"private", "172.31.0.1", true},
		{"private", "172.32.0.1", false},
		{"private", "192.168.0.1", true},
		{"private", "fd00::1", true},
		{"private", "127.0.0.1", false},
	}
	for _, tt := range tests {
		if got := networks(t, tt.network).Contain(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("%s contains %s: %t, want %t", tt.network, tt.addr, got, tt.want)
		}
	}
	if networks(t, "0.0.0.0/0", "::/0").Contain(netip.Addr{}) {
		t.Error("no address is in a network")
	}
}

func TestNetworkRefuses(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"":            "is no network: write a CIDR",
		"Private":     "is no network",
		"10.0.0.0/33": "is no network",
		"10.0.0.1/8":  "write 10.0.0.0/8",
		"a.example":   "is no network",
		"10.0.0.1:80": "is no network",
	} {
		var n Network
		if err := n.UnmarshalText([]byte(s)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", s, err, want)
		}
	}
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
		var trusted Networks
		if tt.trusted != "" {
			trusted = networks(t, tt.trusted)
		}
		if got, _ := trusted.Client(r); got.String() != tt.want {
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
		if _, got := networks(t, "10.0.0.0/8").Client(r); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.rule, got, tt.want)
		}
	}
}

// The client is the peer, or an address that stands in the header; never one left of an untrusted one.
func FuzzClient(f *testing.F) {
	f.Add("1.1.1.1, [2001:db8::1]:443, 10.0.0.2", "10.0.0.3")
	f.Fuzz(func(t *testing.T, line1, line2 string) {
		r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": {line1, line2}}}
		got, _ := networks(t, "10.0.0.0/8").Client(r)
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
