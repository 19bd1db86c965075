package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The keys of the applications, the new one first.
var (
	newKey = "whsec_" + base64.StdEncoding.EncodeToString([]byte("the new key of the application.."))
	oldKey = "whsec_" + base64.StdEncoding.EncodeToString([]byte("the old key of the application.."))
)

// An application is an HTTP server behind a webhook route, written as its author would: it knows the signatures by their own
// library, and the events by the documentation.
type application struct {
	t      *testing.T
	addr   string
	keys   []*standardwebhooks.Webhook
	decide func(told) decision // what to answer; nil: nothing to do

	mu   sync.Mutex // guards the following
	all  []told
	next map[string]int64 // the seq that is due, by connection
	news chan struct{}    // closed and replaced with each event
}

// A told is one event with what stands around it.
type told struct {
	Route      string
	URI        string
	Connection struct {
		ID          string          `json:"id"`
		User        string          `json:"user"`
		RemoteIP    string          `json:"remote_ip"`
		Subprotocol string          `json:"subprotocol"`
		ConnectedAt time.Time       `json:"connected_at"`
		PushURL     string          `json:"push_url"`
		State       json.RawMessage `json:"state"`
	}
	ID   string    `json:"id"`
	Seq  int64     `json:"seq"`
	Type string    `json:"type"`
	Time time.Time `json:"time"`

	Method, Path, Query, Origin string
	Headers                     map[string]string
	Subprotocols                []string
	TLS                         bool

	Text *string `json:"text"`
	Data []byte  `json:"data_base64"`

	Code        int    `json:"code"`
	Reason      string `json:"reason"`
	Clean       bool   `json:"clean"`
	Initiator   string `json:"initiator"`
	DurationMS  int64  `json:"duration_ms"`
	MessagesIn  int64  `json:"messages_in"`
	MessagesOut int64  `json:"messages_out"`
	BytesIn     int64  `json:"bytes_in"`
	BytesOut    int64  `json:"bytes_out"`
}

// A decision is an answer: a status, 200 if it is 0, and a body, JSON unless it is a string.
type decision struct {
	status int
	header http.Header
	body   any
}

func newApplication(t *testing.T, decide func(told) decision) *application {
	t.Helper()
	a := &application{t: t, decide: decide, next: map[string]int64{}, news: make(chan struct{})}
	for _, key := range []string{newKey, oldKey} {
		verifier, err := standardwebhooks.NewWebhook(key)
		if err != nil {
			t.Fatal(err)
		}
		a.keys = append(a.keys, verifier)
	}
	a.addr = httpBackend(t, a.serve)
	return a
}

func (a *application) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		a.t.Errorf("the application cannot read a request: %v", err)
	}
	for i, key := range a.keys {
		if err := key.Verify(body, r.Header); err != nil {
			a.t.Errorf("signature %d: %v", i, err)
		}
	}
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		a.t.Errorf("the application got a %s of %s", r.Method, r.Header.Get("Content-Type"))
	}
	events := a.events(body)
	if len(events) == 0 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var answer decision
	for _, e := range events {
		e.URI = r.RequestURI
		if a.decide != nil { // the last event's answer counts: none of these applications answers more
			answer = a.decide(e)
		}
		if r.Header.Get("Bridgehead-Attempt") == "1" { // the later ones bring the same again
			a.note(e)
		}
	}
	answer.write(w)
}

// events reads a request.
func (a *application) events(body []byte) []told {
	var envelope struct {
		Version    int               `json:"version"`
		Route      string            `json:"route"`
		Connection json.RawMessage   `json:"connection"`
		Events     []json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil || envelope.Version != 1 {
		a.t.Errorf("request %s: version %d, %v", body, envelope.Version, err)
		return nil
	}
	all := make([]told, len(envelope.Events))
	for i, raw := range envelope.Events {
		all[i].Route = envelope.Route
		if err := json.Unmarshal(envelope.Connection, &all[i].Connection); err != nil {
			a.t.Errorf("connection %s: %v", envelope.Connection, err)
		}
		if err := json.Unmarshal(raw, &all[i]); err != nil {
			a.t.Errorf("event %s: %v", raw, err)
		}
	}
	return all
}

// note keeps an event, and checks what must hold for every one of them.
func (a *application) note(e told) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if due := a.next[e.Connection.ID]; e.Seq != due || e.ID != fmt.Sprintf("%s-%d", e.Connection.ID, e.Seq) {
		a.t.Errorf("event %d of %s has the id %q, and %d was due", e.Seq, e.Connection.ID, e.ID, due)
	}
	a.next[e.Connection.ID]++
	a.all = append(a.all, e)
	close(a.news)
	a.news = make(chan struct{})
}

func (d decision) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), d.header)
	if d.status == 0 {
		d.status = http.StatusOK
	}
	switch body := d.body.(type) {
	case nil:
		w.WriteHeader(d.status)
	case string:
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(d.status)
		io.WriteString(w, body)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(d.status)
		json.NewEncoder(w).Encode(body)
	}
}

// heard are the events of a type so far.
func (a *application) heard(kind string) []told {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.all), func(e told) bool { return e.Type != kind })
}

// await waits for the nth event of a type, counted from 1, past ones included.
func (a *application) await(kind string, n int) told {
	a.t.Helper()
	timeout := time.After(patience)
	for {
		a.mu.Lock()
		news := a.news
		a.mu.Unlock()
		if all := a.heard(kind); len(all) >= n {
			return all[n-1]
		}
		select {
		case <-news:
		case <-timeout:
			a.t.Fatalf("the application heard of %d %s events, want %d", len(a.heard(kind)), kind, n)
		}
	}
}

// secrets is the value of the key `secret` that an application's route needs.
func secrets() string { return "[" + newKey + ", " + oldKey + "]" }

// call makes a call of the API at a base URL, as its bearer if there is a token, and reads its answer.
func call(t *testing.T, method, url, token, body string) (status int, answer map[string]any, header http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatalf("%s %s: the answer is no JSON: %v", method, url, err)
	}
	return resp.StatusCode, answer, resp.Header
}
