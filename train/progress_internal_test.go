package train

import (
	"strings"
	"testing"
)

// Epochs are numbers a person can read: whole ones whole, however many, and parts short.
func TestProgressLine(t *testing.T) {
	for epoch, want := range map[float64]string{1: "epoch 1 ", 0.5: "epoch 0.5 ", 1.0 / 3: "epoch 0.333 ", 999: "epoch 999 ", 1000: "epoch 1000 ", 12345: "epoch 12345 "} {
		var out strings.Builder
		p := newProgress(&out, "qat", 0, 10)
		p.epoch(metric{Epoch: epoch}, false)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q has no %q", out.String(), want)
		}
	}
}
