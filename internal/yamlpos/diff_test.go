package yamlpos_test

import (
	"strings"
	"testing"

	"bridgehead/internal/yamlpos"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	type inner struct {
		Ping int `yaml:"ping"`
		Size int `yaml:"size"`
	}
	type shared struct {
		Origins []string `yaml:"origins"`
	}
	type outer struct {
		Name   string `yaml:"name"`
		shared `yaml:",inline"`
		Socket inner          `yaml:"socket"`
		TCP    *inner         `yaml:"tcp"`
		Set    map[string]int `yaml:"set"`
		Hidden int            `yaml:"-"`
	}
	full := func() *outer {
		return &outer{"a", shared{[]string{"x"}}, inner{1, 2}, &inner{3, 4}, map[string]int{"k": 1}, 5}
	}
	for want, change := range map[string]func(*outer){
		"":                  func(o *outer) { o.Hidden = 6 },
		"name":              func(o *outer) { o.Name = "b" },
		"origins":           func(o *outer) { o.Origins = append(o.Origins, "y") },
		"socket.size":       func(o *outer) { o.Socket.Size = 9 },
		"socket.ping tcp":   func(o *outer) { o.Socket.Ping = 9; o.TCP = nil },
		"tcp.ping set":      func(o *outer) { o.TCP.Ping = 9; o.Set = nil },
		"name set":          func(o *outer) { o.Name = ""; o.Set["l"] = 2 },
		"tcp.ping tcp.size": func(o *outer) { o.TCP = &inner{} },
	} {
		changed := full()
		change(changed)
		if got := strings.Join(yamlpos.Diff(full(), changed), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := strings.Join(yamlpos.Diff(*changed, *full()), " "); got != want {
			t.Errorf("the other way round got %q, want %q", got, want)
		}
	}
}
