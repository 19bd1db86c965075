package webhook

import (
	"testing"

	"bridgehead/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
