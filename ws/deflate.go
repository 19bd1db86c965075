package ws

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// deflateName is the one extension that passes from end to end (RFC 7692, section 7).
const deflateName = "permessage-deflate"

// deflateParams are the parameters of one permessage-deflate offer or answer (RFC 7692, section 7.1).
type deflateParams struct {
	serverNoTakeover, clientNoTakeover bool
	serverBits, clientBits             int // 8 to 15; 0: not given
	clientBitsBare                     bool
}

// deflateOffers picks the well-formed permessage-deflate offers from Sec-WebSocket-Extensions, as they were written.
func deflateOffers(lines []string) []string {
	var offers []string
	for offer := range elements(lines) {
		if _, err := parseDeflate(offer); err == nil {
			offers = append(offers, offer)
		}
	}
	return offers
}

// checkExtensions checks a server's Sec-WebSocket-Extensions against what was offered and returns it: "" if the server wants
// none (RFC 6455, section 9.1).
func checkExtensions(lines, offered []string) (string, error) {
	answer := ""
	for element := range elements(lines) {
		if answer != "" {
			return "", fmt.Errorf("extensions %q and %q: only %s can be accepted, and once", answer, element, deflateName)
		}
		answer = element
	}
	if answer == "" {
		return "", nil
	}
	params, err := parseDeflate(answer)
	if err != nil {
		return "", fmt.Errorf("extension %q: %w", answer, err)
	}
	if params.clientBitsBare {
		return "", fmt.Errorf("extension %q: client_max_window_bits needs a value in an answer", answer)
	}
	for offer := range elements(offered) {
		if o, err := parseDeflate(offer); err == nil && params.answers(o) {
			return answer, nil
		}
	}
	return "", fmt.Errorf("extension %q was not offered", answer)
}

// answers reports whether a server may answer an offer so (RFC 7692, sections 7.1.1 and 7.1.2).
func (a deflateParams) answers(offer deflateParams) bool {
	switch {
	case offer.serverNoTakeover && !a.serverNoTakeover:
		return false
	case offer.serverBits != 0 && (a.serverBits == 0 || a.serverBits > offer.serverBits):
		return false
	case a.clientBits != 0 && offer.clientBits == 0 && !offer.clientBitsBare:
		return false
	case offer.clientBits != 0 && a.clientBits > offer.clientBits:
		return false
	}
	return true
}

// parseDeflate reads one element of Sec-WebSocket-Extensions. It is an error if that is another extension, or has unknown,
// repeated or illegal parameters.
func parseDeflate(element string) (deflateParams, error) {
	var p deflateParams
	parts := slices.Collect(splitQuoted(element, ';'))
	if parts[0] != deflateName {
		return p, fmt.Errorf("is not %s", deflateName)
	}
	seen := map[string]bool{}
	for _, part := range parts[1:] {
		name, value, valued := strings.Cut(part, "=")
		name, value = trim(name), unquote(trim(value))
		if seen[name] {
			return p, fmt.Errorf("parameter %q stands twice", name)
		}
		seen[name] = true
		if err := p.set(name, value, valued); err != nil {
			return p, err
		}
	}
	return p, nil
}

// set sets the named parameter.
func (p *deflateParams) set(name, value string, valued bool) error {
	bits, ok := windowBits(value)
	switch {
	case name == "server_no_context_takeover" && !valued:
		p.serverNoTakeover = true
	case name == "client_no_context_takeover" && !valued:
		p.clientNoTakeover = true
	case name == "server_max_window_bits" && ok:
		p.serverBits = bits
	case name == "client_max_window_bits" && ok:
		p.clientBits = bits
	case name == "client_max_window_bits" && !valued:
		p.clientBitsBare = true
	default:
		return fmt.Errorf("parameter %q is unknown or has an illegal value", name)
	}
	return nil
}

// windowBits reads a window size: 8 to 15, without leading zeros.
func windowBits(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 8 || n > 15 || strconv.Itoa(n) != s {
		return 0, false
	}
	return n, true
}

// unquote gives the content of a quoted string, as the value of a parameter may be written (RFC 6455, section 9.1); other text
// stays as it is.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}
