package tls

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bridgehead/internal/unit"
)

func TestWhoMayHaveACertificate(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch domain := r.URL.Query().Get("domain"); {
		case r.URL.Query().Get("token") != "t":
			http.Error(w, "who are you", http.StatusUnauthorized)
		case strings.HasPrefix(domain, "moved"):
			http.Redirect(w, r, "/?domain=tenant.example.com&token=t", http.StatusFound)
		case strings.HasPrefix(domain, "slow"):
			<-r.Context().Done()
		case !strings.HasPrefix(domain, "tenant"):
			http.Error(w, "no such tenant", http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	ask := server.URL + "/may?token=t"
	for _, test := range []struct {
		o       OnDemand
		name    string
		outcome string // "": allowed
	}{
		{OnDemand{Allow: []string{"*.example.com"}}, "a.b.example.com", ""},
		{OnDemand{Allow: []string{"*.example.com"}}, "example.com", demandRefused},
		{OnDemand{Allow: []string{"shop.example.org"}}, "shop.example.org", ""},
		{OnDemand{Ask: ask}, "tenant.example.com", ""},
		{OnDemand{Ask: ask}, "stranger.example.com", demandRefused},
		{OnDemand{Ask: ask}, "moved.example.com", demandRefused},
		{OnDemand{Ask: ask, Allow: []string{"*.example.com"}}, "tenant.example.com", ""},
		{OnDemand{Ask: ask, Allow: []string{"*.example.com"}}, "tenant.example.org", demandRefused},
		{OnDemand{Ask: ask, Allow: []string{"*.example.com"}}, "stranger.example.com", demandRefused},
		{OnDemand{Ask: server.URL}, "tenant.example.com", demandRefused},
		{OnDemand{Ask: ask, AskTimeout: 20 * time.Millisecond}, "slow.example.com", demandFailed},
		{OnDemand{Ask: "http://127.0.0.1:1/"}, "tenant.example.com", demandFailed},
	} {
		if test.o.AskTimeout == 0 {
			test.o.AskTimeout = time.Minute
		}
		err := test.o.decide(t.Context(), test.name)
		d, _ := errors.AsType[*denial](err)
		if got := err == nil; got != (test.outcome == "") || d != nil && d.outcome != test.outcome {
			t.Errorf("%+v, %s: %v, want %q", test.o, test.name, err, test.outcome)
		}
		if err != nil && strings.Contains(err.Error(), "token=t") {
			t.Errorf("the error tells the secret of the URL: %v", err)
		}
	}
}

// A flood of new hosts gets no more certificates than the rates allow, and none of another's domain.
func TestRatesOfNewCertificates(t *testing.T) {
	t.Parallel()
	o := &OnDemand{Rate: unit.Rate{Rate: 1, Burst: 10}, DomainRate: unit.Rate{Rate: 1. / 3600, Burst: 3}}
	d, now := newDemands(), time.Now()
	got := 0
	for i := range 100 {
		if d.take(o, fmt.Sprintf("h%d.app.example.co.uk", i), now) == nil {
			got++
		}
	}
	if got != 3 {
		t.Errorf("%d for one domain, want 3", got)
	}
	if err := d.take(o, "a.example.org", now); err != nil {
		t.Errorf("another domain: %v", err)
	}
	got = 4
	for i := range 100 {
		if d.take(o, fmt.Sprintf("a.example-%d.com", i), now) == nil {
			got++
		}
	}
	if got != 10 {
		t.Errorf("%d in all, want 10", got)
	}
	if err := d.take(o, "b.example.org", now.Add(5*time.Second)); err != nil {
		t.Errorf("later: %v", err)
	}
	off := &OnDemand{}
	for i := range 1000 {
		if err := d.take(off, fmt.Sprintf("h%d.example.net", i), now); err != nil {
			t.Fatalf("without limits: %v", err)
		}
	}
}

func TestWhatStrangersNameIsBounded(t *testing.T) {
	t.Parallel()
	d, now := newDemands(), time.Now()
	o := &OnDemand{Rate: unit.Rate{}, DomainRate: unit.Rate{Rate: 1, Burst: 1}}
	for i := range maxDenials + 100 {
		d.deny(fmt.Sprint(i), errors.New("no"), now.Add(time.Hour))
	}
	for i := range maxDomains + 100 {
		_ = d.take(o, fmt.Sprintf("x%d.com", i), now)
	}
	if len(d.denied) > maxDenials || len(d.domains) > maxDomains {
		t.Errorf("%d denials, %d domains are remembered", len(d.denied), len(d.domains))
	}
	if d.denial(fmt.Sprint(maxDenials+99), now) == nil {
		t.Error("the last denial is forgotten")
	}
	if d.denial(fmt.Sprint(maxDenials+99), now.Add(2*time.Hour)) != nil {
		t.Error("a denial is remembered for ever")
	}
	for range 3 {
		if err := d.enter(3); err != nil {
			t.Error(err)
		}
	}
	if err := d.enter(3); err == nil {
		t.Error("a fourth is let in")
	}
	d.leave()
	if err := d.enter(3); err != nil {
		t.Error(err)
	}
}
