package server

import (
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// Clients that are told of their refusal and take nothing, not even the Close, are gone in their time, and hold nothing then.
func TestRefusedTunnelsThatTakeNothing(t *testing.T) {
	t.Parallel()
	s := run(t, `
listeners: [{name: plain, address: "127.0.0.1:0", http2: true}]
routes: [{name: r, path: /socket, refuse: close, websocket: {to: "ws://127.0.0.1:9"}}]
`)
	x := newStranger(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	open := make(map[uint32]bool)
	for range 20 {
		id, err := x.ask(append(goodTunnel(), "origin: https://evil.example"), false)
		if err != nil {
			t.Fatal(err)
		}
		open[id] = true
	}
	for len(open) > 0 {
		f, err := x.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if status := f.PseudoValue("status"); status != "200" || f.StreamEnded() {
				t.Errorf("answered %s", status)
			}
		case *http2.RSTStreamFrame:
			delete(open, f.StreamID)
		}
	}
	for deadline := time.Now().Add(patience); s.farewell.Len() > 0; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("they hold what they had")
		}
	}
}
