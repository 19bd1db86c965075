package policy

import (
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
