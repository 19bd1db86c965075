package policy

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/leak"
	"bridgehead/internal/yamlpos"
)

func TestMain(m *testing.M) { leak.Main(m) }

// lists are the list of addresses of these options.
func lists(t testing.TB, o Addresses) *AddressList {
	t.Helper()
	s, err := ReadAddresses([]Addresses{o})
	if err != nil {
		t.Fatal(err)
	}
	return s.List(o)
}

func client(addr string) *Facts { return &Facts{Client: netip.MustParseAddr(addr)} }

// write replaces a file at once, and gives its path.
func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	denied := write(t, filepath.Join(dir, "deny.txt"), "\xEF\xBB\xBF# who came too often\r\n198.51.100.7\r\n\n  2001:db8:bad::/48 # a network\nloopback\n")
	partners := write(t, filepath.Join(dir, "partners.txt"), "203.0.113.0/24")
	for _, tt := range []struct {
		rule        string
		allow, deny string
		files       Addresses
		addr        string
		want        string // a part of the error; "": it may come in
	}{
		{"no lists", "", "", Addresses{}, "192.0.2.1", ""},
		{"denied", "", "10.0.0.0/8", Addresses{}, "10.1.2.3", "10.1.2.3 is denied by 10.0.0.0/8 in addresses.deny; to let it in, take that out"},
		{"the first address", "", "10.0.0.0/8", Addresses{}, "10.0.0.0", "is denied"},
		{"the last address", "", "10.0.0.0/8", Addresses{}, "10.255.255.255", "is denied"},
		{"the one before", "", "10.0.0.0/8", Addresses{}, "9.255.255.255", ""},
		{"the one behind", "", "10.0.0.0/8", Addresses{}, "11.0.0.0", ""},
		{"IPv4 in IPv6", "", "10.0.0.0/8", Addresses{}, "::ffff:10.1.2.3", "10.1.2.3 is denied"},
		{"a zone", "", "fe80::/10", Addresses{}, "fe80::1%eth0", "fe80::1 is denied"},
		{"/0", "", "0.0.0.0/0", Addresses{}, "255.255.255.255", "is denied"},
		{"/0 is not for IPv6", "", "0.0.0.0/0", Addresses{}, "2001:db8::1", ""},
		{"::/0", "", "::/0", Addresses{}, "ffff::", "is denied"},
		{"::/0 is not for IPv4", "", "::/0", Addresses{}, "192.0.2.1", ""},
		{"::/0 is not for IPv4 in IPv6", "", "::/0", Addresses{}, "::ffff:192.0.2.1", ""},
		{"all IPv4 in IPv6 is all IPv4", "", "::ffff:0:0/96", Addresses{}, "192.0.2.1", "is denied by ::ffff:0:0/96"},
		{"/32", "", "192.0.2.1/32", Addresses{}, "192.0.2.1", "is denied"},
		{"beside /32", "", "192.0.2.1/32", Addresses{}, "192.0.2.2", ""},
		{"/128", "", "2001:db8::1/128", Addresses{}, "2001:db8::1", "is denied"},
		{"beside /128", "", "2001:db8::1/128", Addresses{}, "2001:db8::2", ""},
		{"one within the other", "", "10.0.0.0/8 10.1.0.0/16 10.1.2.0/24", Addresses{}, "10.200.0.1", "is denied by 10.0.0.0/8"},
		{"allowed", "private", "", Addresses{}, "192.168.7.7", ""},
		{"nobody else is", "private 2001:db8::/32", "", Addresses{}, "192.0.2.1", "192.0.2.1 is not in addresses.allow; to let it in, list it there"},
		{"deny wins", "private", "192.168.7.7", Addresses{}, "192.168.7.7", "is denied by 192.168.7.7 in addresses.deny"},
		{"deny wins over what is narrower", "10.1.2.3", "10.0.0.0/8", Addresses{}, "10.1.2.3", "is denied"},
		{"a file denies", "", "", Addresses{DenyFiles: []string{denied}}, "198.51.100.7", "is denied by 198.51.100.7 in " + denied + ":2"},
		{"and networks", "", "", Addresses{DenyFiles: []string{denied}}, "2001:db8:bad::7", "is denied by 2001:db8:bad::/48 in " + denied + ":4"},
		{"and words", "", "", Addresses{DenyFiles: []string{denied}}, "127.0.0.9", "is denied by 127.0.0.0/8 in " + denied + ":5"},
		{"and no others", "", "", Addresses{DenyFiles: []string{denied}}, "198.51.100.8", ""},
		{"a file allows", "", "", Addresses{AllowFiles: []string{partners}}, "203.0.113.255", ""},
		{"and no others", "", "", Addresses{AllowFiles: []string{partners}}, "203.0.114.0", "is not in " + partners},
		{"beside the list", "192.0.2.1", "", Addresses{AllowFiles: []string{partners}}, "192.0.2.1", ""},
		{"neither", "192.0.2.1", "", Addresses{AllowFiles: []string{partners}}, "192.0.2.2", "is not in addresses.allow or " + partners + "; to let it in, list it there"},
	} {
		o := tt.files
		o.Allow, o.Deny = networks(t, strings.Fields(tt.allow)...), networks(t, strings.Fields(tt.deny)...)
		l := lists(t, o)
		err := l.Check(client(tt.addr))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.rule, err, tt.want)
		}
		if l == nil {
			continue
		}
		if reason, again := l.Reason(client(tt.addr)); (again == nil) != (err == nil) || (reason == "") != (err != nil) {
			t.Errorf("%s: %q, %v", tt.rule, reason, again)
		}
	}
}

func TestReasonsOfAddresses(t *testing.T) {
	t.Parallel()
	both := lists(t, Addresses{Allow: networks(t, "private"), Deny: networks(t, "10.0.0.0/8")})
	for want, l := range map[string]*AddressList{
		"192.168.1.1 is allowed by private in addresses.allow, and not in addresses.deny": both,
		"192.168.1.1 is allowed by private in addresses.allow":                            lists(t, Addresses{Allow: networks(t, "private")}),
		"192.168.1.1 is not in addresses.deny":                                            lists(t, Addresses{Deny: networks(t, "10.0.0.0/8")}),
	} {
		if got, err := l.Reason(client("192.168.1.1")); got != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
}

// Refusals by one entry are one sort for the log, and an unlisted proxy is hinted at.
func TestBarred(t *testing.T) {
	t.Parallel()
	l := lists(t, Addresses{Allow: networks(t, "0.0.0.0/0"), Deny: networks(t, "192.0.2.0/24")})
	var one, two, other *Barred
	if !errors.As(l.Check(client("192.0.2.1")), &one) || !errors.As(l.Check(client("192.0.2.2")), &two) || one.Key() != two.Key() {
		t.Errorf("%v and %v", one, two)
	}
	f := from("2001:db8::1")
	f.Request.Header.Set("X-Forwarded-For", "192.0.2.7")
	f.Request, _ = new(Proxies).Meet(f.Request)
	const hint = "2001:db8::1 sends X-Forwarded-For: if it is a proxy of yours, list it under trusted_proxies"
	if !errors.As(l.Check(f), &other) || other.Key() != "2001:db8::1" || !strings.HasSuffix(other.Error(), hint) {
		t.Errorf("%v", other)
	}
}

// The roster says what looking at each network would.
func FuzzRoster(f *testing.F) {
	f.Add(uint64(1), uint16(10))
	f.Add(uint64(2), uint16(300))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16) {
		random := rand.New(rand.NewPCG(seed, 0))
		near := func() netip.Addr { // so that many lie within each other
			if random.IntN(3) == 0 {
				return netip.AddrFrom16([16]byte{0x20, 1, 15: byte(random.IntN(8)), 14: byte(random.IntN(4)) << 6})
			}
			return netip.AddrFrom4([4]byte{byte(random.IntN(2)) * 255, byte(random.IntN(4)) << 6, byte(random.IntN(2)) * 255, byte(random.IntN(4))})
		}
		var list Networks
		for range n % 1000 {
			a := near()
			list = append(list, Network{prefixes: []netip.Prefix{netip.PrefixFrom(a, random.IntN(a.BitLen()+1)).Masked()}})
		}
		r := rosterOf(list)
		for range 1000 {
			a := near()
			e := r.find(a)
			if (e != nil) != list.Contain(a) || e != nil && (!e.prefix.Contains(a) || list[e.nth].prefixes[0] != e.prefix) {
				t.Fatalf("%s: %v, want %t", a, e, list.Contain(a))
			}
		}
		for i := 1; i < len(r.entries); i++ {
			if a, b := r.entries[i-1].prefix, r.entries[i].prefix; a.Overlaps(b) || a.Addr().Compare(b.Addr()) >= 0 {
				t.Fatalf("%s stands before %s", a, b)
			}
		}
	})
}

func TestBrokenFilesOfAddresses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "list.txt")
	for _, tt := range []struct {
		text, want string
		allows     bool
	}{
		{"10.0.0.0/8\n# so\n10.0.0.1/8\n", path + `:3: "10.0.0.1/8" has bits set behind its prefix: write 10.0.0.0/8`, false},
		{"a.example", path + `:1: "a.example" is no network: write a CIDR`, false},
		{"10.0.0.1 10.0.0.2", path + ":1: ", false},
		{"10.0.0.1, 10.0.0.2", path + ":1: ", false},
		{strings.Repeat("x", 100_000), path + ":1: ", false},
		{"\x00\xFF\n", path + ":1: ", false},
		{strings.Repeat("\n", 500_001), "has more than 500000 lines: list networks", false},
		{strings.Repeat("#", 16<<20) + "#", "is larger than 16MiB", false},
		{"# nobody yet\n", "holds no address, and it is to say who may come in", true},
	} {
		write(t, path, tt.text)
		o := Addresses{DenyFiles: []string{path}}
		if tt.allows {
			o = Addresses{AllowFiles: []string{path}}
		}
		if _, err := ReadAddresses([]Addresses{o}); err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 1000 {
			t.Errorf("%.20q: %.2000v, want %q", tt.text, err, tt.want)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "none.txt")} {
		if _, err := ReadAddresses([]Addresses{{DenyFiles: []string{path}}}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	lists(t, Addresses{DenyFiles: []string{write(t, path, strings.Repeat("\n", 500_000))}})
	if _, err := WatchAddresses([]Addresses{{DenyFiles: []string{filepath.Join(dir, "none.txt")}}}, nil, slog.New(slog.DiscardHandler), nil); err == nil {
		t.Error("no error") // and nothing is watched, which TestMain sees
	}
}

// A journal is a log whose lines a test waits for.
type journal chan string

func (j journal) Write(p []byte) (int, error) {
	j <- string(p)
	return len(p), nil
}

func (j journal) await(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case line := <-j:
			if strings.Contains(line, want) {
				return
			}
		case <-timeout:
			t.Fatalf("the log has no %q", want)
		}
	}
}

func TestFilesOfAddressesAreReadAgain(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(t.TempDir(), "deny.txt"), "192.0.2.1\n")
	log := make(journal, 100)
	changed := make(chan struct{}, 100)
	all := []Addresses{{DenyFiles: []string{path}}, {}, {Allow: networks(t, "0.0.0.0/0"), DenyFiles: []string{path}}}
	watched, err := WatchAddresses(all, nil, slog.New(slog.NewTextHandler(log, nil)), func() { changed <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer watched.Close()
	first, none, second := watched.List(all[0]), watched.List(all[1]), watched.List(all[2])
	if none != nil || first == second || first.Check(client("192.0.2.1")) == nil || second.Check(client("192.0.2.1")) == nil {
		t.Fatalf("%v %v %v", first, none, second)
	}
	write(t, path, "192.0.2.2\n192.0.2.3\n")
	select {
	case <-changed:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody was told of the change")
	}
	log.await(t, "networks=2")
	for _, l := range []*AddressList{first, second} {
		if l.Check(client("192.0.2.1")) != nil || l.Check(client("192.0.2.2")) == nil {
			t.Error("the old entries are in force")
		}
	}
	write(t, path, "192.0.2.1\nnonsense\n")
	log.await(t, path+`:2: \"nonsense\" is no network`)
	if first.Check(client("192.0.2.1")) != nil || first.Check(client("192.0.2.3")) == nil {
		t.Error("a broken file is in force")
	}

	// Equal options keep the lists. Others read the files again, but what is broken stays what it was, unless nobody has ever read it.
	if again, err := WatchAddresses([]Addresses{all[2], all[0]}, watched, watched.log, nil); again != watched || err != nil {
		t.Errorf("%v", err)
	}
	others, err := WatchAddresses(all[:1], watched, watched.log, func() {})
	if err != nil || others == watched {
		t.Fatalf("%v", err)
	}
	log.await(t, "the old entries stay")
	if err := others.List(all[0]).Check(client("192.0.2.3")); err == nil {
		t.Error("the old entries are gone")
	}
	others.Close()
	others.Close()
	if _, err := WatchAddresses([]Addresses{{AllowFiles: []string{path}}}, watched, watched.log, nil); err == nil {
		t.Error("a broken file that is to allow was taken over from one that denies")
	}
	if _, err := WatchAddresses(all[:1], nil, watched.log, nil); err == nil {
		t.Error("a broken file is no error at the start")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	log.await(t, "no such file")
	if first.Check(client("192.0.2.3")) == nil {
		t.Error("a file that is gone lets everybody in")
	}
	if len(changed) > 0 {
		t.Error("somebody was told of a change that is none")
	}
}

func TestWarningsOfAddresses(t *testing.T) {
	t.Parallel()
	o := Addresses{Allow: networks(t, "10.1.0.0/16", "192.0.2.1", "loopback", "10.0.0.0/7"), Deny: networks(t, "10.0.0.0/8", "127.0.0.0/8")}
	var p yamlpos.Problems
	o.Warn(yamlpos.Path{"addresses"}, &p)
	const want = "addresses.allow[0]: 10.1.0.0/16 lets nobody in: deny wins, and 10.0.0.0/8 stands there; take one of the two out"
	if p.Error() != want {
		t.Errorf("%s", p.Error())
	}
	o.AllowFiles, o.DenyFiles = []string{"a", ""}, []string{""}
	var wrong yamlpos.Problems
	o.Validate(yamlpos.Path{"addresses"}, &wrong)
	if want := "addresses.allow_files[1]: must name a file\naddresses.deny_files[0]: must name a file"; wrong.Error() != want {
		t.Errorf("%s", wrong.Error())
	}
}

// A look-up among 100,000 networks: some 17 comparisons, whoever asks.
func BenchmarkAddresses(b *testing.B) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "%d.%d.%d.0/25\n", 1+i>>16, i>>8&0xFF, i&0xFF)
	}
	path := write(b, filepath.Join(b.TempDir(), "deny.txt"), text.String())
	l := lists(b, Addresses{DenyFiles: []string{path}})
	clients := make([]*Facts, 1024)
	for i := range clients {
		clients[i] = client(fmt.Sprintf("%d.%d.%d.200", 1+i%2, i%256, i*7%256)) // in no network, and between two
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if l.Check(clients[i%len(clients)]) != nil {
			b.Fatal("it is denied")
		}
	}
}

// What the door asks of each request costs no memory, if it has none of a proxy's headers.
func BenchmarkMeet(b *testing.B) {
	r := &http.Request{RemoteAddr: "192.0.2.1:99", Header: http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Key": {"x"}, "Sec-Websocket-Version": {"13"}, "Origin": {"https://a.example"},
		"User-Agent": {"x"}, "Cookie": {"a=b"}, "Accept-Encoding": {"gzip"}, "Cache-Control": {"no-cache"}, "Sec-Websocket-Extensions": {"permessage-deflate"},
	}}
	p := believing(b, "", "10.0.0.0/8")
	b.ReportAllocs()
	for b.Loop() {
		p.Meet(r)
	}
}
