package upstream

import (
	"math"
	"slices"
	"strings"
	"sync"
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
	group := func(o Options) func(yamlpos.Path, *yamlpos.Problems) { return o.Validate }
	good := []Server{{URL: "ws://h"}, {URL: "unix:/run/x"}}
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
		{"a bad server", group(Options{Servers: append(good, Server{URL: "ftp://h"})}), []string{"at.servers[2]: "}},
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

func TestGroupsAreFoundByNameOrMadeOfURLs(t *testing.T) {
	t.Parallel()
	groups, err := NewGroups(map[string]Options{"chat": {Servers: []Server{{URL: "ws://a"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if g, err := groups.For(To{"chat"}); err != nil || g != groups["chat"] {
		t.Errorf("%p, %v; want the group of that name, so that routes share its turn", g, err)
	}
	if g, err := groups.For(To{"ws://b", "ws://c"}); err != nil || g.Pick().Address() != "b:80" || g.Pick().Address() != "c:80" {
		t.Errorf("%v, %v", g, err)
	}
	if _, err := groups.For(To{"news"}); err == nil || err.Error() != `there is no upstream "news"` {
		t.Errorf("error %v", err)
	}
	if _, err := groups.For(To{"ws://b", "chat"}); err == nil {
		t.Error("a name among URLs was taken")
	}
	_, err = NewGroups(map[string]Options{"chat": {Servers: []Server{{URL: "ws://a"}}, TLS: TLS{CA: "/nowhere"}}})
	if err == nil || !strings.HasPrefix(err.Error(), "upstream chat: ca: open /nowhere: ") {
		t.Errorf("error %v", err)
	}
}

func TestServersTakeTurns(t *testing.T) {
	t.Parallel()
	g, err := Groups(nil).For(To{"ws://a", "ws://b", "ws://c"})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards the following
	count := map[string]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 300 {
				address := g.Pick().Address()
				mu.Lock()
				count[address]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if count["a:80"] != 800 || count["b:80"] != 800 || count["c:80"] != 800 {
		t.Errorf("%v, want 800 each", count)
	}
}

func TestTheTurnOutlivesItsCounter(t *testing.T) {
	t.Parallel()
	g, err := Groups(nil).For(To{"ws://a", "ws://b"})
	if err != nil {
		t.Fatal(err)
	}
	g.turn.Store(math.MaxUint32 - 1)
	var got string
	for range 4 {
		got += g.Pick().Address()[:1]
	}
	if got != "abab" {
		t.Errorf("the turn went %s", got)
	}
}
