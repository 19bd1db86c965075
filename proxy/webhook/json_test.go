package webhook

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"bridgehead/internal/unit"
	"bridgehead/policy"
	"bridgehead/proxy"
	"bridgehead/ws"
)

var update = flag.Bool("update", false, "write the golden files anew")

// oldKey and newKey sign the requests of the tests.
const (
	oldKey unit.Secret = "whsec_b2xkIGtleSBvbGQga2V5IG9sZCBrZXkgb2xkIGtleQ=="
	newKey unit.Secret = "whsec_bmV3IGtleSBuZXcga2V5IG5ldyBrZXkgbmV3IGtleQ=="
)

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", path, got, want)
	}
}

// handshake is that of a client that shows everything there is.
func handshake() *proxy.Handshake {
	r := httptest.NewRequest(http.MethodGet, "http://chat.example.com/events/a%2Fb?x=1&y=%3C", nil)
	r.Header = http.Header{
		"Origin": {"https://chat.example.com"}, "Cookie": {"a=1", "b=2"}, "Accept-Language": {"de", "en"}, "X-Secret": {"not forwarded"},
	}
	return &proxy.Handshake{
		Facts: policy.Facts{Request: r, ConnID: "c_n1_7f3c9a52d0", Client: netip.MustParseAddr("203.0.113.7"), TLS: true},
		Offer: ws.Offer{Subprotocols: []string{"chat.v2", "chat.v1"}},
	}
}

// wire posts a session's request and gives its bytes.
func wire(t *testing.T, s *session, timeout time.Duration, events ...event) []byte {
	t.Helper()
	var b bytes.Buffer
	s.bridge.current.Load().app.transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		if err := r.Write(&b); err != nil {
			t.Error(err)
		}
		return answer(http.StatusNoContent, nil, ""), nil
	})
	r, err := s.request(timeout, events...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.bridge.current.Load().app.post(t.Context(), r, 1); err != nil {
		t.Fatal(err)
	}
	return append(bytes.ReplaceAll(b.Bytes(), []byte("\r\n"), []byte("\n")), '\n')
}

// The bytes of each request, with the headers and signatures of two keys, stand in testdata. In the bubble it is the beginning
// of the year 2000.
func TestRequestBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, h := newBridge(t, "http://127.0.0.1:8000/ws.php", func(o *Options) {
			o.Secret = []unit.Secret{newKey, oldKey}
			o.ForwardHeaders = []string{"cookie", "ACCEPT-LANGUAGE", "host", "x-none"}
		}), handshake()
		b.current.Load().PushURL = "http://10.0.0.5:9901"
		at := b.current.Load().Group.Targets()[0]
		to, err := endpoint(at, h)
		if err != nil {
			t.Fatal(err)
		}
		s := newSession(b, h)
		s.at = way{at, to}
		golden(t, "testdata/json/connect.http", wire(t, s, time.Second, s.event(typeConnect, event{connecting: b.current.Load().connecting(h)})))

		err = s.accept(h, reply{accept: accept{User: "u1", Subprotocol: "chat.v1", State: []byte(`{ "room": "<1>" }`)}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1234567 * time.Microsecond)
		text := func(s string) event { return event{message: newMessage(ws.Message{Op: ws.Text, Data: []byte(s)})} }
		binary := event{message: newMessage(ws.Message{Op: ws.Binary, Data: []byte{0, 0xFF}})}
		empty := event{message: newMessage(ws.Message{Op: ws.Binary, Data: []byte{}})}
		golden(t, "testdata/json/message.http", wire(t, s, time.Second, s.event(typeMessage, text("a<b> & \"ü\"\n"))))
		golden(t, "testdata/json/batch.http", wire(t, s, time.Second,
			s.event(typeMessage, text("")), s.event(typeMessage, binary), s.event(typeMessage, empty)))
		golden(t, "testdata/json/close.http", wire(t, s, time.Second, s.event(typeClose, event{
			closing: newClosing(ws.Cause{Kind: ws.ClientClosed, Code: 1001, Reason: "bye"}, time.Since(s.since)),
		})))
	})
}

// Who the client is by its certificate stands in the event that asks for it.
func TestConnectOfAProvenClient(t *testing.T) {
	t.Parallel()
	b, h := newBridge(t, "http://127.0.0.1:8000/", nil), handshake()
	h.Chains = [][]*x509.Certificate{{{
		Raw: []byte("DER"), SerialNumber: big.NewInt(0xBEEF), NotAfter: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		Subject: pkix.Name{CommonName: "ann", Organization: []string{"a,b"}}, Issuer: pkix.Name{CommonName: "ca"},
		DNSNames: []string{"a.example"}, EmailAddresses: []string{"ann@example.com"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/ann"}},
	}}}
	text, err := json.Marshal(b.current.Load().connecting(h).Certificate)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"subject":"CN=ann,O=a\\,b","issuer":"CN=ca","serial":"beef",` +
		`"fingerprint":"PRINT","not_after":"2030-01-02T03:04:05.000Z",` +
		`"dns":["a.example"],"emails":["ann@example.com"],"uris":["spiffe://example.com/ann"],"ips":["10.0.0.1"]}`
	if print := fmt.Sprintf("%x", sha256.Sum256([]byte("DER"))); string(text) != strings.Replace(want, "PRINT", print, 1) {
		t.Errorf("%s", text)
	}
}

// What is not known is left out.
func TestLeastConnect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBridge(t, "http://127.0.0.1:8000/", nil)
		h := &proxy.Handshake{Facts: policy.Facts{Request: httptest.NewRequest(http.MethodGet, "/", nil), ConnID: "c_1"}}
		at := b.current.Load().Group.Targets()[0]
		to, _ := endpoint(at, h)
		s := newSession(b, h)
		s.at = way{at, to}
		golden(t, "testdata/json/connect-least.http", wire(t, s, time.Second, s.event(typeConnect, event{connecting: b.current.Load().connecting(h)})))
	})
}

// Each file of testdata/json/replies is a reply, a line of dashes, and what it asks for.
func TestReplies(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/json/replies/*.http")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no replies: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".http"), func(t *testing.T) {
			t.Parallel()
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			const dashes = "\n---\n"
			input, _, _ := strings.Cut(string(file), dashes)
			golden(t, path, []byte(input+dashes+describe(parseWire(t, input))))
		})
	}
}

func parseWire(t *testing.T, wire string) (reply, error) {
	t.Helper()
	head, body, _ := strings.Cut(wire, "\n\n")
	body = strings.ReplaceAll(body, `\xff`, "\xff")
	raw := strings.ReplaceAll(head, "\n", "\r\n") + "\r\nConnection: close\r\n\r\n" + body
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := read(resp)
	if err != nil {
		t.Fatal(err)
	}
	return r.reply()
}

// describe tells in words what a reply asks for.
func describe(r reply, err error) string {
	var b strings.Builder
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	header, refused := r.accept.header()
	if r.accept.User != "" || r.accept.Subprotocol != "" || r.accept.State != nil {
		fmt.Fprintf(&b, "accept user %q subprotocol %q state %s\n", r.accept.User, r.accept.Subprotocol, r.accept.State)
	}
	header.Write(&b)
	slices.Sort(refused)
	for _, name := range refused {
		fmt.Fprintf(&b, "refused header %q\n", name)
	}
	for _, a := range r.actions {
		switch {
		case a.send != nil && a.send.Op == ws.Text:
			fmt.Fprintf(&b, "send text %q\n", a.send.Data)
		case a.send != nil:
			fmt.Fprintf(&b, "send binary %x\n", a.send.Data)
		case a.close != nil:
			code, ok := a.close.code()
			fmt.Fprintf(&b, "close %d %q, legal %t\n", code, a.close.Reason, ok)
		case a.set.User != nil:
			fmt.Fprintf(&b, "set user %q state %s\n", *a.set.User, a.set.State)
		default:
			fmt.Fprintf(&b, "set state %s\n", a.set.State)
		}
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return strings.ReplaceAll(b.String(), "\r\n", "\n")
}

// Whatever an application answers, what comes out keeps the promises that the session relies on.
func FuzzReply(f *testing.F) {
	paths, _ := filepath.Glob("testdata/json/replies/*.http")
	for _, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		_, body, _ := strings.Cut(string(file), "\n\n")
		body, _, _ = strings.Cut(body, "\n---\n")
		f.Add("application/json", []byte(body))
	}
	f.Add("text/plain; charset", []byte("\xff"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		r, err := parseReply(contentType, body)
		if err != nil && (len(r.actions) > 0 || r.accept.User != "") {
			t.Errorf("a reply with a mistake (%v) asks for something", err)
		}
		for _, a := range r.actions {
			members := 0
			for _, is := range []bool{a.send != nil, a.close != nil, a.set != nil} {
				if is {
					members++
				}
			}
			if members != 1 {
				t.Errorf("action with %d members", members)
			}
			if a.send != nil && a.send.Op == ws.Text && !utf8.Valid(a.send.Data) {
				t.Errorf("text %q is not UTF-8", a.send.Data)
			}
			if a.set != nil {
				checkKept(t, kept(a.set.State))
			}
		}
		checkKept(t, kept(r.accept.State))
		header, _ := r.accept.header()
		for name := range header {
			if strings.ContainsAny(name, "\r\n: ") || strings.HasPrefix(name, "Sec-") {
				t.Errorf("header %q is allowed", name)
			}
		}
	})
}

// checkKept checks that a state that was accepted can be sent.
func checkKept(t *testing.T, state []byte) {
	if len(state) > maxState {
		t.Errorf("a state of %d bytes is kept", len(state))
	}
	if _, err := encode("r", connection{State: state}, nil); err != nil {
		t.Error(err)
	}
}

// roundTripper is a transport that is a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, header http.Header, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}
}

var errRefused = errors.New("connection refused")
