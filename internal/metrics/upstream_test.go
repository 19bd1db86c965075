package metrics

import (
	"strings"
	"testing"
)

func TestServersOfGroupsAreAskedForWithEachScrape(t *testing.T) {
	t.Parallel()
	s := New("x")
	servers := []Server{
		{Upstream: "chat", Server: "ws://a:1", State: "up", Connections: 3, Opened: 5},
		{Upstream: "chat", Server: "ws://b:1", State: "down", Checks: 4, ChecksFailed: 2, Failed: 6, Ejections: 1},
		{Upstream: "chat", Server: "ws://b:1", State: "up"}, // with another query, which is not shown
		{Upstream: "chat", Server: "ws://c:1", State: "full"},
	}
	s.Upstreams(func() ([]Server, map[string]uint64) { return servers, map[string]uint64{"chat": 7} })
	got := exposition(t, s, "bridgehead_upstream_")
	for _, want := range []string{
		`server_up{server="ws://a:1",upstream="chat"} 1`, `server_up{server="ws://b:1",upstream="chat"} 0`,
		`server_up{server="ws://c:1",upstream="chat"} 1`, `server_connections{server="ws://a:1",upstream="chat"} 3`,
		`server_opened_total{server="ws://a:1",upstream="chat"} 5`, `server_failures_total{server="ws://b:1",upstream="chat"} 6`,
		`server_ejections_total{server="ws://b:1",upstream="chat"} 1`, `server_checks_total{server="ws://b:1",upstream="chat"} 4`,
		`server_checks_failed_total{server="ws://b:1",upstream="chat"} 2`, `unavailable_total{upstream="chat"} 7`,
	} {
		if !strings.Contains(got, "bridgehead_upstream_"+want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	servers = servers[:1]
	if got := exposition(t, s, "bridgehead_upstream_"); strings.Contains(got, "ws://b:1") {
		t.Error("a server that is gone is still told")
	}
	(*Set)(nil).Upstreams(nil)
}
