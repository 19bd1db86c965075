package policy

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"bridgehead/internal/unit"
)

// Whoever passes is told why, and whoever does not is told what Check says.
func TestReasons(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		allow        string // separated by spaces
		host, origin string
		want         string // "": it does not pass
	}{
		{"", "a.example", "", "no Origin header"},
		{"", "a.example", "https://a.example", "has the host and port of the Host header"},
		{"", "a.example", "https://b.example", ""},
		{"https://b.example", "a.example", "https://a.example", ""},
		{"https://b.example", "a.example", "https://b.example", "is listed by https://b.example"},
		{"https://c.example self https://*.example", "a.example", "https://b.example", "is listed by https://*.example"},
		{"null", "a.example", "null", `"null" is listed`},
		{"*", "a.example", "null", "* lets every page in"},
		{"*", "a.example", "no origin at all", "* lets every page in"},
		{"* https://b.example", "a.example", "https://b.example", "is listed by https://b.example"},
	} {
		o, err := NewOrigins(strings.Fields(c.allow), false, true)
		if err != nil {
			t.Fatal(err)
		}
		r := pageRequest(c.host)
		if c.origin != "" {
			r = pageRequest(c.host, c.origin)
		}
		reason, err := o.Reason(r)
		if (err == nil) != (o.Check(r) == nil) || (err == nil) != (c.want != "") || !strings.Contains(reason, c.want) {
			t.Errorf("%q to %s, where %q are allowed: %q, %v", c.origin, c.host, c.allow, reason, err)
		}
	}
}

// What is told of a client is what Admit counts: as many accounts, and none is opened by telling.
func TestCounts(t *testing.T) {
	t.Parallel()
	store := NewStore(10)
	limiter, err := store.Limiter("chat", []Rule{
		{Per: []string{"client.ip"}, Connections: 1},
		{Per: []string{"client.ip"}, Connections: 2, Except: Networks{network(t, "private"), network(t, "2001:db8::/32")}},
		{Per: []string{"header.x-tenant"}, ConnectRate: unit.Rate{Rate: 1, Burst: 1}},
		{Per: []string{"cookie.session"}, Connections: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := pageRequest("a.example")
	r.Header = http.Header{"Cookie": {"session=" + strings.Repeat("x", 65)}}
	f := &Facts{Request: r, Client: netip.MustParseAddr("2001:db8:1:2:3::4")}
	want := []Count{
		{Keys: []string{"2001:db8:1:2::/64"}},
		{Why: "2001:db8:1:2:3::4 is in 2001:db8::/32, which the rule excepts"},
		{Why: "the handshake has no header.x-tenant"},
		{Keys: []string{strings.Repeat("x", 32) + "… (65 bytes, counted by their hash)"}},
	}
	for i, got := range limiter.Counts(f) {
		if !slices.Equal(got.Keys, want[i].Keys) || got.Why != want[i].Why || got.Rule.String() != limiter.rules[i].Rule.String() {
			t.Errorf("rule %d: %+v, want %+v", i, got, want[i])
		}
	}
	if store.Len() != 0 {
		t.Errorf("%d accounts were opened", store.Len())
	}
	if (*Limiter)(nil).Counts(f) != nil {
		t.Error("no rules count somebody")
	}
}

func network(t *testing.T, text string) (n Network) {
	t.Helper()
	if err := n.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTheGreatestNumberIsKnown(t *testing.T) {
	t.Parallel()
	if n := NewCapacity(7).Max(); n != 7 {
		t.Errorf("%d, want 7", n)
	}
	if n := (*Capacity)(nil).Max(); n != 0 {
		t.Errorf("%d of none, want 0", n)
	}
}
