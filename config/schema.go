package config

import _ "embed"

// Schema is the JSON Schema (2020-12) of the file, for editors. A test makes it from the structs that the file is decoded into.
//
//go:embed schema.json
var Schema []byte
