package files

import "bridgehead/internal/yamlpos"

// Options are the section `files` of a route.
type Options struct {
	// The directory to serve, relative to the configuration file. Dotfiles and links that lead out of it are not served.
	Dir string `yaml:"dir"`
}

// Validate reports what cannot work. It looks and never acts.
func (o *Options) Validate(at yamlpos.Path, p *yamlpos.Problems) {
	if o.Dir == "" {
		p.Add(at.Key("dir"), "is missing: name the directory to serve")
	}
}
