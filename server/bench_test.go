package server

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"bridgehead/config"
)

// What many hosts in one file cost: `go test ./server -run ^$ -bench Hosts -benchtime 3x`. The time is that of reading the file, and of a
// start or a reload in which one route has changed; bytes/host is what the running program holds for each.
func BenchmarkHosts(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		text, other := hosts(n, "a"), hosts(n, "b")
		b.Run(fmt.Sprintf("start/%d", n), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				s, err := New(read(b, b.TempDir(), text), "test", discard())
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(heap()-before)/float64(n), "bytes/host")
				s.Stop()
			}
		})
		b.Run(fmt.Sprintf("reload/%d", n), func(b *testing.B) {
			state := b.TempDir()
			s, err := New(read(b, state, text), "test", discard())
			if err != nil {
				b.Fatal(err)
			}
			s.Start()
			defer s.Stop()
			next := []string{other, text}
			s.ReloadFrom(Source{Load: func() (*config.Config, []config.Warning, error) {
				now := next[0]
				next[0], next[1] = next[1], next[0]
				return read(b, state, now), nil, nil
			}})
			before := heap()
			for b.Loop() {
				if d, err := s.Reload(); err != nil || len(d.Routes) != 1 || d.Unchanged != n-1 {
					b.Fatal(d, err)
				}
			}
			b.ReportMetric(float64(int64(heap())-int64(before))/float64(n), "bytes/host") // more than before: nothing is to be left
		})
	}
}

// hosts is a file of n hosts; the last route differs by its server's port.
func hosts(n int, variant string) string {
	var b strings.Builder
	b.WriteString("certificates: {internal: true}\nlisteners: [{name: wss, address: \"127.0.0.1:0\", tls: true}]\nadmin: {address: \"127.0.0.1:0\"}\nroutes:\n")
	for i := range n {
		header := ""
		if i == n-1 {
			header = ", headers: {set: {X-Variant: " + variant + "}}"
		}
		fmt.Fprintf(&b, "  - {name: host-%d, host: host-%d.example.com, path: /ws, websocket: {to: \"ws://127.0.0.1:9000\"%s}}\n", i, i, header)
	}
	return b.String()
}

func read(b *testing.B, state, text string) *config.Config {
	b.Helper()
	c, _, err := config.Parse("test.yaml", []byte("state: "+state+"\n"+text), func(string) (string, bool) { return "", false })
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// heap is what is in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
