package stream

import "bridgehead/proxy"

// Plan tells which streams are opened for this client, one of them, and what is said on them.
func (b *Bridge) Plan(h *proxy.Handshake) (proxy.Plan, error) {
	subprotocol, err := b.choose(h.Offer.Subprotocols)
	if err != nil {
		return proxy.Plan{}, err
	}
	plan := proxy.Plan{Subprotocol: subprotocol, Chooses: true}
	targets, how := b.group.Plan(&h.Facts)
	plan.Choice = how
	for _, target := range targets {
		plan.To = append(plan.To, target.String())
	}
	plan.Notes = append(plan.Notes, "framing "+b.options.Framing+", messages to the client are "+b.options.Message)
	if b.options.Preamble != "none" {
		plan.Notes = append(plan.Notes, "preamble "+b.options.Preamble+" with the client's address, "+source(h).Addr().String())
	}
	return plan, nil
}
