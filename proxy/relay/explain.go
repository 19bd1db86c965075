package relay

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"bridgehead/proxy"
)

// Plan tells which URLs are asked for this client, one of them, and how its headers change.
func (b *Bridge) Plan(h *proxy.Handshake) (proxy.Plan, error) {
	var plan proxy.Plan
	targets, how := b.group.Plan(&h.Facts)
	plan.Choice = how
	for _, target := range targets {
		to, err := address(target, h)
		if err != nil {
			return plan, err
		}
		plan.To = append(plan.To, to.String())
	}
	plan.Notes = b.headers.explain(h)
	if b.options.Compression != "pass" && len(h.Offer.Deflate) > 0 {
		plan.Notes = append(plan.Notes, "without compression")
	}
	return plan, nil
}

// explain tells how the upstream's headers differ from the client's. A value that stands in the configuration as it is, is not
// repeated: it may be secret.
func (hs *headers) explain(h *proxy.Handshake) (notes []string) {
	host, header := hs.of(h)
	if host != h.Request.Host {
		notes = append(notes, "with Host: "+host)
	}
	for _, name := range slices.Sorted(maps.Keys(hs.set)) {
		text := hs.set[name]
		value, err := text.Expand(&h.Facts, nil)
		_, literal := text.Literal()
		switch {
		case err != nil:
			notes = append(notes, fmt.Sprintf("without %s: %v", name, err))
		case literal:
			notes = append(notes, "with the configured "+name)
		case name != "Host":
			notes = append(notes, fmt.Sprintf("with %s: %s", name, value))
		}
	}
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto"} {
		if value := header.Get(name); value != "" {
			notes = append(notes, fmt.Sprintf("with %s: %s", name, value))
		}
	}
	if dropped := hs.dropped(h.Request.Header, header); len(dropped) > 0 {
		notes = append(notes, "without the client's "+strings.Join(dropped, ", "))
	}
	return notes
}

// dropped are the client's headers that the upstream gets from nobody, without those of the handshake itself.
func (hs *headers) dropped(from, to http.Header) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(from)) {
		if to[name] == nil && checkName(name) == nil {
			names = append(names, name)
		}
	}
	return names
}
