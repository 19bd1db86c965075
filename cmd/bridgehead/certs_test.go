package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// operators answers as the admin listener does, and gives a configuration that leads to it.
func operators(t *testing.T, serve http.HandlerFunc) (file string) {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	file = filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf("%sadmin: {address: %q, tokens: [{name: ops, token: secret, may: [admin]}]}\n", authorityFile, s.Listener.Addr())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCertificatesAreListed(t *testing.T) {
	t.Parallel()
	until := time.Now().Add(90 * 24 * time.Hour).UTC().Format(time.RFC3339)
	list := `{"subject": "chat.example.com", "source": "automatic", "issuer": "R11", "not_after": "` + until + `", "renewal": "2031-02-03T04:05:06Z"}`
	var more string
	file := operators(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/certificates" || r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, `{"error": "no"}`, http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `{"certificates": [%s%s]}`, list, more)
	})
	var stdout, stderr bytes.Buffer
	if code := run([]string{"certs", "-c", file}, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	for _, words := range []string{"HOST", "chat.example.com  automatic  R11", "2031-02-03 04:05 UTC"} {
		if !strings.Contains(stdout.String(), words) {
			t.Errorf("it prints no %q:\n%s", words, stdout.String())
		}
	}
	more = `, {"subject": "new.example.com", "source": "automatic", "error": "no such host"}, {"subject": "t.example.com", "source": "on_demand"}`
	stdout.Reset()
	if code := run([]string{"certs", "-c", file}, &stdout, &stderr); code != exitFailed || !strings.Contains(stdout.String(), "no such host") ||
		!strings.Contains(stderr.String(), "hosts without a certificate that clients take: 1") {
		t.Errorf("exit code %d: %s%s", code, stdout.String(), stderr.String())
	}
	stdout.Reset()
	var all []map[string]any
	if code := run([]string{"certs", "--json", "-c", file}, &stdout, &stderr); code != exitOK || json.Unmarshal(stdout.Bytes(), &all) != nil || len(all) != 3 {
		t.Errorf("exit code %d: %s", code, stdout.String())
	}
}

func TestCertificatesAreRenewedAndRevoked(t *testing.T) {
	t.Parallel()
	file := operators(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.String() {
		case "POST /v1/certificates/%2A.app.example.com/renew", "POST /v1/certificates/chat.example.com/revoke?reason=superseded":
			fmt.Fprint(w, `{}`)
		default:
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprintf(w, `{"error": "%s"}`, r.Method+" "+r.URL.String())
		}
	})
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"renew", "*.app.example.com"}, exitOK, "*.app.example.com: renewed\n"},
		{[]string{"revoke", "chat.example.com", "--reason", "superseded"}, exitOK, "chat.example.com: revoked and replaced\n"},
		{[]string{"renew", "../../reload"}, exitFailed, "POST /v1/certificates/..%2F..%2Freload/renew"},
		{[]string{"renew"}, exitUsage, "name one host"},
		{[]string{"revoke", "a", "b"}, exitUsage, "name one host"},
		{[]string{"renw"}, exitUsage, "unknown command"},
	} {
		var out bytes.Buffer
		if code := run(append(append([]string{"certs"}, test.args...), "-c", file), &out, &out); code != test.code || !strings.Contains(out.String(), test.says) {
			t.Errorf("%v: exit code %d: %s", test.args, code, out.String())
		}
	}
}
