package files

import (
	"io/fs"
	"time"

	"bridgehead/internal/yamlpos"
)

// Options are the section `files` of a route.
type Options struct {
	// The directory to serve, relative to the configuration file; the fixed part of the route's path, up to its last slash, stands for
	// it. Not served are lists of files, dotfiles but `.well-known`, and links that lead out of it or are absolute.
	Dir string `yaml:"dir"`
	// The file in `dir` that answers for pages that are none, for an application that reads the path in the browser: `index.html`.
	// What is missing and ends as a file does, such as `/old.js`, is still answered 404.
	Fallback string `yaml:"fallback"`
	// How long browsers may use a file without asking whether there is a newer one. They ask for HTML each time.
	Cache time.Duration `yaml:"cache"`
}

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if o.Dir == "" {
		p.Add(at.Key("dir"), "is missing: name the directory to serve")
	}
	if o.Fallback != "" && (!fs.ValidPath(o.Fallback) || !local(o.Fallback)) {
		p.Add(at.Key("fallback"), "%q is no file in dir: write its path below dir, such as index.html", o.Fallback)
	}
}
