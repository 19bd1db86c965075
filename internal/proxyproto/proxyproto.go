// Package proxyproto reads and writes the header with which a proxy says whose connection it passes on (haproxy
// proxy-protocol.txt). It is the home of pires/go-proxyproto.
package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	wire "github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// A Header says where a connection comes from and where it went to, and in version 2 more.
type Header struct {
	Version byte // 1 or 2
	// Source and Destination are zero if the connection is the proxy's own, as that of a health check, or if it did not come by IP.
	Source, Destination netip.AddrPort
	TLVs                []TLV // of version 2
}

// A TLV is one more thing that version 2 may say (section 2.2).
type TLV struct {
	Type  byte
	Value []byte
}

// The types of what we say ourselves (sections 2.2.2, 2.2.5 and 2.2.6).
const (
	Authority     = byte(wire.PP2_TYPE_AUTHORITY)
	UniqueID      = byte(wire.PP2_TYPE_UNIQUE_ID)
	SSL           = byte(wire.PP2_TYPE_SSL)
	SSLVersion    = byte(wire.PP2_SUBTYPE_SSL_VERSION)
	SSLCommonName = byte(wire.PP2_SUBTYPE_SSL_CN)
	Custom        = byte(wire.PP2_TYPE_MIN_CUSTOM) // the first of those that have no agreed meaning
)

// ErrNone says that something begins with no header.
var ErrNone = errors.New("no PROXY header")

const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"

	maxLine = 107 // of version 1 (section 2.1)
	fixed   = 16  // bytes of version 2 before its addresses (section 2.2)
	maxRest = 4096
)

// Read reads a header, and not one byte that follows it: whoever reads next finds what the proxy passes on. What begins otherwise is
// noticed with the first byte that differs, and is ErrNone.
func Read(r io.Reader) (*Header, error) {
	raw, err := frame(r)
	if err != nil {
		return nil, err
	}
	if !checksumHolds(raw) {
		return nil, malformed("its checksum is wrong")
	}
	lenient()
	// Version 2 leaves it to us what becomes of a connection that did not come by anything we know. It is one without addresses.
	if raw[0] == signature2[0] && raw[12] == byte(wire.PROXY) && raw[13] == byte(wire.UNSPEC) {
		raw[12] = byte(wire.LOCAL)
	}
	parsed, err := wire.Read(bufio.NewReaderSize(bytes.NewReader(raw), len(raw)))
	if err != nil {
		return nil, malformed(strings.TrimPrefix(err.Error(), "proxyproto: "))
	}
	h := &Header{Version: parsed.Version}
	if parsed.Command.IsProxy() {
		h.Source, h.Destination = addrPort(parsed.SourceAddr), addrPort(parsed.DestinationAddr)
	}
	tlvs, err := parsed.TLVs()
	if err != nil {
		return nil, malformed("its TLVs are cut short")
	}
	for _, t := range tlvs {
		h.TLVs = append(h.TLVs, TLV{byte(t.Type), t.Value})
	}
	return h, nil
}

// lenient takes what nginx writes where client and server speak different families: IPv4 addresses in a TCP6 line.
var lenient = sync.OnceFunc(func() { wire.V1AcceptIPv4InTCP6 = true })

func malformed(why string) error { return fmt.Errorf("malformed PROXY header: %s", why) }

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	case *net.UDPAddr:
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{} // a unix socket's
}

// frame reads the bytes of one header.
func frame(r io.Reader) ([]byte, error) {
	raw, err := more(r, nil, len(signature2)) // no line of version 1 is shorter
	if err != nil {
		return nil, err
	}
	if raw[0] == signature1[0] {
		return frameLine(r, raw)
	}
	if raw, err = more(r, raw, fixed-len(raw)); err != nil {
		return nil, err
	}
	rest := int(binary.BigEndian.Uint16(raw[14:]))
	if rest > maxRest {
		return nil, malformed(fmt.Sprintf("it says to be longer than %d bytes", maxRest))
	}
	return more(r, raw, rest)
}

// frameLine reads the line of version 1, and each time no more than is surely missing.
func frameLine(r io.Reader, line []byte) (_ []byte, err error) {
	for bytes.IndexByte(line, '\n') < 0 {
		if len(line) >= maxLine {
			return nil, malformed(fmt.Sprintf("its line is longer than %d bytes", maxLine))
		}
		if line, err = more(r, line, min(missing(line), maxLine-len(line))); err != nil {
			return nil, err
		}
	}
	return line, nil
}

// missing is the least that a line of version 1 lacks: each further field has a space and a character, and the line end two.
func missing(line []byte) int {
	fields := 5 - bytes.Count(line, []byte(" "))
	switch {
	case line[len(line)-1] == '\r':
		return 1
	case line[len(signature1)] == 'U' || fields < 0: // UNKNOWN, and whatever follows
		return 2
	}
	return 2*fields + 2
}

// more reads n more bytes. Each byte that comes is compared with the signatures.
func more(r io.Reader, raw []byte, n int) ([]byte, error) {
	begin, end := len(raw), len(raw)+n
	raw = append(raw, make([]byte, n)...)
	for begin < end {
		k, err := r.Read(raw[begin:])
		begin += k
		if !begins(raw[:begin]) {
			return nil, ErrNone
		}
		if err == nil || begin == end {
			continue
		}
		if err == io.EOF && begin > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read the PROXY header: %w", err)
	}
	return raw, nil
}

// begins tells whether raw may be the beginning of a header.
func begins(raw []byte) bool {
	for _, s := range []string{signature1, signature2} {
		if n := min(len(raw), len(s)); string(raw[:n]) == s[:n] {
			return true
		}
	}
	return false
}

// Begins tells whether raw, in which there is enough for it to be seen, begins with a header.
func Begins(raw []byte) bool { return len(raw) >= enough && begins(raw) }

// enough bytes are no chance.
const enough = 5

// checksumHolds tells whether a header is as it was sent, if it says (section 2.2.3).
func checksumHolds(raw []byte) bool {
	for at := tlvsAt(raw); at+3 <= len(raw); {
		value := raw[at+3:]
		n := int(binary.BigEndian.Uint16(raw[at+1:]))
		switch {
		case n > len(value): // which is somebody else's to tell
			return true
		case raw[at] == byte(wire.PP2_TYPE_CRC32C):
			blank := bytes.Clone(raw)
			clear(blank[at+3 : at+3+n])
			return n == 4 && crc32.Checksum(blank, crc32.MakeTable(crc32.Castagnoli)) == binary.BigEndian.Uint32(value)
		}
		at += 3 + n
	}
	return true
}

// tlvsAt is where the TLVs of a header begin. Version 1 has none.
func tlvsAt(raw []byte) int {
	if raw[0] == signature1[0] {
		return len(raw)
	}
	return fixed + map[byte]int{1: 12, 2: 36, 3: 216}[raw[13]>>4]
}

// Append adds the header as it goes out to b. Both addresses are brought to one family, as it demands.
func (h *Header) Append(b []byte) ([]byte, error) {
	out := &wire.Header{Version: h.Version, Command: wire.LOCAL}
	if h.Source.IsValid() && h.Destination.IsValid() {
		out.Command = wire.PROXY
		out.TransportProtocol, out.SourceAddr, out.DestinationAddr = addresses(h.Source, h.Destination)
	}
	if h.Version == 2 {
		tlvs := make([]wire.TLV, len(h.TLVs))
		for i, t := range h.TLVs {
			tlvs[i] = wire.TLV{Type: wire.PP2Type(t.Type), Value: t.Value}
		}
		if err := out.SetTLVs(tlvs); err != nil {
			return nil, err
		}
	}
	raw, err := out.Format()
	return append(b, raw...), err
}

func addresses(from, to netip.AddrPort) (wire.AddressFamilyAndProtocol, net.Addr, net.Addr) {
	family := wire.TCPv4
	if from.Addr().Is6() || to.Addr().Is6() {
		family = wire.TCPv6
		from = netip.AddrPortFrom(netip.AddrFrom16(from.Addr().As16()), from.Port())
		to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	}
	return family, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to)
}

func (h *Header) tlv(kind byte) ([]byte, bool) {
	for _, t := range h.TLVs {
		if t.Type == kind {
			return t.Value, true
		}
	}
	return nil, false
}

func (h *Header) ssl() (tlvparse.PP2SSL, bool) {
	value, ok := h.tlv(SSL)
	if !ok {
		return tlvparse.PP2SSL{}, false
	}
	ssl, err := tlvparse.SSL(wire.TLV{Type: wire.PP2_TYPE_SSL, Value: value})
	return ssl, err == nil
}

// TLS tells whether the header says that the client speaks TLS with the proxy. A nil Header says nothing.
func (h *Header) TLS() bool {
	if h == nil {
		return false
	}
	ssl, ok := h.ssl()
	return ok && ssl.ClientSSL()
}

// Names are those that Value knows, beside the types written as 0x00 to 0xff.
var Names = []string{"authority", "unique_id", "alpn", "tls_version", "tls_cipher", "tls_cn", "aws_vpce"}

// IsName tells whether Value knows a name.
func IsName(name string) bool {
	_, ok := kind(name)
	return ok || slices.Contains(Names, name)
}

// kind reads a type as 0xea.
func kind(name string) (byte, bool) {
	digits, ok := strings.CutPrefix(name, "0x")
	n, err := strconv.ParseUint(digits, 16, 8)
	return byte(n), ok && len(digits) == 2 && err == nil
}

// Value is what the header says under one of the Names, or "". The common name of a certificate is one that the proxy has verified.
// Bytes that are no printable text are given in hexadecimal. A nil Header says nothing.
func (h *Header) Value(name string) string {
	if h == nil {
		return ""
	}
	switch name {
	case "authority":
		return h.text(Authority)
	case "unique_id":
		return h.text(UniqueID)
	case "alpn":
		return h.text(byte(wire.PP2_TYPE_ALPN))
	case "aws_vpce":
		if value, ok := h.tlv(byte(tlvparse.PP2_TYPE_AWS)); ok && len(value) > 0 && value[0] == tlvparse.PP2_SUBTYPE_AWS_VPCE_ID {
			return printable(value[1:])
		}
		return ""
	}
	if k, ok := kind(name); ok {
		return h.text(k)
	}
	ssl, ok := h.ssl()
	var value string
	switch {
	case !ok || !ssl.ClientSSL():
	case name == "tls_version":
		value, _ = ssl.SSLVersion()
	case name == "tls_cipher":
		value, _ = ssl.SSLCipher()
	case name == "tls_cn" && ssl.Verified() && (ssl.ClientCertConn() || ssl.ClientCertSess()):
		value, _ = ssl.ClientCN()
	}
	return printable([]byte(value))
}

func (h *Header) text(kind byte) string {
	value, _ := h.tlv(kind)
	return printable(value)
}

func printable(value []byte) string {
	if utf8.Valid(value) && bytes.IndexFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return string(value)
	}
	return hex.EncodeToString(value)
}
