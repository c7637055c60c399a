package export_test

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/export"
)

// TestVerifyWeightOnly trains and verifies integer weights with fp16 activations: graphs and engine agree to the bit, the
// interpreter of the file within what float32 sums give, and one code or one scale of a group that differs is found.
func TestVerifyWeightOnly(t *testing.T) {
	for _, tt := range []struct {
		precision string
		set       []string
	}{
		{"w8a16", nil},
		{"w4a16", []string{"quant.weight.range=lsq"}},
		{"w4a16", []string{"quant.weight.per=group", "quant.weight.group=32"}},
		{"w3a16", []string{"quant.weight.per=group", "quant.weight.range=lsq"}},
	} {
		t.Run(tt.precision, func(t *testing.T) {
			m, d := trained(t, "digits-cnn", tt.precision, append(tt.set, "train.lr=0.01")...)
			subject := export.Subject{Frozen: freeze(t, m), Trained: m}
			c, err := export.Verify(t.Context(), subject, d.Test, export.Options{Rows: 150, Workers: 2})
			if err != nil {
				t.Fatal(err)
			}
			if !c.Identical || len(c.Differences) > 0 || c.Precision != tt.precision {
				t.Errorf("%s: identical %t, %v", c.Precision, c.Identical, c.Differences)
			}
			for _, leg := range c.Legs {
				for _, l := range leg.Layers {
					if !leg.Claimed && !(l.MaxDiff < 0.05) {
						t.Errorf("%s: %q is off by %v", leg.Name, l.Name, l.MaxDiff)
					}
				}
			}
			scale := subject.Frozen.Quant["fc1.weight"].Scale
			scale[len(scale)-1] = math.Nextafter32(scale[len(scale)-1], 1)
			if c, err = export.Verify(t.Context(), subject, d.Test, export.Options{Rows: 20}); err != nil || c.Identical || len(c.Differences) != 1 {
				t.Errorf("one ulp of a scale: %v, %+v", err, c)
			}
			subject.Frozen = freeze(t, m)
			subject.Frozen.Params["fc1.weight"].Codes[3] ^= 1
			if c, err = export.Verify(t.Context(), subject, d.Test, export.Options{Rows: 20}); err != nil || c.Identical || len(c.Differences) != 1 {
				t.Errorf("another code: %v, %+v", err, c)
			}
		})
	}
}
