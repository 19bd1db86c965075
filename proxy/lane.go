package proxy

import (
	"fmt"
	"strings"

	"bridgehead/internal/yamlpos"
	"bridgehead/policy"
	"bridgehead/policy/auth"
)

// explainFailures has one verdict for each rule by which a request that asks for no socket is counted if it fails to authenticate.
func explainFailures(l *policy.Limiter, asked *auth.Checker, f *policy.Facts) (verdicts []Verdict) {
	if asked == nil {
		return nil
	}
	for _, c := range l.Counts(f) {
		switch {
		case c.Rule.Failures.IsOff():
		case c.Why != "":
			verdicts = append(verdicts, Verdict{Subject: "limit", Text: notCounted(c)})
		default:
			text := fmt.Sprintf("per %s: at most %s", keyText(c, asked), failuresText(&c.Rule))
			verdicts = append(verdicts, Verdict{Subject: "limit", Text: text})
		}
	}
	return verdicts
}

func notCounted(c policy.Count) string {
	return fmt.Sprintf("per %s: not counted: %s", strings.Join(c.Rule.Per, ", "), c.Why)
}

// keyText is what the rule counts a client by, without what is a token on this route: `user = ann (claim.plan is free)`.
func keyText(c policy.Count, asked *auth.Checker) string {
	var is []string
	for i, name := range c.Rule.Per {
		key := c.Keys[i]
		if value, err := policy.ParseValue(name); err == nil && asked.Secret(value) {
			key = "***"
		}
		is = append(is, name+" = "+key)
	}
	text := strings.Join(is, ", ")
	if len(c.Rule.When) > 0 {
		text += " (" + c.Rule.When.String() + ")"
	}
	return text
}

func failuresText(r *policy.Rule) string {
	return fmt.Sprintf("%s failures (beyond them refused for %s, twice as long each time, up to %s)",
		r.Failures, yamlpos.Duration(r.Penalty), yamlpos.Duration(r.MaxPenalty))
}
