package upstream

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"bridgehead/internal/yamlpos"
)

func TestTo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		to    To
		name  string
		named bool
	}{
		{To{"chat"}, "chat", true},
		{To{"chat-v2.eu"}, "chat-v2.eu", true},
		{To{"chat", "chat2"}, "", false},
		{To{"localhost:9000"}, "", false},
		{To{"ws://h"}, "", false},
		{To{"unix:/run/x"}, "", false},
		{nil, "", false},
	} {
		if name, named := c.to.Name(); name != c.name || named != c.named {
			t.Errorf("%q names %q, %t", c.to, name, named)
		}
	}
	to := To{"ws://h/{room}", "broken {", "ws://i?{tenant}"}
	if got := to.Captures(); !slices.Equal(got, []string{"room", "tenant"}) {
		t.Errorf("captures %q", got)
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	if err := CheckURL("wss://h/{room}", "ws", "wss"); err != nil {
		t.Error(err)
	}
	for _, url := range []string{"h:7000", "ws//h:7000", "//h:7000"} {
		err := CheckURL(url, "ws", "wss")
		if want := `"` + url + `" has no scheme: write ws://h:7000`; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := CheckURL("ws://", "ws"); err == nil {
		t.Error("a URL that cannot be read was taken")
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	to := func(to ...string) func(yamlpos.Path, *yamlpos.Problems) {
		return func(at yamlpos.Path, p *yamlpos.Problems) { To(to).Validate(at, p, "ws", "wss") }
	}
	group := func(o Options) func(yamlpos.Path, *yamlpos.Problems) {
		return func(at yamlpos.Path, p *yamlpos.Problems) {
			o.Balance = cmp.Or(o.Balance, roundRobin)
			o.Validate(at, p)
		}
	}
	good := []Server{{URL: "ws://h", Weight: 1}, {URL: "unix:/run/x", Weight: 1}}
	for _, c := range []struct {
		name     string
		validate func(yamlpos.Path, *yamlpos.Problems)
		want     []string // one for each problem, in order
	}{
		{"a list of URLs", to("ws://h", "wss://i/x"), nil},
		{"the name of a group", to("chat"), nil},
		{"nowhere", to(), []string{"at: is missing"}},
		{"all that is wrong", to("ws://h", "tcp://i:1", "j"), []string{"at[1]: ", "at[2]: "}},
		{"a group", group(Options{Servers: good}), nil},
		{"a group with a client certificate", group(Options{Servers: good, TLS: TLS{Cert: "c", Key: "k"}}), nil},
		{"an empty group", group(Options{}), []string{"at.servers: is missing"}},
		{"a bad server", group(Options{Servers: append(good, Server{URL: "ftp://h", Weight: 1})}), []string{"at.servers[2]: "}},
		{"a server twice", group(Options{Servers: append(good, good[0])}), []string{"at.servers[2]: \"ws://h\" is at.servers[0] already"}},
		{"what servers cannot be", group(Options{Servers: []Server{{URL: "ws://h", MaxConnections: -1}}}),
			[]string{"at.servers[0].weight: is 0", "at.servers[0].max_connections: "}},
		{"an unknown balance", group(Options{Servers: good, Balance: "fair", Retries: -1}), []string{"at.balance: ", "at.retries: "}},
		{"a hash of nothing", group(Options{Servers: good, Balance: hashing}), []string{"at.hash: is missing"}},
		{"a hash that is not used", group(Options{Servers: good, Hash: "user"}), []string{"at.hash: is not used"}},
		{"a hash of no value", group(Options{Servers: good, Balance: hashing, Hash: "client.port"}), []string{"at.hash: "}},
		{"a hash of a capture", group(Options{Servers: good, Balance: hashing, Hash: "room"}), nil},
		{"a check of no kind", group(Options{Servers: good, Health: &Health{Interval: 1, Healthy: 1}}),
			[]string{"at.health: has 0 of", "at.health.interval: ", "at.health.timeout: ", "at.health.unhealthy: "}},
		{"a check of two kinds", group(Options{Servers: good, Health: well(func(h *Health) { h.HTTP = "/x" })}), []string{"at.health: has 2 of"}},
		{"a check of no path", group(Options{Servers: good, Health: well(func(h *Health) { h.TCP, h.HTTP = false, "x y" })}), []string{"at.health.http: "}},
		{"a check", group(Options{Servers: good, Health: well(nil)}), nil},
		{"bad ejections", group(Options{Servers: good, Eject: Eject{Failures: -1, Time: 2, MaxTime: 1}}), []string{"at.eject.failures", "at.eject.max_time"}},
		{"ejections for no time", group(Options{Servers: good, Eject: Eject{Failures: 1}}), []string{"at.eject.time"}},
		{"a cookie that cannot be", group(Options{Servers: good, Sticky: &Sticky{Cookie: "a b", SameSite: "maybe", TTL: -1}, SlowStart: -1}),
			[]string{"at.sticky.cookie: ", "at.sticky.same_site: ", "at.sticky.ttl: ", "at.slow_start: "}},
		{"names looked up all the time", group(Options{Servers: good, Resolve: 1}), []string{"at.resolve: must be 1s at least, or off"}},
		{"names looked up for each socket", group(Options{Servers: good, Resolve: 0}), nil},
		{"half a client certificate", group(Options{Servers: good, TLS: TLS{Cert: "c"}}), []string{"at.tls: cert and key"}},
		{"its other half", group(Options{Servers: good, TLS: TLS{Key: "k"}}), []string{"at.tls: cert and key"}},
		{"a file that is not there is not looked for", group(Options{Servers: good, TLS: TLS{CA: "/nowhere"}}), nil},
		{"no time to connect", (&Connect{}).Validate, []string{"at.timeout: must be positive"}},
		{"the default time", func(at yamlpos.Path, p *yamlpos.Problems) {
			c := DefaultConnect()
			c.Validate(at, p)
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var p yamlpos.Problems
			c.validate(yamlpos.Path{"at"}, &p)
			if p.Len() != len(c.want) {
				t.Fatalf("got %q, want %d problems", p.Error(), len(c.want))
			}
			for _, want := range c.want {
				if !strings.Contains(p.Error(), want) {
					t.Errorf("got %q, want %q in it", p.Error(), want)
				}
			}
		})
	}
}

// well are the options of a check by tcp, changed.
func well(change func(*Health)) *Health {
	h := DefaultHealth()
	h.TCP = true
	if change != nil {
		change(&h)
	}
	return &h
}

func TestGroupsAreFoundByNameOrRoute(t *testing.T) {
	t.Parallel()
	own := To{"ws://b", "ws://c", "ws://b"}
	groups, err := NewGroups(map[string]Options{"chat": {Servers: []Server{{URL: "ws://a"}}}, Key("r", own): own.Own()}, Setup{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if g, err := groups.For("r", To{"chat"}); err != nil || g != groups["chat"] {
		t.Errorf("%p, %v; want the group of that name, so that routes share it", g, err)
	}
	g, err := groups.For("r", own)
	if err != nil || len(g.Targets()) != 2 || g.servers[0].entry.terms.weight != 2 || g.Targets()[0].group != "" {
		t.Errorf("%+v, %v; want two servers of the route's own, of which the one that stands twice counts twice", g, err)
	}
	if _, err := groups.For("r", To{"news"}); err == nil || err.Error() != `there is no upstream "news"` {
		t.Errorf("error %v", err)
	}
	_, err = NewGroups(map[string]Options{"chat": {Servers: []Server{{URL: "ws://a"}}, TLS: TLS{CA: "/nowhere"}}}, Setup{Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.HasPrefix(err.Error(), "upstream chat: ca: open /nowhere: ") {
		t.Errorf("error %v", err)
	}
}
