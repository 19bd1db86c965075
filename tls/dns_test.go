package tls

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"go.uber.org/zap"
)

var challenge = acme.Challenge{Identifier: acme.Identifier{Type: "dns", Value: "example.com"}, KeyAuthorization: "key"}

func TestTheCommandThatSetsRecords(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the commands are shell scripts")
	}
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700))
		return path
	}
	out := filepath.Join(dir, "out")
	good := DNS{Exec: []string{script("good", `echo "$@" >>`+out), "first"}}
	s := good.solver(zap.NewNop())
	must(t, s.Present(t.Context(), challenge))
	must(t, s.CleanUp(t.Context(), challenge))
	value := challenge.DNS01KeyAuthorization()
	if got, _ := os.ReadFile(out); string(got) != "first present _acme-challenge.example.com "+value+"\nfirst cleanup _acme-challenge.example.com "+value+"\n" {
		t.Errorf("it was run with %q", got)
	}
	bad := DNS{Exec: []string{script("bad", "head -c 100000 /dev/zero | tr '\\0' x; echo no such zone >&2; exit 3")}}
	err := bad.solver(zap.NewNop()).Present(t.Context(), challenge)
	if err == nil || !strings.Contains(err.Error(), "present the record _acme-challenge.example.com") || !strings.Contains(err.Error(), "no such zone") || len(err.Error()) > 2000 {
		t.Errorf("error %v", err)
	}
	slow := DNS{Exec: []string{script("slow", "sleep 600")}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := slow.solver(zap.NewNop()).Present(ctx, challenge); err == nil {
		t.Error("a command that does not end has no error")
	}
}

func TestTheWebhookThatSetsRecords(t *testing.T) {
	t.Parallel()
	got := make(chan map[string]string, 2)
	status := http.StatusNoContent
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked map[string]string
		if json.NewDecoder(r.Body).Decode(&asked) == nil {
			got <- asked
		}
		http.Redirect(w, r, "/elsewhere", status)
	}))
	t.Cleanup(server.Close)
	d := DNS{Webhook: server.URL + "/secret"}
	s := d.solver(zap.NewNop())
	must(t, s.Present(t.Context(), challenge))
	if asked := <-got; asked["action"] != "present" || asked["name"] != "_acme-challenge.example.com" || asked["value"] != challenge.DNS01KeyAuthorization() {
		t.Errorf("it was asked for %v", asked)
	}
	status = http.StatusFound
	if err := s.CleanUp(t.Context(), challenge); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("a redirect: error %v", err)
	}
	if asked := <-got; asked["action"] != "cleanup" {
		t.Errorf("it was asked for %v", asked)
	}
	server.Close()
	if err := s.Present(t.Context(), challenge); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v: want one without the URL", err)
	}
}

func TestTheDelayOfARecordEndsWithItsContext(t *testing.T) {
	t.Parallel()
	d := DNS{Webhook: "https://dns.example", Delay: time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.solver(zap.NewNop()).(acmez.Waiter).Wait(ctx, challenge); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
