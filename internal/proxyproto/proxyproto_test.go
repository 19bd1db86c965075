package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

var (
	client  = netip.MustParseAddrPort("203.0.113.7:50000")
	server  = netip.MustParseAddrPort("198.51.100.1:443")
	client6 = netip.MustParseAddrPort("[2001:db8::7]:50000")
	server6 = netip.MustParseAddrPort("[2001:db8::1]:443")
)

// v2 is a header of the second version: command, family and what follows the length.
func v2(command, family byte, rest ...byte) string {
	b := append([]byte(signature2), command, family)
	return string(append(binary.BigEndian.AppendUint16(b, uint16(len(rest))), rest...))
}

var (
	four = []byte{203, 0, 113, 7, 198, 51, 100, 1, 0xC3, 0x50, 0x01, 0xBB}
	unix = make([]byte, 216)
)

func tlv(kind byte, value string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value))), value...)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// summed is a header with a checksum, of which the bytes in mask are flipped.
func summed(mask byte) string {
	raw := []byte(v2(0x21, 0x11, join(four, tlv(0x05, "before"), tlv(0x03, "\x00\x00\x00\x00"), tlv(0x04, "pad"))...))
	sum := crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli))
	at := bytes.Index(raw, tlv(0x03, "\x00\x00\x00\x00")) + 3
	binary.BigEndian.PutUint32(raw[at:], sum)
	raw[at] ^= mask
	return string(raw)
}

// good are headers, and where they say that the client is.
var good = []struct {
	name, raw string
	from, to  netip.AddrPort
}{
	{"TCP4", "PROXY TCP4 203.0.113.7 198.51.100.1 50000 443\r\n", client, server},
	{"the shortest TCP4", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", netip.MustParseAddrPort("1.1.1.1:1"), netip.MustParseAddrPort("2.2.2.2:2")},
	{"TCP6", "PROXY TCP6 2001:db8::7 2001:db8::1 50000 443\r\n", client6, server6},
	{"the shortest TCP6", "PROXY TCP6 :: :: 1 2\r\n", netip.MustParseAddrPort("[::]:1"), netip.MustParseAddrPort("[::]:2")},
	{"IPv4 in TCP6, as nginx has it", "PROXY TCP6 203.0.113.7 2001:db8::1 50000 443\r\n", client, server6},
	{"UNKNOWN", "PROXY UNKNOWN\r\n", netip.AddrPort{}, netip.AddrPort{}},
	{"UNKNOWN with more", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535 and \r more\r\n", netip.AddrPort{}, netip.AddrPort{}},
	{"2 of IPv4", v2(0x21, 0x11, four...), client, server},
	{"2 of IPv4, datagrams", v2(0x21, 0x12, four...), client, server},
	{"2 of IPv6", v2(0x21, 0x21, join(client6.Addr().AsSlice(), server6.Addr().AsSlice(), four[8:])...), client6, server6},
	{"2 of a unix socket", v2(0x21, 0x31, unix...), netip.AddrPort{}, netip.AddrPort{}},
	{"LOCAL", v2(0x20, 0x00), netip.AddrPort{}, netip.AddrPort{}},
	{"LOCAL with addresses", v2(0x20, 0x11, four...), netip.AddrPort{}, netip.AddrPort{}},
	{"LOCAL with less than addresses", v2(0x20, 0x11, 1, 2, 3), netip.AddrPort{}, netip.AddrPort{}},
	{"unspecified", v2(0x21, 0x00), netip.AddrPort{}, netip.AddrPort{}},
	{"with TLVs", v2(0x21, 0x11, join(four, tlv(0x02, "chat.example"), tlv(0x04, "xxx"))...), client, server},
	{"with a checksum", summed(0), client, server},
}

// Whatever the pieces, the header is the same, and what follows it is left.
func TestReadWholeAndInEveryTwoPieces(t *testing.T) {
	t.Parallel()
	const behind = "\r\n behind it"
	for _, c := range good {
		whole := check(t, c.name, strings.NewReader(c.raw+behind), c.from, c.to, behind)
		check(t, c.name+", byte by byte", iotest.OneByteReader(strings.NewReader(c.raw+behind)), c.from, c.to, behind)
		for cut := range len(c.raw) {
			split := io.MultiReader(strings.NewReader(c.raw[:cut]), strings.NewReader(c.raw[cut:]+behind))
			if got := check(t, c.name, split, c.from, c.to, behind); !reflect.DeepEqual(got, whole) {
				t.Errorf("%s, cut at %d: %+v, in one piece %+v", c.name, cut, got, whole)
			}
		}
	}
}

func check(t *testing.T, name string, r io.Reader, from, to netip.AddrPort, behind string) *Header {
	t.Helper()
	h, err := Read(r)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return nil
	}
	if h.Source != from || h.Destination != to {
		t.Errorf("%s: from %v to %v", name, h.Source, h.Destination)
	}
	if left, _ := io.ReadAll(r); string(left) != behind {
		t.Errorf("%s: %q is left, want %q", name, left, behind)
	}
	return h
}

func TestReadRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, raw, says string }{
		{"nothing", "", "EOF"},
		{"the beginning of version 1", "PROX", "unexpected EOF"},
		{"the beginning of version 2", signature2[:7], "unexpected EOF"},
		{"a request", "GET / HTTP/1.1\r\n\r\n", "no PROXY header"},
		{"a request like a header", "PROPFIND / HTTP/1.1\r\n\r\n", "no PROXY header"},
		{"TLS", "\x16\x03\x01\x02\x00", "no PROXY header"},
		{"one byte", "x", "no PROXY header"},
		{"a line feed alone", "PROXY TCP4 203.0.113.7 198.51.100.1 50000 443\n1234567890", "malformed"},
		{"a line without end", "PROXY UNKNOWN " + strings.Repeat("x", 200), "longer than 107 bytes"},
		{"another protocol", "PROXY UDP4 203.0.113.7 198.51.100.1 50000 443\r\n", "malformed"},
		{"no address", "PROXY TCP4 203.0.113 198.51.100.1 50000 443\r\n", "malformed"},
		{"a name", "PROXY TCP4 client.example 198.51.100.1 50000 443\r\n", "malformed"},
		{"no port", "PROXY TCP4 203.0.113.7 198.51.100.1 65536 443\r\n", "malformed"},
		{"two spaces", "PROXY TCP4  203.0.113.7 198.51.100.1 50000 443\r\n", "malformed"},
		{"too few fields", "PROXY TCP4 203.0.113.7 198.51.100.1 50000\r\nGET", "malformed"},
		{"another version", v2(0x11, 0x11, four...), "malformed"},
		{"another command", v2(0x22, 0x11, four...), "malformed"},
		{"another family", v2(0x21, 0x41, four...), "malformed"},
		{"half an address", v2(0x21, 0x11, four[:7]...), "malformed"},
		{"too long", signature2 + "\x21\x11\x10\x01", "longer than 4096 bytes"},
		{"a TLV cut short", v2(0x21, 0x11, join(four, []byte{2, 0, 9, 'x'})...), "TLVs are cut short"},
		{"a TLV without length", v2(0x21, 0x11, join(four, []byte{2})...), "TLVs are cut short"},
		{"a wrong checksum", summed(1), "checksum is wrong"},
		{"a checksum of three bytes", v2(0x21, 0x11, join(four, tlv(0x03, "abc"))...), "checksum is wrong"},
	} {
		h, err := Read(strings.NewReader(c.raw))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v; want %q", c.name, h, err, c.says)
		}
		if errors.Is(err, ErrNone) != (c.says == ErrNone.Error()) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What is no header is refused with its first byte, not when twelve have come.
func TestReadDoesNotWaitForMoreOfWhatIsNoHeader(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	defer w.Close()
	go w.Write([]byte("G"))
	if _, err := Read(r); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	ssl := func(client, verify byte) string {
		return string(join([]byte{client, 0, 0, 0, verify}, tlv(0x21, "TLSv1.3"), tlv(0x22, "ann"), tlv(0x23, "TLS_AES_128_GCM_SHA256")))
	}
	raw := func(more ...[]byte) string { return v2(0x21, 0x11, join(append([][]byte{four}, more...)...)...) }
	for _, c := range []struct {
		raw  string
		tls  bool
		want map[string]string
	}{
		{raw(tlv(1, "h2"), tlv(2, "chat.example"), tlv(5, "abc"), tlv(0xEA, "\x01vpce-1"), tlv(0x20, ssl(3, 0))), true, map[string]string{
			"alpn": "h2", "authority": "chat.example", "unique_id": "abc", "aws_vpce": "vpce-1", "0xea": "01767063652d31", "tls_cn": "ann",
			"tls_version": "TLSv1.3", "tls_cipher": "TLS_AES_128_GCM_SHA256", "0x02": "chat.example", "0xe0": "",
		}},
		{raw(tlv(0x20, ssl(3, 1))), true, map[string]string{"tls_cn": "", "tls_version": "TLSv1.3"}}, // not verified
		{raw(tlv(0x20, ssl(1, 0))), true, map[string]string{"tls_cn": ""}},                           // no certificate
		{raw(tlv(0x20, ssl(0, 0))), false, map[string]string{"tls_version": ""}},
		{raw(tlv(0x20, "x"), tlv(5, "\xff\n")), false, map[string]string{"unique_id": "ff0a", "tls_version": "", "aws_vpce": ""}},
		{"PROXY UNKNOWN\r\n", false, map[string]string{"authority": "", "tls_cn": ""}},
	} {
		h, err := Read(strings.NewReader(c.raw))
		if err != nil {
			t.Fatal(err)
		}
		if h.TLS() != c.tls {
			t.Errorf("%q: TLS %v", c.raw, h.TLS())
		}
		for name, want := range c.want {
			if got := h.Value(name); got != want {
				t.Errorf("%q: %s is %q, want %q", c.raw, name, got, want)
			}
		}
	}
	for name, want := range map[string]bool{"authority": true, "0xea": true, "0xEA": true, "0xe": false, "ea": false, "tls": false, "": false} {
		if IsName(name) != want {
			t.Errorf("%q is a name: %v", name, !want)
		}
	}
	if none := (*Header)(nil); none.TLS() || none.Value("authority") != "" {
		t.Error("no header says something")
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	for _, h := range []Header{
		{Version: 1, Source: client, Destination: server},
		{Version: 1, Source: client6, Destination: server6},
		{Version: 1, Source: client, Destination: server6},
		{Version: 1},
		{Version: 2},
		{Version: 2, Source: client, Destination: server6, TLVs: []TLV{{Authority, []byte("a.example")}, {UniqueID, []byte("x")}}},
	} {
		raw, err := h.Append([]byte("before "))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Read(bytes.NewReader(raw[len("before "):]))
		if err != nil || !reflect.DeepEqual(*got, h) {
			t.Errorf("%+v becomes %q and then %+v, %v", h, raw, got, err)
		}
	}
}

// A counter counts what is read.
type counter struct {
	io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func FuzzRead(f *testing.F) {
	for _, c := range good {
		f.Add([]byte(c.raw), byte(3))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), byte(1))
	f.Fuzz(func(t *testing.T, raw []byte, cut byte) {
		whole := &counter{Reader: bytes.NewReader(raw)}
		h, err := Read(whole)
		at := min(int(cut), len(raw))
		pieces := io.MultiReader(bytes.NewReader(raw[:at]), iotest.OneByteReader(bytes.NewReader(raw[at:])))
		again, err2 := Read(pieces)
		if (err == nil) != (err2 == nil) || !reflect.DeepEqual(h, again) {
			t.Fatalf("in one piece %+v, %v; in many %+v, %v", h, err, again, err2)
		}
		if err != nil {
			return
		}
		if alone, err := Read(bytes.NewReader(raw[:whole.n])); err != nil || !reflect.DeepEqual(alone, h) {
			t.Fatalf("without what follows: %+v, %v; with it %+v", alone, err, h)
		}
		for _, name := range Names {
			h.Value(name)
		}
		h.TLS()
		if _, err := h.Append(nil); err != nil {
			t.Fatalf("%+v cannot be written: %v", h, err)
		}
	})
}
