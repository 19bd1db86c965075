package tls

import (
	"testing"

	"bridgehead/internal/yamlpos"
)

func TestEachPairNeedsBothFiles(t *testing.T) {
	t.Parallel()
	o := DefaultOptions()
	o.Files = []Pair{{"a.pem", "a-key.pem"}, {Cert: "b.pem"}, {Key: "c-key.pem"}, {}}
	var p yamlpos.Problems
	o.Validate(yamlpos.Path{"certificates"}, &p)
	const want = `certificates.files[1]: key is missing: the PEM file with the certificate's private key
certificates.files[2]: cert is missing: the PEM file with the certificate and its intermediates
certificates.files[3]: cert is missing: the PEM file with the certificate and its intermediates
certificates.files[3]: key is missing: the PEM file with the certificate's private key`
	if got := p.Error(); got != want {
		t.Errorf("problems:\n%s\nwant:\n%s", got, want)
	}
}

func TestCertificatesAreEnabledByEitherSource(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		options Options
		want    bool
	}{{Options{}, false}, {Options{Internal: true}, true}, {Options{Files: []Pair{{"a", "b"}}}, true}} {
		if test.options.Enabled() != test.want {
			t.Errorf("%+v: enabled is %v", test.options, !test.want)
		}
	}
}
