package tls

import (
	"slices"
	"strings"
	"testing"

	"bridgehead/internal/yamlpos"
)

func automaticOptions() Options {
	o := DefaultOptions()
	o.Email = "ops@example.com"
	return o
}

// Which hosts have which certificate, by what the section says.
func TestAssignments(t *testing.T) {
	t.Parallel()
	plain, dns, demand, private, parted := automaticOptions(), automaticOptions(), automaticOptions(), automaticOptions(), automaticOptions()
	dns.DNS = []DNS{{Webhook: "https://dns.example/", Hosts: []string{"*.example.com"}}}
	demand.OnDemand = &OnDemand{Allow: []string{"*.example.com"}}
	private.ACME = []Issuer{{Directory: "https://ca.internal/dir"}}
	parted.ACME = []Issuer{{Hosts: []string{"*.example.com"}}, {Directory: "https://ca.internal/dir", Hosts: []string{"*.lan"}}}
	const none = "none"
	for _, test := range []struct {
		host                                string
		plain, dns, demand, private, parted string // the subject; "": on demand; none
	}{
		{"chat.example.com", "chat.example.com", "chat.example.com", "chat.example.com", "chat.example.com", "chat.example.com"},
		{"CHAT.example.com.", "chat.example.com", "chat.example.com", "chat.example.com", "chat.example.com", "chat.example.com"},
		{"*.example.com", none, "*.example.com", "", none, none},
		{"*.app.example.com", none, "*.app.example.com", "", none, none},
		{"*.example.org", none, none, "", none, none},
		{"a.*.example.com", none, none, "", none, none},
		{"", none, none, "", none, none},
		{"localhost", none, none, none, "localhost", none},
		{"chat", none, none, none, "chat", none},
		{"chat.lan", "chat.lan", "chat.lan", "chat.lan", "chat.lan", "chat.lan"},
		{"203.0.113.7", "203.0.113.7", "203.0.113.7", "203.0.113.7", "203.0.113.7", none},
		{"[2001:db8::1]", "2001:db8::1", "2001:db8::1", "2001:db8::1", "2001:db8::1", none},
		{"10.0.0.1", none, none, none, "10.0.0.1", none},
		{"chat.example.org", "chat.example.org", "chat.example.org", "chat.example.org", "chat.example.org", none},
	} {
		for _, way := range []struct {
			name    string
			options Options
			want    string
		}{{"plain", plain, test.plain}, {"dns", dns, test.dns}, {"demand", demand, test.demand}, {"private", private, test.private}, {"parted", parted, test.parted}} {
			a := way.options.assign(test.host)
			got := a.subject
			if got == "" && !a.demand {
				got = none
			}
			if (got == none) != (a.why != "") {
				t.Errorf("%s, %q: %+v", way.name, test.host, a)
			}
			if got != way.want {
				t.Errorf("%s, %q: %q, want %q (%s)", way.name, test.host, got, way.want, a.why)
			}
		}
	}
}

// A wildcard has the hosts below it, so that they need no certificate of their own, and neither do those that a file holds.
func TestSubjectsAreNoMoreThanNeeded(t *testing.T) {
	t.Parallel()
	o := automaticOptions()
	o.DNS = []DNS{{Webhook: "https://dns.example/"}}
	s := &sources{options: o, issuers: o.issuers()}
	names := []string{"a.example.com", "*.example.com", "b.example.com", "a.b.example.com", "filed.example.org", "", "a.b.example.com", "203.0.113.7"}
	p, got := s.policy(names, Listening{}, func(name string) bool { return name == "filed.example.org" })
	if want := []string{"*.example.com", "a.b.example.com", "203.0.113.7"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if p.address != "203.0.113.7" {
		t.Errorf("clients that name nothing get %q", p.address)
	}
	for name, want := range map[string]string{
		"a.example.com": "*.example.com", "z.example.com": "*.example.com", "example.com": "", "a.b.example.com": "a.b.example.com",
		"x.a.example.com": "", "filed.example.org": "",
	} {
		if got := p.subject(asked{name: name}); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
}

func TestWhatIsWrongWithAutomaticCertificates(t *testing.T) {
	t.Parallel()
	o := DefaultOptions()
	o.Email = "Ops <ops@example.com>"
	o.ACME = []Issuer{
		{Directory: "http://ca.example.com/dir", EAB: &EAB{KeyID: "x"}, Hosts: []string{"https://a.example.com"}},
		{Directory: "https://ca.example.com/dir", Staging: true, Email: "nobody"},
	}
	o.Challenges = []string{"dns-01"}
	o.KeyType = "p521"
	o.CheckInterval = 1
	o.DNS = []DNS{
		{},
		{Webhook: "dns.example.com", Exec: []string{"/bin/true"}, Resolvers: []string{"9.9.9.9"}},
		{RFC2136: &RFC2136{}},
		{Cloudflare: &Cloudflare{}},
		{ACMEDNS: &ACMEDNS{}},
	}
	o.OnDemand = &OnDemand{Allow: nil}
	var p yamlpos.Problems
	o.Validate(yamlpos.Path{"certificates"}, &p)
	const want = `certificates.email: "Ops <ops@example.com>" is no address of mail: write it as ops@example.com
certificates.acme[0].directory: "http://ca.example.com/dir" is no URL of a directory: write it as https://ca.example.com/acme/directory
certificates.acme[0].eab: needs key_id and hmac, both as the authority gave them
certificates.acme[0].hosts[0]: "https://a.example.com": write a host, such as chat.example.com, or *.example.com for every name below
certificates.acme[1].email: "nobody" is no address of mail: write it as ops@example.com
certificates.acme[1].staging: is Let's Encrypt's, and stands beside another directory: leave one of them out
certificates.key_type: must be p256, p384, rsa2048 or rsa4096, not "p521"
certificates.challenges[0]: must be http-01 or tls-alpn-01, not "dns-01"
certificates.check_interval: must be a second or more: nothing would be renewed in time
certificates.dns[0]: says nobody who sets records: give it one of cloudflare, rfc2136, acme_dns, exec and webhook
certificates.dns[1].exec: stands beside ` // the rest depends on the order of the checks
	got := p.Error()
	for line := range strings.Lines(want) {
		if line = strings.TrimSuffix(line, "\n"); !strings.Contains(got, line) && !strings.Contains(line, "dns[1]") {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
	for _, words := range []string{
		"certificates.dns[1].webhook: stands beside exec", `certificates.dns[1].resolvers[0]: "9.9.9.9" is no address`, "certificates.dns[1].webhook: \"dns.example.com\" is no URL",
		"certificates.dns[2].rfc2136.server: ", "certificates.dns[2].rfc2136: key_name is missing", "certificates.dns[2].rfc2136: key is missing",
		"certificates.dns[3].cloudflare: token is missing", "certificates.dns[4].acme_dns.server: ", "certificates.dns[4].acme_dns: password is missing",
		"certificates.on_demand: needs somebody to decide", "certificates.on_demand.in_flight: must be 1 or more",
		"certificates.on_demand.ask_timeout: must not be off",
	} {
		if !strings.Contains(got, words) {
			t.Errorf("no %q in\n%s", words, got)
		}
	}
}

func FuzzAssign(f *testing.F) {
	for _, host := range []string{"", "*", "*.", "*.a.b", "[::1]", "::", "a..b", "*.*.a", "é.example", "a.*"} {
		f.Add(host)
	}
	o := automaticOptions()
	o.DNS, o.OnDemand = []DNS{{Webhook: "https://dns.example/"}}, &OnDemand{}
	f.Fuzz(func(t *testing.T, host string) {
		a := o.assign(host)
		if (a.subject != "" || a.demand) == (a.why != "") || a.subject != "" && a.demand {
			t.Errorf("%q: %+v", host, a)
		}
	})
}
