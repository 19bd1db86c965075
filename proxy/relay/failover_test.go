package relay

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"bridgehead/proxy"
	"bridgehead/proxy/upstream"
	"bridgehead/ws"
)

// nobody is the URL of a server that is not there.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "ws://" + l.Addr().String()
}

// What cannot serve at all is left for the next server; what a server decided is the client's answer.
func TestFailover(t *testing.T) {
	t.Parallel()
	status := func(s string) func(*net.TCPConn, string) {
		return hangsUp("HTTP/1.1 " + s + "\r\nContent-Length: 0\r\n\r\n")
	}
	for name, c := range map[string]struct {
		first  func(*net.TCPConn, string) // nil: it is not there
		status int                        // that the client sees; 101: the second server's
	}{
		"not there":       {nil, 101},
		"hangs up":        {hangsUp(""), 101},
		"no HTTP":         {hangsUp("SSH-2.0-x\r\n"), 101},
		"bad gateway":     {status("502 Bad Gateway"), 101},
		"unavailable":     {status("503 Service Unavailable"), 101},
		"gateway timeout": {status("504 Gateway Timeout"), 101},
		"refuses":         {status("403 Forbidden"), 403},
		"does not know":   {status("404 Not Found"), 404},
		"redirects":       {status("302 Found"), 302},
		"breaks":          {status("500 Internal Server Error"), 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := nobody(t)
			if c.first != nil {
				first, _ = server(t, c.first)
			}
			second, ends := server(t, says(accepted+"\r\n"))
			s, _, err := open(t, t.Context(), "", func(o *Options) { o.To = upstream.To{first, second} })
			refusal, refused := errors.AsType[*proxy.Refusal](err)
			switch {
			case c.status == http.StatusSwitchingProtocols && err != nil:
				t.Fatal(err)
			case c.status != http.StatusSwitchingProtocols && (!refused || refusal.Status != c.status):
				t.Errorf("%v, want %d", err, c.status)
			case err == nil:
				if got := "ws://" + s.lease.Target().Address(); got != second {
					t.Errorf("the session is at %s, want %s", got, second)
				}
				s.Close(ws.Cause{Kind: ws.ClientGone})
				if e := <-ends; e.request.Method != http.MethodGet {
					t.Errorf("the second server was asked %s", e.request.Method)
				}
			}
		})
	}
}

// A server that says nothing does not use up the time of the others.
func TestFailoverFromSilence(t *testing.T) {
	t.Parallel()
	silent, _ := server(t, func(*net.TCPConn, string) {})
	well, _ := server(t, says(accepted+"\r\n"))
	s, _, err := open(t, t.Context(), "", func(o *Options) { o.To, o.Connect.Timeout = upstream.To{silent, well}, 6*time.Second })
	if err != nil {
		t.Fatal(err)
	}
	s.Close(ws.Cause{Kind: ws.ClientGone})
}

func TestAllServersDown(t *testing.T) {
	t.Parallel()
	_, _, err := open(t, t.Context(), "", func(o *Options) { o.To = upstream.To{nobody(t), nobody(t)} })
	if err == nil || !strings.Contains(err.Error(), "refused; does the server run") {
		t.Errorf("error %v, want what the last server met", err)
	}
}
