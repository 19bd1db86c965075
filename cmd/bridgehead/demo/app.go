package demo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"sync"
	"time"
	"unicode/utf8"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	maxUsers     = 1000
	maxEvents    = 4 << 20 // bytes of one request
	pushInterval = 5 * time.Second
	pushTimeout  = 2 * time.Second
)

// An app is an HTTP application that knows nothing of WebSocket: the bridge posts it the events of each socket, signed, and it
// answers with what to do. Now and then it pushes to every live socket of its own accord.
type app struct {
	log      *slog.Logger
	verifier *standardwebhooks.Webhook
	token    string        // for the push API
	interval time.Duration // between pushes
	client   *http.Client

	mu   sync.Mutex // guards the following
	live map[string]user
}

// A user is one live socket.
type user struct {
	name    string
	pushURL string // the push API of the bridge that holds the socket
	since   time.Time
}

func newApp(secret, token string, log *slog.Logger) (*app, error) {
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, fmt.Errorf("make the application's key: %w", err)
	}
	return &app{
		log: log, verifier: verifier, token: token, interval: pushInterval,
		client: &http.Client{Timeout: pushTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 2}},
		live:   make(map[string]user),
	}, nil
}

// serve answers events and pushes until ctx ends.
func (a *app) serve(ctx context.Context, ln net.Listener) {
	defer a.client.CloseIdleConnections()
	var pushing sync.WaitGroup
	defer pushing.Wait()
	pushing.Go(func() { a.pushAll(ctx) })
	serveHTTP(ctx, ln, a, a.log)
}

// A delivery is a request of the bridge: events of one connection.
type delivery struct {
	Connection struct {
		ID      string          `json:"id"`
		User    string          `json:"user"`
		PushURL string          `json:"push_url"`
		State   json.RawMessage `json:"state"`
	} `json:"connection"`
	Events []event `json:"events"`
}

// An event is what happened; which members count depends on the type.
type event struct {
	Type  string  `json:"type"`
	Query string  `json:"query"`       // connect: as in the URL
	Text  *string `json:"text"`        // message; nil when it is binary
	Data  []byte  `json:"data_base64"` // message
	Code  int     `json:"code"`        // close
}

// An answer is what the bridge is to do.
type answer struct {
	Accept  *accept  `json:"accept,omitempty"`
	Actions []action `json:"actions,omitempty"`
	State   any      `json:"state,omitempty"`
}

type accept struct {
	User string `json:"user"`
}

type action struct {
	Send  *send   `json:"send,omitempty"`
	Close *hangUp `json:"close,omitempty"`
}

type send struct {
	Text string `json:"text"`
}

type hangUp struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEvents))
	if err != nil {
		http.Error(w, "read the events: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := a.verifier.Verify(body, r.Header); err != nil {
		http.Error(w, "not signed by this demo's bridge: "+err.Error(), http.StatusUnauthorized)
		return
	}
	var d delivery
	if err := json.Unmarshal(body, &d); err != nil {
		http.Error(w, "decode the events: "+err.Error(), http.StatusBadRequest)
		return
	}
	reply, err := a.handle(d)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	data, err := json.Marshal(reply)
	if err != nil {
		http.Error(w, "encode the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(data)
}

// names are what users may be called: what the page shows needs no escaping then, and a refusal is easily had.
var names = regexp.MustCompile(`^[\p{L}\p{N}_-]{1,20}$`)

// handle carries out the events of one request. Its error refuses the socket.
func (a *app) handle(d delivery) (answer, error) {
	var reply answer
	count := tally(d.Connection.State)
	for _, e := range d.Events {
		switch e.Type {
		case "connect":
			name, err := a.connect(d, e)
			if err != nil {
				return answer{}, err
			}
			reply.Accept = &accept{User: name}
			reply.Actions = append(reply.Actions, say("welcome, %s; say \"bye\" to be closed by the application", name))
		case "message":
			count++
			reply.Actions = append(reply.Actions, message(d.Connection.User, count, e))
		case "close":
			a.forget(d.Connection.ID)
			a.log.Debug("a user left", "user", d.Connection.User, "code", e.Code)
		}
	}
	reply.State = count
	return reply, nil
}

// tally reads the state that the bridge keeps for each socket on our behalf: how many messages its user has sent.
func tally(state json.RawMessage) (count int) {
	if json.Unmarshal(state, &count) != nil {
		return 0 // a new socket has none
	}
	return count
}

// connect decides whether a user may come in, by the query's `name`, and remembers where to push.
func (a *app) connect(d delivery, e event) (string, error) {
	query, err := url.ParseQuery(e.Query)
	if err != nil {
		return "", fmt.Errorf("read the query: %w", err)
	}
	name := cmp.Or(query.Get("name"), "guest")
	if !names.MatchString(name) {
		return "", fmt.Errorf("the name %q is not allowed: at most 20 letters and digits", name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.live) >= maxUsers {
		return "", fmt.Errorf("the application is full: %d users are here", maxUsers)
	}
	a.live[d.Connection.ID] = user{name: name, pushURL: d.Connection.PushURL, since: time.Now()}
	return name, nil
}

func say(format string, args ...any) action {
	return action{Send: &send{Text: fmt.Sprintf(format, args...)}}
}

// message answers the count-th message of a user.
func message(name string, count int, e event) action {
	switch {
	case e.Text == nil:
		return say("%s, message %d was %d bytes", name, count, len(e.Data))
	case *e.Text == "bye":
		return action{Close: &hangUp{Code: 4000, Reason: "goodbye, " + name}}
	default:
		return say("%s, message %d was %d characters: %s", name, count, utf8.RuneCountInString(*e.Text), *e.Text)
	}
}

func (a *app) forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.live, id)
}

// pushAll pushes to all users, one after the other, at every interval until ctx ends.
func (a *app) pushAll(ctx context.Context) {
	ticker := time.NewTicker(a.interval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			for id, u := range a.settled(now) {
				if err := a.push(ctx, id, u, now); err != nil {
					a.log.Warn("cannot push", "user", u.name, "error", err)
				}
			}
		case <-ctx.Done():
			return
		}
	}
}

// settled are the users who came more than half an interval ago: the sockets of newer ones may not be open yet, and a push to a
// socket that does not exist makes us forget it.
func (a *app) settled(now time.Time) map[string]user {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := maps.Clone(a.live)
	maps.DeleteFunc(all, func(_ string, u user) bool { return now.Sub(u.since) < a.interval/2 })
	return all
}

// push sends the time to one socket, and forgets it when the bridge says that it is gone.
func (a *app) push(ctx context.Context, id string, u user, now time.Time) error {
	body, err := json.Marshal(map[string]any{
		"to":   map[string]string{"connection": id},
		"text": fmt.Sprintf("push: it is %s, %s", now.Format(time.TimeOnly), u.name),
	})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.pushURL+"/v1/send", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+a.token)
	resp, err := a.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is used again
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusGone:
		a.forget(id)
		return nil
	default:
		return fmt.Errorf("push to %s: %s", id, resp.Status)
	}
}
