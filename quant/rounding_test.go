package quant_test

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/quant"
)

// TestD11RoundingModes: the values of QONNX's truth table by each rule. Its half-up goes away from zero; ours goes up, as the
// single rounding of D15 does, which differs on -2.5 and -5.5 alone.
func TestD11RoundingModes(t *testing.T) {
	values := []float64{5.5, 2.5, 1.6, 1.1, 1.0, -1.0, -1.1, -1.6, -2.5, -5.5}
	for mode, want := range map[quant.Rounding][]float64{
		quant.HalfEven:   {6, 2, 2, 1, 1, -1, -1, -2, -2, -6},
		quant.Stochastic: {6, 2, 2, 1, 1, -1, -1, -2, -2, -6}, // outside of training
		quant.Floor:      {5, 2, 1, 1, 1, -1, -2, -2, -3, -6},
		quant.Ceil:       {6, 3, 2, 2, 1, -1, -1, -1, -2, -5},
		quant.ToZero:     {5, 2, 1, 1, 1, -1, -1, -1, -2, -5},
		quant.HalfUp:     {6, 3, 2, 1, 1, -1, -1, -2, -2, -5},
	} {
		for i, v := range values {
			if got := mode.Round(v); got != want[i] {
				t.Errorf("%s: %v becomes %v, want %v", mode, v, got, want[i])
			}
		}
	}
}

// Every rule keeps integers, is monotone, and moves a value by at most half a step (to nearest) or less than one.
func TestRoundingLaws(t *testing.T) {
	for _, mode := range quant.Roundings() {
		spec := quant.WeightSpec(quant.Int8)
		spec.Rounding = mode
		if err := spec.Validate(); err != nil {
			t.Fatal(err)
		}
		last := int32(-127)
		for i := -127 * 64; i <= 127*64; i++ {
			x := float32(i) / 64 // s is a power of two: all is exact
			q := spec.Code(x*0.25, 0.25, 0)
			most := 1.0
			if mode.Nearest() {
				most = 0.5
			}
			d := math.Abs(float64(q) - float64(x))
			if i%64 == 0 && d != 0 || d > most || d == 1 || q < last {
				t.Fatalf("%s: %v becomes %d after %d", mode, x, q, last)
			}
			last = q
		}
		if lo, hi := spec.Code(-1e9, 1, 0), spec.Code(1e9, 1, 0); lo != -127 || hi != 127 {
			t.Errorf("%s saturates at %d and %d", mode, lo, hi)
		}
		act := quant.ActSpec(quant.Int8)
		act.Rounding = mode
		if err := act.Validate(); (err == nil) != (mode == quant.HalfEven) {
			t.Errorf("%s of an activation: %v", mode, err)
		}
		even := quant.WeightSpec(quant.Binary)
		even.Rounding = mode
		if err := even.Validate(); (err == nil) != (mode == quant.HalfEven) {
			t.Errorf("%s of binary weights: %v", mode, err)
		}
	}
}
