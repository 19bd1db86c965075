package webhook

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"bridgehead/proxy"
)

// Plan tells which URLs are posted to for this client, one of them for all of its events, and what the application sees of it.
func (b *Bridge) Plan(h *proxy.Handshake) (proxy.Plan, error) {
	now := b.current.Load()
	var plan proxy.Plan
	targets, how := now.Group.Plan(&h.Facts)
	plan.Choice = how
	for _, target := range targets {
		to, err := endpoint(target, h)
		if err != nil {
			return plan, err
		}
		plan.To = append(plan.To, to.String())
	}
	plan.Notes = append(plan.Notes, "each event is a POST, "+now.app.keys.explain())
	if seen := slices.Sorted(maps.Keys(now.connecting(h).Headers)); len(seen) > 0 {
		plan.Notes = append(plan.Notes, "the application sees the client's "+strings.Join(seen, ", "))
	}
	return plan, nil
}

// explain tells how requests are signed.
func (s signer) explain() string {
	switch len(s) {
	case 0:
		return "not signed, as there is no secret"
	case 1:
		return "signed"
	}
	return fmt.Sprintf("signed with each of %d secrets", len(s))
}
