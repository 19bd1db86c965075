package ws

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// RFC 6455, section 7.4, and the IANA registry: what may stand in a Close frame.
func TestSendable(t *testing.T) {
	t.Parallel()
	registered := []Code{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
	for c := range 1 << 16 {
		code := Code(c)
		want := slices.Contains(registered, code) || c >= 3000 && c < 5000
		if code.Sendable() != want {
			t.Errorf("%d: sendable %t", code, !want)
		}
	}
}

func TestParseClose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule, payload string
		code          Code
		reason        string
		broken        Code
	}{
		{"empty is 1005", "", CodeNoStatus, "", 0},
		{"a code alone", "\x03\xe8", 1000, "", 0},
		{"a code and a reason", "\x0f\xa0bye é", 4000, "bye é", 0},
		{"1014 is valid", "\x03\xf6", CodeBadGateway, "", 0},
		{"1005 on the wire is as good as empty", "\x03\xed", CodeNoStatus, "", 0},
		{"1004 loses its reason", "\x03\xecwhy", CodeNoStatus, "", 0},
		{"a code below 1000", "\x00\x00", CodeNoStatus, "", 0},
		{"5000 is out of range", "\x13\x88", CodeNoStatus, "", 0},
		{"half a code", "\x03", 0, "", CodeProtocolError},
		{"a reason that is not UTF-8", "\x03\xe8\xc3", 0, "", CodeInvalidPayload},
	} {
		code, reason, err := ParseClose([]byte(c.payload))
		broken, _ := errors.AsType[*ProtocolError](err)
		if code != c.code || reason != c.reason || (broken != nil) != (c.broken != 0) || broken != nil && broken.Code != c.broken {
			t.Errorf("%s: %d %q, error %v", c.rule, code, reason, err)
		}
	}
}

func TestAppendClose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule         string
		code         Code
		reason, want string
	}{
		{"code and reason", CodeGoingAway, "bye", "\x03\xe9bye"},
		{"1005 is never sent", CodeNoStatus, "bye", ""},
		{"1006 is never sent", CodeAbnormal, "bye", ""},
		{"0 is never sent", 0, "", ""},
		{"123 bytes fit", 4000, strings.Repeat("a", 123), "\x0f\xa0" + strings.Repeat("a", 123)},
		{"124 are cut", 4000, strings.Repeat("a", 124), "\x0f\xa0" + strings.Repeat("a", 123)},
		{"a rune is not cut", 4000, strings.Repeat("a", 121) + "€uro", "\x0f\xa0" + strings.Repeat("a", 121)},
		{"a rune that fits stays", 4000, strings.Repeat("a", 120) + "€uro", "\x0f\xa0" + strings.Repeat("a", 120) + "€"},
		{"what is not UTF-8 is replaced", 4000, "a\xffb", "\x0f\xa0a\uFFFDb"},
	} {
		if got := AppendClose([]byte("x"), c.code, c.reason); string(got) != "x"+c.want {
			t.Errorf("%s: %q", c.rule, got)
		}
	}
	if got := AppendCloseFrame(nil, CodeNormal, "ok", false); !bytes.Equal(got, unhex(t, "88 04 03 e8 6f 6b")) {
		t.Errorf("frame: %x", got)
	}
	if got := AppendCloseFrame(nil, CodeNoStatus, "", true); len(got) != 6 || got[0] != 0x88 || got[1] != 0x80 {
		t.Errorf("empty masked frame: %x", got)
	}
}

// What AppendClose writes, ParseClose reads.
func FuzzClose(f *testing.F) {
	f.Add(uint16(1000), "bye")
	f.Add(uint16(1005), strings.Repeat("é", 80))
	f.Fuzz(func(t *testing.T, code uint16, reason string) {
		payload := AppendClose(nil, Code(code), reason)
		if len(payload) > MaxControlPayload {
			t.Fatalf("%d bytes", len(payload))
		}
		got, text, err := ParseClose(payload)
		if err != nil || Code(code).Sendable() && got != Code(code) || !strings.HasPrefix(strings.ToValidUTF8(reason, "\uFFFD"), text) {
			t.Errorf("%d %q came back as %d %q, %v", code, reason, got, text, err)
		}
	})
}
