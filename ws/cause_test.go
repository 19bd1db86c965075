package ws

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The table from cause to close codes is a golden file: its change is a visible difference.
func TestCauseTable(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	fmt.Fprintf(&table, "%-24s %-9s %-7s %-8s reason\n", "cause", "by", "client", "backend")
	for kind := ClientClosed; kind <= InternalFailure; kind++ {
		cause := Cause{Kind: kind}
		client, reason := cause.Client()
		backend, _ := cause.Backend()
		row := fmt.Sprintf("%-24s %-9s %-7d %-8d %s", kind, cause.By(), client, backend, reason)
		table.WriteString(strings.TrimRight(row, " ") + "\n")
	}
	golden := filepath.Join("testdata", "causes.txt")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if table.String() != string(want) {
		t.Errorf("the table is now\n%s\n%s has\n%s", table.String(), golden, want)
	}
}

// Every kind has a row of its own, and what it puts on the wire may be there.
func TestCauseRows(t *testing.T) {
	t.Parallel()
	if len(effects) != int(InternalFailure)+1 {
		t.Fatalf("%d rows for %d kinds", len(effects)-1, InternalFailure)
	}
	names := map[string]bool{}
	for kind := ClientClosed; kind <= InternalFailure; kind++ {
		cause := Cause{Kind: kind}
		if names[kind.String()] || kind.String() == "" || cause.By() == "" {
			t.Errorf("kind %d: name %q, by %q", uint8(kind), kind, cause.By())
		}
		names[kind.String()] = true
		client, reason := cause.Client()
		backend, _ := cause.Backend()
		for _, code := range []Code{client, backend} {
			if code != 0 && !code.Sendable() {
				t.Errorf("%s: code %d may not be sent", kind, code)
			}
		}
		if client == 0 && backend == 0 {
			t.Errorf("%s: neither side is told", kind)
		}
		if len(reason) > maxReason {
			t.Errorf("%s: reason of %d bytes", kind, len(reason))
		}
	}
}

func TestCauseOverrides(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule            string
		cause           Cause
		client, backend string
	}{
		{"the client's own code goes to the backend", Cause{Kind: ClientClosed, Code: 4001, Reason: "bye"}, "4001 bye", "4001 bye"},
		{"the client's empty Close goes on empty", Cause{Kind: ClientClosed, Code: CodeNoStatus}, "1005 ", "1005 "},
		{"the upstream's own code goes to the client, and back", Cause{Kind: BackendClosed, Code: 4002, Reason: "later"}, "4002 later", "4002 later"},
		{"the API's code goes to the client alone", Cause{Kind: Kicked, Code: 4401, Reason: "expired"}, "4401 expired", "1001 "},
		{"without a code the table speaks", Cause{Kind: ClientTooBig, Reason: "unused"}, "1009 message too big", "1001 message too big"},
	} {
		client, clientReason := c.cause.Client()
		backend, backendReason := c.cause.Backend()
		if got := fmt.Sprintf("%d %s", client, clientReason); got != c.client {
			t.Errorf("%s: client is told %q", c.rule, got)
		}
		if got := fmt.Sprintf("%d %s", backend, backendReason); got != c.backend {
			t.Errorf("%s: backend is told %q", c.rule, got)
		}
	}
	cause := Cause{Kind: BackendGone, Err: os.ErrClosed}
	if cause.Error() != "backend gone: file already closed" || !errors.Is(cause, os.ErrClosed) {
		t.Errorf("as an error: %q", cause.Error())
	}
	if got := (Cause{Kind: Kicked}).Error(); got != "closed by API" {
		t.Errorf("without an error behind it: %q", got)
	}
	if got := Kind(200).String(); got != "kind 200" {
		t.Errorf("unknown kind: %q", got)
	}
}
