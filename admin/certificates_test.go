package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
)

func TestCertificates(t *testing.T) {
	t.Parallel()
	a := newAPI()
	a.Certificates = func() any { return []string{"one"} }
	var changed string
	a.ChangeCertificate = func(_ context.Context, subject, reason string) error {
		changed = subject + " " + reason
		switch subject {
		case "none.example.com":
			return fmt.Errorf("%s: %w", subject, ErrNoCertificate)
		case "failing.example.com":
			return errors.New("the authority is down")
		}
		return nil
	}
	base := serve(t, a.Admin())
	if r := (exchange{method: "GET", path: "/v1/certificates"}).do(t, base); r.status != http.StatusOK || r.body != `{"certificates":["one"]}`+"\n" {
		t.Errorf("%d %s", r.status, r.body)
	}
	for _, test := range []struct{ path, changed string }{
		{"/v1/certificates/chat.example.com/renew", "chat.example.com "},
		{"/v1/certificates/*.example.com/renew", "*.example.com "},
		{"/v1/certificates/chat.example.com/revoke", "chat.example.com unspecified"},
		{"/v1/certificates/2001:db8::1/revoke?reason=key_compromise", "2001:db8::1 key_compromise"},
	} {
		if r := (exchange{method: "POST", path: test.path}).do(t, base); r.status != http.StatusOK || changed != test.changed {
			t.Errorf("%s: %d %s, and changed %q", test.path, r.status, r.body, changed)
		}
	}
	changed = ""
	(exchange{method: "POST", path: "/v1/certificates/none.example.com/renew"}).do(t, base).wantError(t, http.StatusNotFound, "none.example.com", "GET /v1/certificates")
	(exchange{method: "POST", path: "/v1/certificates/failing.example.com/renew"}).do(t, base).wantError(t, http.StatusBadGateway, "failing.example.com: the authority is down")
	changed = ""
	(exchange{method: "POST", path: "/v1/certificates/a/revoke?reason=boredom"}).do(t, base).wantError(t, http.StatusBadRequest, `reason is "boredom"`, "key_compromise")
	(exchange{method: "POST", path: "/v1/certificates/a/renew?force=true"}).do(t, base).wantError(t, http.StatusBadRequest, "force")
	(exchange{method: "GET", path: "/v1/certificates/a/renew"}).do(t, base).wantError(t, http.StatusMethodNotAllowed, "POST")
	if changed != "" {
		t.Errorf("changed %q", changed)
	}
}

// A host without a certificate is told, and leaves the program ready.
func TestReadinessTellsWhatIsLacking(t *testing.T) {
	t.Parallel()
	a := newAPI()
	a.Lacking = func() []string {
		return []string{"a.example.com: no certificate yet", "b.example.com: its certificate has expired"}
	}
	r := exchange{method: "GET", path: "/readyz"}.do(t, serve(t, a.Admin()))
	if r.status != http.StatusOK || r.body != "ready\na.example.com: no certificate yet\nb.example.com: its certificate has expired\n" {
		t.Errorf("%d %q", r.status, r.body)
	}
}
