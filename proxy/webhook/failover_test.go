package webhook

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
)

// nobody is the URL of an application that is not there.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestConnectIsAskedOfTheNextServer(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(http.ResponseWriter, *call) {}, func(o *Options, _ *proxy.Options) {
		o.To = upstream.To{nobody(t), o.To[0]}
	})
	for range 3 {
		p := s.dial()
		if c := s.next(typeConnect); c.Events[0].Seq != 0 {
			t.Errorf("the application was told %s", c.body)
		}
		p.Close()
		s.next(typeClose)
	}
}

// A session keeps its server; when that cannot be reached any more, it goes on at another, at once, with its next event.
func TestASessionMovesWhenItsServerIsGone(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 10)
	first := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }))
	t.Cleanup(first.Close)
	s := newStage(t, func(http.ResponseWriter, *call) {}, func(o *Options, _ *proxy.Options) {
		o.To = upstream.To{first.URL + "/{query.x}", o.To[0] + "/{query.x}"}
	})
	p := s.dial()
	p.send("a")
	<-asked
	<-asked // both connect and the message
	first.Close()
	// A kept connection that has ended unseen would be a failed attempt: nobody knows whether it brought the message there.
	s.bridge.current.Load().app.transport.(*http.Transport).CloseIdleConnections()
	p.send("b")
	if c := s.next(typeMessage); c.texts() != "b" || c.header.Get("Bridgehead-Attempt") != "1" {
		t.Errorf("the second server was told %s in attempt %s", c.body, c.header.Get("Bridgehead-Attempt"))
	}
	p.send("c")
	if c := s.next(typeMessage); c.texts() != "c" {
		t.Errorf("the second server was told %s", c.body)
	}
	p.Close()
	s.next(typeClose)
	if !strings.Contains(s.log.String(), "server not reached, trying the next") {
		t.Error("the move was not logged")
	}
}

func TestALoneServerIsNotLeft(t *testing.T) {
	t.Parallel()
	b := newBridge(t, nobody(t), nil)
	if _, err := b.Open(t.Context(), handshake()); err == nil || !strings.Contains(err.Error(), "does the server run") {
		t.Errorf("error %v", err)
	}
}
