package unit

import (
	"fmt"
	"log/slog"
)

// A Secret is a text that no log, error or dump may show: every way of printing it gives `***`.
type Secret string

const masked = "***"

// Reveal is the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String gives `***`, or nothing if there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// Format prints [Secret.String] for every verb: fmt would show the content for one it does not know.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// GoString gives what [Secret.String] gives.
func (s Secret) GoString() string { return s.String() }

// MarshalText gives what [Secret.String] gives.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue gives what [Secret.String] gives.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
