package config

import "bridgehead/internal/yamlpos"

// BuiltIn is the configuration before the file says anything.
func BuiltIn() *Config { return builtIn() }

// Preset gives a new section its defaults.
// BridgeKeys are the sections of which a route has exactly one.
var BridgeKeys = bridgeKeys

func (c *Config) Preset(fresh any) { c.preset(fresh) }

// Problems are what validation says of a configuration that came from no file.
func (c *Config) Problems() []yamlpos.Problem {
	var p yamlpos.Problems
	c.validate(&p)
	return p.Sorted()
}
