package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"bridgehead/hub"
	"bridgehead/internal/leak"
	"bridgehead/internal/metrics"
	"bridgehead/ws"
)

func TestMain(m *testing.M) { leak.Main(m) }

// A fake is a connection that notes what it is sent.
type fake struct {
	info   hub.Info
	refuse error // what Send answers
	finish func(ws.Message)

	mu     sync.Mutex // guards the following
	sent   []ws.Message
	causes []ws.Cause
}

func (f *fake) ID() string     { return f.info.ID }
func (f *fake) Info() hub.Info { return f.info }

func (f *fake) Send(m ws.Message) error {
	if f.refuse != nil {
		m.Finish(f.refuse)
		return f.refuse
	}
	f.mu.Lock()
	f.sent = append(f.sent, m)
	f.mu.Unlock()
	if f.finish != nil {
		f.finish(m)
	}
	return nil
}

func (f *fake) End(c ws.Cause) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.causes = append(f.causes, c)
}

// texts are the messages as `text "hi"` or `binary "hi"`.
func (f *fake) texts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, m := range f.sent {
		op := map[ws.Opcode]string{ws.Text: "text ", ws.Binary: "binary "}[m.Op]
		all = append(all, op+string(m.Data))
	}
	return all
}

func (f *fake) ends() []ws.Cause {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.causes)
}

func conn(id, route string) *fake {
	return &fake{info: hub.Info{ID: id, Route: route, Kind: "webhook", Client: "203.0.113.7", User: "u-" + id}}
}

func newAPI(conns ...*fake) *API {
	h := hub.New()
	for _, c := range conns {
		h.Add(c, 0)
	}
	return New(Config{Hub: h, Metrics: metrics.New("1.2.3"), Log: slog.New(slog.DiscardHandler), Version: "1.2.3"})
}

// serve gives the base URL of a server of h.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// An exchange is a request, and what comes back.
type exchange struct {
	method, path, body string
	header             http.Header // nil: with a body it is JSON
	host               string
}

type reply struct {
	status int
	header http.Header
	body   string
}

func (e exchange) do(t *testing.T, base string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), e.method, base+e.path, strings.NewReader(e.body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = e.host
	if e.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(r.Header, e.header)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

// wantError checks the status, and that the JSON error says each part.
func (r reply) wantError(t *testing.T, status int, parts ...string) {
	t.Helper()
	var e struct{ Error string }
	if err := json.Unmarshal([]byte(r.body), &e); err != nil || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %q is no JSON error: %v", r.status, r.body, err)
	}
	if r.status != status {
		t.Errorf("status %d, want %d: %s", r.status, status, r.body)
	}
	for _, part := range parts {
		if !strings.Contains(e.Error, part) {
			t.Errorf("error %q does not say %q", e.Error, part)
		}
	}
}

// want checks the status and the whole body.
func (r reply) want(t *testing.T, status int, body string) {
	t.Helper()
	if r.status != status || strings.TrimSpace(r.body) != body {
		t.Errorf("got %d %s\nwant %d %s", r.status, r.body, status, body)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	api := newAPI()
	api.AdminTokens = []Token{{Name: "ops", Token: "secret", May: []string{"read"}}}
	var notReady error
	api.Ready = func() error { return notReady }
	base := serve(t, api.Admin())

	t.Run("needs neither token nor a local host", func(t *testing.T) {
		exchange{method: "GET", path: "/healthz", host: "pod.example"}.do(t, base).want(t, 200, "ok")
		exchange{method: "GET", path: "/readyz"}.do(t, base).want(t, 200, "ready")
	})
	t.Run("says why it is not ready", func(t *testing.T) {
		notReady = errors.New("draining")
		exchange{method: "GET", path: "/readyz"}.do(t, base).want(t, 503, "not ready: draining")
		exchange{method: "GET", path: "/healthz"}.do(t, base).want(t, 200, "ok")
	})
	t.Run("is ready without being asked to look", func(t *testing.T) {
		exchange{method: "GET", path: "/readyz"}.do(t, serve(t, newAPI().Admin())).want(t, 200, "ready")
	})
	t.Run("answers HEAD", func(t *testing.T) {
		exchange{method: "HEAD", path: "/healthz"}.do(t, base).want(t, 200, "")
	})
}

func TestListeners(t *testing.T) {
	t.Parallel()
	api := newAPI()
	admin, push := serve(t, api.Admin()), serve(t, api.Push())

	index := exchange{method: "GET", path: "/"}.do(t, admin)
	for _, part := range []string{"bridgehead 1.2.3\n", "GET    /healthz ", "POST   /v1/send ", "DELETE /v1/connections/{id}  "} {
		if !strings.Contains(index.body, part) {
			t.Errorf("the index lacks %q:\n%s", part, index.body)
		}
	}
	exposed := exchange{method: "GET", path: "/metrics"}.do(t, admin)
	if exposed.status != 200 || !strings.Contains(exposed.body, `bridgehead_build_info{`) {
		t.Errorf("GET /metrics: %d %.100s", exposed.status, exposed.body)
	}
	for _, path := range []string{"/", "/healthz", "/readyz", "/metrics"} {
		exchange{method: "GET", path: path}.do(t, push).wantError(t, 404, `"`+path+`"`, "the calls are: POST /v1/send, GET /v1/conn")
	}
	for _, base := range []string{admin, push} {
		exchange{method: "GET", path: "/v1/connections"}.do(t, base).want(t, 200, `{"connections":[]}`)
	}
}

// What changes something is logged with the name of the token, never with the token.
func TestLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	api := newAPI(conn("c_1", "chat"))
	api.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	api.PushTokens = []Token{{Name: "php-app", Token: "s3cret-token", May: []string{"push", "close"}}}
	s := httptest.NewServer(api.Push())
	auth := http.Header{"Authorization": {"Bearer s3cret-token"}}
	exchange{method: "POST", path: "/v1/send", body: `{"to":{"connection":"c_1"},"text":"private words"}`, header: auth}.do(t, s.URL)
	exchange{method: "DELETE", path: "/v1/connections/c_1?code=4001&reason=bye", header: auth}.do(t, s.URL)
	exchange{method: "GET", path: "/v1/connections", header: auth}.do(t, s.URL)
	s.Close() // the log is complete

	got := log.String()
	for _, part := range []string{
		"pushed token=php-app conn=c_1", `"connection closed by API" token=php-app conn=c_1 route=chat code=4001 reason=bye`,
		`"API call refused" method=GET path=/v1/connections`,
	} {
		if !strings.Contains(got, part) {
			t.Errorf("the log lacks %q:\n%s", part, got)
		}
	}
	for _, secret := range []string{"s3cret-token", "private words"} {
		if strings.Contains(got, secret) {
			t.Errorf("the log holds %q:\n%s", secret, got)
		}
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	a := newAPI()
	a.Reload = func(dryRun bool) (any, error) {
		if dryRun {
			return nil, errors.New("config.yaml:3:5: routes[0]: leads nowhere")
		}
		return map[string]int{"generation": 2}, nil
	}
	base := serve(t, a.Admin())
	exchange{method: "POST", path: "/v1/reload"}.do(t, base).want(t, 200, `{"generation":2}`)
	exchange{method: "POST", path: "/v1/reload?dry_run=false"}.do(t, base).want(t, 200, `{"generation":2}`)
	exchange{method: "POST", path: "/v1/reload?dry_run=true"}.do(t, base).wantError(t, 422, "config.yaml:3:5: routes[0]: leads nowhere")
	exchange{method: "POST", path: "/v1/reload?dry_run=maybe"}.do(t, base).wantError(t, 400, `"maybe"`, "true or false")
	exchange{method: "POST", path: "/v1/reload?dryrun=true"}.do(t, base).wantError(t, 400, `"dryrun"`, "dry_run")
	exchange{method: "GET", path: "/v1/reload"}.do(t, base).wantError(t, 405, "use POST")
	a.Reload = func(bool) (any, error) { return nil, fmt.Errorf("%w: the program is ending", ErrNotNow) }
	exchange{method: "POST", path: "/v1/reload"}.do(t, base).wantError(t, 503, "not now: the program is ending")
}
