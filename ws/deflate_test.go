package ws

import (
	"slices"
	"strings"
	"testing"
)

// RFC 7692, section 7.1: a server declines offers with unknown, repeated or illegal parameters.
func TestDeflateOffers(t *testing.T) {
	t.Parallel()
	for offer, good := range map[string]bool{
		"permessage-deflate":                                                         true,
		"permessage-deflate; client_max_window_bits":                                 true,
		"permessage-deflate; client_max_window_bits=8":                               true,
		"permessage-deflate ;client_max_window_bits = \"15\"":                        true,
		"permessage-deflate; server_max_window_bits=15; server_no_context_takeover":  true,
		"permessage-deflate; client_no_context_takeover; server_no_context_takeover": true,
		"permessage-deflate; server_max_window_bits":                                 false,
		"permessage-deflate; server_max_window_bits=7":                               false,
		"permessage-deflate; server_max_window_bits=16":                              false,
		"permessage-deflate; server_max_window_bits=08":                              false,
		"permessage-deflate; server_max_window_bits=+9":                              false,
		"permessage-deflate; client_max_window_bits=":                                false,
		"permessage-deflate; client_max_window_bits=\"\"":                            false,
		"permessage-deflate; client_max_window_bits=\"9":                             false,
		"permessage-deflate; client_max_window_bits; client_max_window_bits":         false,
		"permessage-deflate; server_no_context_takeover=true":                        false,
		"permessage-deflate; client_no_context_takeover=":                            false,
		"permessage-deflate; server_no_context_takeover; server_no_context_takeover": false,
		"permessage-deflate; mem_level=9":                                            false,
		"permessage-deflate;":                                                        false,
		"permessage-deflate; permessage-deflate":                                     false,
		"permessage-bzip2":                                                           false,
		"x-webkit-deflate-frame":                                                     false,
		"permessage-deflate2":                                                        false,
	} {
		if got := len(deflateOffers([]string{offer})) == 1; got != good {
			t.Errorf("%s: taken %t", offer, got)
		}
	}
	got := deflateOffers([]string{"permessage-deflate; nonsense, permessage-deflate", `a; b="x\", permessage-deflate, y"`})
	if !slices.Equal(got, []string{"permessage-deflate"}) {
		t.Errorf("of several: %q", got)
	}
}

// RFC 7692, sections 7.1.1 and 7.1.2: what a server may answer to which offer.
func TestCheckExtensions(t *testing.T) {
	t.Parallel()
	const p = "permessage-deflate"
	for _, c := range []struct {
		rule, offered, answer string // without the name; offers are separated by |
		bad                   bool
	}{
		{"a bare answer to a bare offer", "", "", false},
		{"the server may limit itself unasked", "", "; server_no_context_takeover; server_max_window_bits=10", false},
		{"the server may ask the client to forget", "", "; client_no_context_takeover", false},
		{"client_max_window_bits only if offered", "", "; client_max_window_bits=10", true},
		{"client_max_window_bits to a bare offer", "; client_max_window_bits", "; client_max_window_bits=10", false},
		{"client_max_window_bits may be left out", "; client_max_window_bits=10", "", false},
		{"client_max_window_bits not above the offer", "; client_max_window_bits=10", "; client_max_window_bits=11", true},
		{"client_max_window_bits needs a value", "; client_max_window_bits", "; client_max_window_bits", true},
		{"server_no_context_takeover is accepted by repeating it", "; server_no_context_takeover", "", true},
		{"client_no_context_takeover is a hint", "; client_no_context_takeover", "", false},
		{"server_max_window_bits is accepted by repeating it", "; server_max_window_bits=10", "", true},
		{"server_max_window_bits may be smaller", "; server_max_window_bits=10", "; server_max_window_bits=9", false},
		{"server_max_window_bits not above the offer", "; server_max_window_bits=10", "; server_max_window_bits=11", true},
		{"the fallback may be accepted", "; server_max_window_bits=10|", "", false},
		{"unknown parameter", "", "; level=9", true},
		{"repeated parameter", "", "; server_no_context_takeover; server_no_context_takeover", true},
		{"accepted twice", "", ", permessage-deflate", true},
		{"another one beside it", "", ", mux", true},
	} {
		var offered []string
		for o := range strings.SplitSeq(c.offered, "|") {
			offered = append(offered, p+o)
		}
		got, err := checkExtensions([]string{p + c.answer}, offered)
		if (err != nil) != c.bad || err == nil && got != p+c.answer {
			t.Errorf("%s: %q, %v", c.rule, got, err)
		}
	}
	if _, err := checkExtensions([]string{p}, nil); err == nil {
		t.Error("accepted although nothing was offered")
	}
	if got, err := checkExtensions([]string{" "}, nil); got != "" || err != nil {
		t.Errorf("an empty header: %q, %v", got, err)
	}
}

func FuzzDeflate(f *testing.F) {
	f.Add(`permessage-deflate; client_max_window_bits="10"`)
	f.Add(`permessage-deflate; a="\"`)
	f.Fuzz(func(t *testing.T, header string) {
		for _, offer := range deflateOffers([]string{header}) {
			if again := deflateOffers([]string{offer}); len(again) != 1 || again[0] != offer {
				t.Errorf("%q is not taken again as it is", offer)
			}
		}
	})
}
