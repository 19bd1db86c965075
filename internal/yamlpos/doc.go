// Package yamlpos decodes a YAML file into plain structs and says of every mistake where in the file it stands. It is
// stricter than YAML itself: unknown, doubled and empty keys are problems, and all problems are found in one pass.
package yamlpos
