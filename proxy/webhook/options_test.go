package webhook

import (
	"strings"
	"testing"
	"time"

	"bridgehead/internal/unit"
	"bridgehead/internal/yamlpos"
	"bridgehead/proxy/upstream"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Options){
		"":                                            func(*Options) {},
		"webhook.to":                                  func(o *Options) { o.To = nil },
		"webhook.to[0]: ":                             func(o *Options) { o.To = upstream.To{"tcp://127.0.0.1:1"} },
		"webhook.secret[1]: ":                         func(o *Options) { o.Secret = []unit.Secret{oldKey, "whsec_x"} },
		"webhook.forward_headers":                     func(o *Options) { o.ForwardHeaders = []string{"a b"} },
		"webhook.timeout: must be positive":           func(o *Options) { o.Timeout = 0 },
		"webhook.timeout: must be 1m0s at most":       func(o *Options) { o.Timeout = time.Hour },
		"webhook.retries: ":                           func(o *Options) { o.Retries = -1 },
		"webhook.in_flight: ":                         func(o *Options) { o.InFlight = 0 },
		"webhook.queue.messages: ":                    func(o *Options) { o.Queue.Messages = 0 },
		`did you mean "drop"?`:                        func(o *Options) { o.OnRefused = "dorp" },
		"webhook.on_refused: must be drop or close, ": func(o *Options) { o.OnRefused = "" },
	} {
		o := DefaultOptions()
		o.To = upstream.To{"http://127.0.0.1:8000/ws.php?room={room}"}
		change(&o)
		var p yamlpos.Problems
		o.Validate(yamlpos.Path{"webhook"}, &p)
		if got := p.Error(); !strings.Contains(got, want) || p.Len() > 1 || (p.Len() == 0) != (want == "") {
			t.Errorf("got %q, want one problem like %q", got, want)
		}
	}
}
