package demo

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// post delivers a body to the application, signed with the secret, and gives its answer.
func post(t *testing.T, url, secret, body string) (status int, answer string) {
	t.Helper()
	key, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signature, err := key.Sign("c_1-0", now, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(standardwebhooks.HeaderWebhookID, "c_1-0")
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(data))
}

func TestAppAnswersEvents(t *testing.T) {
	t.Parallel()
	b := start(t)
	for _, test := range []struct {
		rule, body string
		status     int
		answer     string
	}{
		{
			"a user is let in by the query's name",
			`{"connection":{"id":"c_1"},"events":[{"type":"connect","query":"name=ann&x=1"}]}`, 200,
			`{"accept":{"user":"ann"},"actions":[{"send":{"text":"welcome, ann; say \"bye\" to be closed by the application"}}],"state":0}`,
		},
		{
			"a user without a name is a guest",
			`{"connection":{"id":"c_2"},"events":[{"type":"connect"}]}`, 200,
			`{"accept":{"user":"guest"},"actions":[{"send":{"text":"welcome, guest; say \"bye\" to be closed by the application"}}],"state":0}`,
		},
		{
			"a bad name is refused",
			`{"connection":{"id":"c_3"},"events":[{"type":"connect","query":"name=not+allowed"}]}`, 403,
			`the name "not allowed" is not allowed: at most 20 letters and digits`,
		},
		{
			"messages in one request are counted on from the state",
			`{"connection":{"id":"c_1","user":"ann","state":2},"events":[{"type":"message","text":"grüß"},{"type":"message","data_base64":"AAE="}]}`, 200,
			`{"actions":[{"send":{"text":"ann, message 3 was 4 characters: grüß"}},{"send":{"text":"ann, message 4 was 2 bytes"}}],"state":4}`,
		},
		{
			"bye is closed",
			`{"connection":{"id":"c_1","user":"ann"},"events":[{"type":"message","text":"bye"}]}`, 200,
			`{"actions":[{"close":{"code":4000,"reason":"goodbye, ann"}}],"state":1}`,
		},
		{
			"a close needs no answer",
			`{"connection":{"id":"c_1","user":"ann","state":1},"events":[{"type":"close","code":1000}]}`, 200, `{"state":1}`,
		},
		{"what is not JSON is refused", `{`, 400, "decode the events: unexpected end of JSON input"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			t.Parallel()
			status, answer := post(t, "http://"+b.App+"/events", b.Secret, test.body)
			if status != test.status || answer != test.answer {
				t.Errorf("answered %d %s\nwant %d %s", status, answer, test.status, test.answer)
			}
		})
	}
}

func TestAppRefusesOtherSignatures(t *testing.T) {
	t.Parallel()
	b := start(t)
	status, answer := post(t, "http://"+b.App, "whsec_"+random(), `{"events":[]}`)
	if status != http.StatusUnauthorized || !strings.HasPrefix(answer, "not signed by this demo's bridge") {
		t.Errorf("answered %d %q", status, answer)
	}
}

// A bridge stands for the push API: it hands on what is sent to it.
type bridge struct {
	*httptest.Server
	sent   chan string // token, target and text
	status int
}

func newBridge(t *testing.T, status int) *bridge {
	b := &bridge{sent: make(chan string, 1), status: status}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			To   struct{ Connection string }
			Text string
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		w.WriteHeader(b.status)
		b.sent <- strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("Authorization"), body.To.Connection, body.Text}, " ")
	}))
	t.Cleanup(b.Close)
	return b
}

func newTestApp(t *testing.T) *app {
	t.Helper()
	a, err := newApp("whsec_"+random(), "TOKEN", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.client.CloseIdleConnections)
	return a
}

func (a *app) deliver(t *testing.T, body string) {
	t.Helper()
	var d delivery
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Fatal(err)
	}
	if _, err := a.handle(d); err != nil {
		t.Fatal(err)
	}
}

func TestAppPushes(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 20, 12, 0, 5, 0, time.UTC)
	for _, test := range []struct {
		rule     string
		status   int
		known    int // users after the push
		succeeds bool
	}{
		{"and goes on after success", http.StatusOK, 1, true},
		{"and forgets a socket that is gone", http.StatusGone, 0, true},
		{"and keeps the socket after an error", http.StatusInternalServerError, 1, false},
	} {
		t.Run(test.rule, func(t *testing.T) {
			t.Parallel()
			a, gateway := newTestApp(t), newBridge(t, test.status)
			a.deliver(t, `{"connection":{"id":"c_1","push_url":"`+gateway.URL+`"},"events":[{"type":"connect","query":"name=ann"}]}`)
			for id, u := range a.settled(time.Now().Add(a.interval)) {
				if err := a.push(t.Context(), id, u, now); (err == nil) != test.succeeds {
					t.Errorf("push: %v", err)
				}
			}
			if got, want := <-gateway.sent, "POST /v1/send Bearer TOKEN c_1 push: it is 12:00:05, ann"; got != want {
				t.Errorf("sent %q, want %q", got, want)
			}
			if len(a.live) != test.known {
				t.Errorf("%d users are known afterwards, want %d", len(a.live), test.known)
			}
		})
	}
}

func TestAppForgetsAtClose(t *testing.T) {
	t.Parallel()
	a := newTestApp(t)
	a.deliver(t, `{"connection":{"id":"c_1"},"events":[{"type":"connect"}]}`)
	a.deliver(t, `{"connection":{"id":"c_2"},"events":[{"type":"connect"}]}`)
	a.deliver(t, `{"connection":{"id":"c_1"},"events":[{"type":"message","text":"x"},{"type":"close"}]}`)
	if _, ok := a.live["c_2"]; !ok || len(a.live) != 1 {
		t.Errorf("%v are live, want c_2 alone", a.live)
	}
}

// A push between `connect` and the upgrade would be answered 410, and the newcomer never pushed to.
func TestAppPushesAtEachIntervalToThoseWhoHaveSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newTestApp(t)
		pushed := make(chan string)
		a.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			pushed <- string(body)
			return &http.Response{StatusCode: 200, Body: io.NopCloser(&bytes.Buffer{})}, err
		})
		began := time.Now()
		go a.pushAll(t.Context())
		time.Sleep(a.interval - time.Second) // fake time
		a.deliver(t, `{"connection":{"id":"c_1"},"events":[{"type":"connect"}]}`)
		if body := <-pushed; !strings.Contains(body, `"connection":"c_1"`) {
			t.Errorf("pushed %s", body)
		}
		if waited := time.Since(began); waited != 2*a.interval {
			t.Errorf("the first push came after %v, want %v", waited, 2*a.interval)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
