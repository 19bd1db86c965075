package policy

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bridgehead/internal/yamlpos"
)

// known is a client that has authenticated.
func known(user string, claims Claims) *Facts {
	f := from("192.0.2.1")
	f.User, f.Claims = user, claims
	return f
}

func TestSeveralValuesCountTogether(t *testing.T) {
	t.Parallel()
	at := func(addr, tenant string) *Facts {
		f := from(addr)
		f.User, f.Claims = "ann", Claims{"tenant": tenant}
		return f
	}
	l := limiter(t, NewStore(100), Rule{Per: []string{"client.ip", "claim.tenant"}, Connections: 1})
	admit(t, l, at("192.0.2.1", "acme"))
	if e := refuse(t, l, at("192.0.2.1", "acme"), "connections"); e.Rule != "per client.ip, claim.tenant" {
		t.Errorf("rule %q", e.Rule)
	}
	admit(t, l, at("192.0.2.2", "acme"))
	admit(t, l, at("192.0.2.1", "other"))
	admit(t, l, at("2001:db8::1", "acme"))
	refuse(t, l, at("2001:db8::2", "acme"), "connections") // of one /64
	for range 3 {                                          // it counts those alone of whom all is known
		admit(t, l, at("192.0.2.1", ""))
	}
	if _, err := l.Admit(at("192.0.2.1", "acme"), time.Now()); err != nil {
		t.Errorf("before the client is known: %v", err)
	}
}

// No values of one client make the key of another's.
func FuzzKeysOfSeveralValues(f *testing.F) {
	for _, s := range [][4]string{
		{"a", "b", "a", "b"}, {"a", "bc", "ab", "c"}, {"a1:b", "c", "a", "b1:c"}, {"1:a", "1:b", "1", "a1:1:b"}, {"a,b", "c", "a", "b,c"},
		{strings.Repeat("x", 70), "y", strings.Repeat("x", 69), "xy"}, {"a\x00b", "c", "a", "\x00bc"},
	} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	l, err := newLimit(Rule{Per: []string{"query.a", "query.b"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a1, b1, a2, b2 string) {
		key := func(a, b string) string {
			facts := from("192.0.2.1")
			facts.Request.URL.RawQuery = url.Values{"a": {a}, "b": {b}}.Encode()
			key, ok := l.key(facts)
			if ok != (a != "" && b != "") {
				t.Fatalf("%q and %q are counted: %t", a, b, ok)
			}
			return key
		}
		first, second := key(a1, b1), key(a2, b2)
		if first != "" && (first == second) != (a1 == a2 && b1 == b2) {
			t.Errorf("%q, %q and %q, %q have the keys %q and %q", a1, b1, a2, b2, first, second)
		}
	})
}

func TestWhenNarrowsARule(t *testing.T) {
	t.Parallel()
	free, pro := known("ann", Claims{"plan": "free"}), known("ann", Claims{"plan": "pro"})
	roles := known("ann", Claims{"roles": []any{"user", "admin"}, "n": json.Number("7"), "realm": map[string]any{"staff": true}})
	tests := []struct {
		when   When
		client *Facts
		counts bool
	}{
		{nil, free, true},
		{When{"claim.plan": {"free"}}, free, true},
		{When{"claim.plan": {"free"}}, pro, false},
		{When{"claim.plan": {"free", "pro"}}, pro, true},
		{When{"claim.plan": {"fre"}}, free, false},
		{When{"claim.plan": {"free"}}, known("ann", nil), false},
		{When{"claim.plan": {"free"}}, from("192.0.2.1"), false},
		{When{"claim.roles": {"admin"}}, roles, true},
		{When{"claim.roles": {"user,admin"}}, roles, false}, // as Value has it
		{When{"claim.n": {"7"}}, roles, true},
		{When{"claim.realm.staff": {"true"}}, roles, true},
		{When{"user": {"ann"}, "claim.plan": {"free"}}, free, true},
		{When{"user": {"ann"}, "claim.plan": {"free"}}, pro, false},
		{When{"user": {"bob"}, "claim.plan": {"free"}}, free, false},
		{When{"query.k": {"v"}}, from("192.0.2.1"), true},
		{When{"query.k": {"w"}}, from("192.0.2.1"), false},
		{When{"query.none": {"w"}}, from("192.0.2.1"), false},
	}
	for _, tt := range tests {
		l := limiter(t, NewStore(100), Rule{Per: []string{"client.ip"}, When: tt.when, Connections: 1})
		admit(t, l, tt.client)
		if tt.counts {
			refuse(t, l, tt.client, "connections")
		} else {
			admit(t, l, tt.client)
		}
	}
}

func TestARuleRunsAsSoonAsItKnowsWhomItCounts(t *testing.T) {
	t.Parallel()
	l := limiter(t, NewStore(100),
		Rule{Per: []string{"client.ip"}, When: When{"query.k": {"v"}}, Connections: 2},
		Rule{Per: []string{"client.ip"}, When: When{"claim.plan": {"free"}}, Connections: 1})
	free := known("ann", Claims{"plan": "free"})
	admit(t, l, free)
	g, err := l.Admit(free, time.Now())
	if err != nil {
		t.Fatal("the rule with a claim has run before the client is known: ", err)
	}
	if _, err := l.Admit(free, time.Now()); err == nil {
		t.Error("the rule with a query parameter has not run")
	}
	if err := l.Identify(g, free, time.Now()); err == nil || !strings.HasPrefix(err.Error(), "limit per client.ip when claim.plan is free: ") {
		t.Errorf("when the client is known: %v", err)
	}
	g.Release()
}

// Sockets that are open know their plan, though their claims are gone.
func TestPlansThroughReloads(t *testing.T) {
	t.Parallel()
	rule := func(n int, plans ...string) Rule {
		return Rule{Per: []string{"user"}, When: When{"claim.plan": plans}, Connections: n, Messages: rateOf(t, fmt.Sprint(n, "/s"))}
	}
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(100)
		first := limiter(t, s, rule(1, "free"), rule(50, "pro"))
		grants := map[string]*Grant{}
		for _, plan := range []string{"free", "pro"} {
			grants[plan] = admit(t, first, known(plan+"-user", Claims{"plan": plan}))
		}
		// A bucket has by then what its rate of before has filled it with.
		pauses := func(what string, l *Limiter, free, pro time.Duration) {
			t.Helper()
			l.Apply()
			for plan, g := range grants {
				l.Hold(g, &Facts{Client: from("192.0.2.1").Client, User: plan + "-user"}, time.Now())
			}
			for plan, want := range map[string]time.Duration{"free": free, "pro": pro} {
				if pause, _ := grants[plan].Take(101, 0, time.Now()); pause.Round(time.Millisecond) != want {
					t.Errorf("%s: %s pauses %s, want %s", what, plan, pause, want)
				}
			}
			time.Sleep(time.Hour)
		}
		pauses("as it was", first, 100*time.Second, 1020*time.Millisecond)
		pauses("in another order, with other numbers", limiter(t, s, rule(10, "pro"), rule(100, "free")), time.Second, 9100*time.Millisecond)
		pauses("another list of plans", limiter(t, s, rule(1, "trial", "free"), rule(50, "pro")), 100*time.Second, 1820*time.Millisecond)
		pauses("one plan is gone", limiter(t, s, rule(50, "pro")), 0, 1020*time.Millisecond)
		last := limiter(t, s, rule(1, "pro", "free"))
		pauses("one rule for both", last, 100*time.Second, 100*time.Second)
		refuse(t, last, known("pro-user", Claims{"plan": "pro"}), "connections")
		for _, g := range grants {
			g.Release()
		}
		admit(t, last, known("pro-user", Claims{"plan": "pro"}))
	})
}

// What was counted goes on counting under a rule that means the same.
func TestWhatARuleIsKnownBy(t *testing.T) {
	t.Parallel()
	per := func(names ...string) Rule { return Rule{Per: names, Connections: 1} }
	when := func(r Rule, w When) Rule { r.When = w; return r }
	tests := []struct {
		a, b Rule
		same bool
	}{
		{per("client.ip"), per("client.ip"), true},
		{per("client.ip"), per("user"), false},
		{per("client.ip", "user"), per("client.ip", "user"), true},
		{per("client.ip", "user"), per("client.ip"), false},
		{when(per("user"), When{"claim.plan": {"a", "b"}}), when(per("user"), When{"claim.plan": {"b", "a"}}), true},
		{when(per("user"), When{"claim.plan": {"a", "b"}}), when(per("user"), When{"claim.plan": {"a"}}), false},
		{when(per("user"), When{"claim.plan": {"a b"}}), when(per("user"), When{"claim.plan": {"a", "b"}}), false},
		{when(per("user"), When{"claim.plan": {"a"}}), when(per("user"), When{"claim.plan": {"a"}, "claim.x": {"y"}}), false},
		{when(per("user"), When{"claim.plan": {"a"}}), per("user"), false},
	}
	for _, tt := range tests {
		s := NewStore(10)
		a, b := limiter(t, s, tt.a), limiter(t, s, tt.b)
		if same := a.rules[0].ledger == b.rules[0].ledger; same != tt.same {
			t.Errorf("%s and %s are the same: %t", &tt.a, &tt.b, same)
		}
	}
}

func TestValidateWhoIsCounted(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule Rule
		want []string
	}{
		{Rule{Per: []string{"client.ip", "claim.tenant"}, When: When{"claim.plan": {"pro"}}}, nil},
		{Rule{Per: []string{}}, []string{"r.per: is missing: say what is counted by, such as client.ip"}},
		{Rule{Per: []string{"client.ip", "client.ip"}}, []string{"r.per[1]: client.ip is listed twice"}},
		{Rule{Per: []string{"user", "claim."}}, []string{`r.per[1]: value "claim.": "" cannot be the name of a claim`}},
		{Rule{Per: []string{"claim."}}, []string{`r.per: value "claim.": "" cannot be the name of a claim`}},
		{Rule{Per: []string{"user"}, When: When{"plan x": {"a"}, "user": nil}}, []string{
			`r.when["plan x"]: value "plan x" is unknown`, "r.when.user: lists no value, and so nobody: list those of the clients that the rule counts"}},
		{Rule{Per: []string{"user"}, When: When{"claim.plan": {"", "{plan}"}}}, []string{
			`r.when["claim.plan"][0]: is the empty text, which nobody has`,
			`r.when["claim.plan"][1]: "{plan}": braces have no meaning here: write the text itself`}},
		{Rule{Per: []string{"user"}, When: When{"client.ip": {"192.0.2.1"}, "conn.id": {"c"}}}, []string{
			`r.when["client.ip"]: networks are told apart by except: list there those that the rule does not count`, `r.when["conn.id"]: every connection`}},
	}
	for _, tt := range tests {
		tt.rule.Connections = 1
		var p yamlpos.Problems
		tt.rule.Validate(yamlpos.Path{"r"}, &p)
		var got []string
		if err := p.Err(); err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
			t.Errorf("%s: %q, want %q", &tt.rule, got, tt.want)
		}
	}
	for text, rule := range map[string]Rule{
		`limits[0]: per: value "a b" is unknown`:  {Per: []string{"client.ip", "a b"}},
		`limits[0]: when: value "a b" is unknown`: {Per: []string{"client.ip"}, When: When{"a b": {"c"}}},
	} {
		if _, err := NewStore(1).Limiter("chat", []Rule{rule}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %s", err, text)
		}
	}
}

func TestItIsToldWhyWhenDoesNotHold(t *testing.T) {
	t.Parallel()
	plan := Rule{Per: []string{"client.ip", "user"}, When: When{"claim.plan": {"free", "trial"}}, Connections: 1}
	token := Rule{Per: []string{"client.ip"}, When: When{"query.k": {"w"}}, Connections: 1}
	for _, tt := range []struct {
		rule   Rule
		client *Facts
		keys   string
		why    string
	}{
		{plan, known("ann", Claims{"plan": "free"}), "192.0.2.1 ann", ""},
		{plan, known("ann", Claims{"plan": "pro"}), "", `claim.plan is "pro"; the rule counts where it is free or trial`},
		{plan, known("ann", nil), "", "there is no claim.plan; the rule counts where it is free or trial"},
		{plan, from("192.0.2.1"), "", "the handshake has no user"},
		{token, from("192.0.2.1"), "", "query.k is another; the rule counts where it is w"}, // it may be a token
	} {
		c := limiter(t, NewStore(1), tt.rule).Counts(tt.client)[0]
		if strings.Join(c.Keys, " ") != tt.keys || c.Why != tt.why {
			t.Errorf("%s: %q, %q; want %q, %q", &tt.rule, c.Keys, c.Why, tt.keys, tt.why)
		}
	}
}
