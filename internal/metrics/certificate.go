package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Certificate is what is known of one at a moment. Its subject comes from the configuration.
type Certificate struct {
	Subject, Source string
	Until           time.Time // zero: there is none yet
	Failing         bool      // the last attempt to get, renew or read it failed
}

// Certificates names where to ask for the certificates. It is called once; from then on each scrape asks. One that is gone is gone from
// the metrics too.
func (s *Set) Certificates(read func() []Certificate) {
	if s != nil {
		s.registry.MustRegister(&certificates{read})
	}
}

// Issued counts an attempt to get a certificate from an authority, or to have it renewed: operation is `obtained` or `renewed`, outcome
// `ok` or `failed`.
func (s *Set) Issued(operation, outcome string, took time.Duration) {
	if s != nil {
		s.families.issued.WithLabelValues(s.words.bound("operation", operation), s.words.bound("issued", outcome)).Observe(took.Seconds())
	}
}

// OnDemand counts what became of a host whose first client asked for a certificate.
func (s *Set) OnDemand(outcome string) {
	if s != nil {
		s.families.onDemand.WithLabelValues(s.words.bound("on_demand", outcome)).Inc()
	}
}

// certificates is a collector of what others know.
type certificates struct{ read func() []Certificate }

var (
	notAfterDesc = prometheus.NewDesc("bridgehead_certificate_not_after_seconds", "When the certificate ends, as a Unix time; 0 if there is none yet.",
		[]string{"subject", "source"}, nil)
	failingDesc = prometheus.NewDesc("bridgehead_certificate_failing", "1 if the last attempt to get, renew or read the certificate failed, else 0.",
		[]string{"subject", "source"}, nil)
	demandedDesc = prometheus.NewDesc("bridgehead_certificates_on_demand", "Certificates that were got on demand and are held.", nil, nil)
)

// Describe is prometheus.Collector's.
func (c *certificates) Describe(to chan<- *prometheus.Desc) {
	to <- notAfterDesc
	to <- failingDesc
	to <- demandedDesc
}

// Collect is prometheus.Collector's. Hosts that strangers name have no series of their own.
func (c *certificates) Collect(to chan<- prometheus.Metric) {
	demanded := 0
	seen := make(map[[2]string]bool)
	for _, cert := range c.read() {
		labels := [2]string{strings.ToValidUTF8(cert.Subject, "?"), cert.Source}
		if cert.Source == "on_demand" {
			demanded++
			continue
		}
		if seen[labels] {
			continue
		}
		seen[labels] = true
		until, failing := 0., 0.
		if !cert.Until.IsZero() {
			until = float64(cert.Until.Unix())
		}
		if cert.Failing {
			failing = 1
		}
		to <- prometheus.MustNewConstMetric(notAfterDesc, prometheus.GaugeValue, until, labels[:]...)
		to <- prometheus.MustNewConstMetric(failingDesc, prometheus.GaugeValue, failing, labels[:]...)
	}
	to <- prometheus.MustNewConstMetric(demandedDesc, prometheus.GaugeValue, float64(demanded))
}
