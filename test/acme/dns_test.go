package acme_test

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// The key by which updates of the zone are signed.
const (
	tsigName   = "bridgehead."
	tsigSecret = "c2VjcmV0LWZvci10ZXN0cy1vbmx5LTAxMjM0NTY3ODk="
)

// A nameServer knows that every host is at 127.0.0.1, and the records that it is told. It takes updates (RFC 2136).
type nameServer struct {
	address string

	mu  sync.Mutex // guards the following
	txt map[string][]string
	all []string // every record that was ever there
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	s := &nameServer{txt: make(map[string][]string)}
	packets, streams := listenBoth(t)
	s.address = packets.LocalAddr().String()
	for _, server := range []*dns.Server{{PacketConn: packets}, {Listener: streams}} {
		server.Handler, server.TsigSecret = s, map[string]string{tsigName: tsigSecret}
		server.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go server.ActivateAndServe()
		<-started
		t.Cleanup(func() { server.Shutdown() })
	}
	return s
}

// listenBoth opens the same port for UDP and TCP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		streams, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if packets, err := net.ListenPacket("udp", streams.Addr().String()); err == nil {
			return packets, streams
		}
		streams.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// ServeDNS is dns.Handler's.
func (s *nameServer) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	switch {
	case r.Opcode == dns.OpcodeUpdate && (r.IsTsig() == nil || w.TsigStatus() != nil):
		m.Rcode = dns.RcodeNotAuth
	case r.Opcode == dns.OpcodeUpdate:
		s.update(r.Ns)
		m.SetTsig(tsigName, dns.HmacSHA256, 300, int64(r.IsTsig().TimeSigned))
	default:
		for _, q := range r.Question {
			s.answer(m, q)
		}
	}
	w.WriteMsg(m)
}

func (s *nameServer) answer(m *dns.Msg, q dns.Question) {
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	labels := dns.SplitDomainName(q.Name)
	zone := dns.Fqdn(strings.Join(labels[max(0, len(labels)-2):], "."))
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1}, Ns: "ns." + zone, Mbox: "ops." + zone, Serial: 1}
	switch q.Qtype {
	case dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)})
	case dns.TypeTXT:
		s.mu.Lock()
		for _, value := range s.txt[strings.ToLower(q.Name)] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header, Txt: []string{value}})
		}
		s.mu.Unlock()
	case dns.TypeSOA:
		if q.Name == zone {
			m.Answer = append(m.Answer, soa)
		} else {
			m.Ns = append(m.Ns, soa)
		}
	}
}

func (s *nameServer) update(records []dns.RR) {
	for _, rr := range records {
		txt, ok := rr.(*dns.TXT)
		switch {
		case ok && rr.Header().Class == dns.ClassINET:
			s.set(rr.Header().Name, txt.Txt[0])
		default:
			s.clear(rr.Header().Name)
		}
	}
}

func (s *nameServer) set(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = dns.Fqdn(strings.ToLower(name))
	s.txt[name] = append(s.txt[name], value)
	s.all = append(s.all, name)
}

func (s *nameServer) clear(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.txt, dns.Fqdn(strings.ToLower(name)))
}

// left is how many records are there, and ever how many there were.
func (s *nameServer) left() (left, ever int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.txt), len(s.all)
}
