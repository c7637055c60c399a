package qtest

import (
	"fmt"
	"math"
)

// Close compares got with want: |got-want| <= atol + rtol*|want|, NaN equal to
// NaN. It returns the worst element as an error.
func Close(what string, got []float32, want []float64, rtol, atol float64) error {
	if len(got) != len(want) {
		return fmt.Errorf("%s: %d elements, want %d", what, len(got), len(want))
	}
	worst, at := 0.0, -1
	for i, w := range want {
		g := float64(got[i])
		if g == w || math.IsNaN(g) && math.IsNaN(w) {
			continue
		}
		excess := math.Abs(g-w) / (atol + rtol*math.Abs(w))
		if math.IsNaN(excess) {
			excess = math.Inf(1)
		}
		if excess > 1 && excess > worst {
			worst, at = excess, i
		}
	}
	if at >= 0 {
		return fmt.Errorf("%s[%d] = %v, want %v (%.3g times the tolerance)", what, at, got[at], want[at], worst)
	}
	return nil
}

// SameBits compares two float32 slices bit for bit; any NaN equals any NaN.
func SameBits(what string, got, want []float32) error {
	if len(got) != len(want) {
		return fmt.Errorf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if math.Float32bits(g) != math.Float32bits(w) && (g == g || w == w) {
			return fmt.Errorf("%s[%d] = %v (%#08x), want %v (%#08x)", what, i, g, math.Float32bits(g), w, math.Float32bits(w))
		}
	}
	return nil
}

// Same compares two slices of comparable values.
func Same[T comparable](what string, got, want []T) error {
	if len(got) != len(want) {
		return fmt.Errorf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		if got[i] != w {
			return fmt.Errorf("%s[%d] = %v, want %v", what, i, got[i], w)
		}
	}
	return nil
}
