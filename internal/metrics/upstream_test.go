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
		{Upstream: "chat", Server: "ws://c:1", State: "full", Requests: 8},
		{Upstream: "chat", Server: "ws://d:1", Address: "10.0.0.1", State: "up", Connections: 1},
		{Upstream: "chat", Server: "ws://d:1", Address: "10.0.0.2", State: "gone", Connections: 2},
	}
	names := []Name{
		{Upstream: "chat", Server: "ws://d:1", Addresses: 2, LookUps: 9, Failed: 3},
		{Upstream: "chat", Server: "ws://d:1"}, // with another query
	}
	s.Upstreams(func() Upstreams { return Upstreams{servers, names, map[string]uint64{"chat": 7}} })
	got := exposition(t, s, "bridgehead_upstream_")
	for _, want := range []string{
		`server_up{server="ws://a:1",upstream="chat"} 1`, `server_up{server="ws://b:1",upstream="chat"} 0`,
		`server_up{server="ws://c:1",upstream="chat"} 1`, `server_connections{server="ws://a:1",upstream="chat"} 3`,
		`server_opened_total{server="ws://a:1",upstream="chat"} 5`, `server_failures_total{server="ws://b:1",upstream="chat"} 6`,
		`server_ejections_total{server="ws://b:1",upstream="chat"} 1`, `server_checks_total{server="ws://b:1",upstream="chat"} 4`,
		`server_checks_failed_total{server="ws://b:1",upstream="chat"} 2`, `unavailable_total{upstream="chat"} 7`,
		`server_requests_total{server="ws://c:1",upstream="chat"} 8`, `name_addresses{server="ws://d:1",upstream="chat"} 2`,
		`server_up{address="10.0.0.2",server="ws://d:1",upstream="chat"} 0`,
		`server_connections{address="10.0.0.1",server="ws://d:1",upstream="chat"} 1`,
		`name_lookups_total{server="ws://d:1",upstream="chat"} 9`, `name_lookups_failed_total{server="ws://d:1",upstream="chat"} 3`,
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
