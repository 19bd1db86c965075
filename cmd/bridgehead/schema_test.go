package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestTheSchemaIsPrinted(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	if code := run([]string{"schema"}, &stdout, &stderr); code != exitOK || stderr.Len() > 0 {
		t.Fatalf("exit code %d, %s", code, &stderr)
	}
	var schema struct{ Properties map[string]any }
	if err := json.Unmarshal(stdout.Bytes(), &schema); err != nil || schema.Properties["routes"] == nil {
		t.Errorf("%v, properties %v", err, schema.Properties)
	}
	if code := run([]string{"schema"}, badWriter{}, &stderr); code != exitFailed {
		t.Errorf("exit code %d when nothing can be written", code)
	}
}
