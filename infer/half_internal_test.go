package infer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// TestRound16 compares the kernels' rounding with package quant's on every 16-bit value, halfway to the next, the float32
// neighbours of both, and random patterns, each among others of its vector and as one of the last few.
func TestRound16(t *testing.T) {
	out := func(f quant.Format) *tensor {
		return &tensor{size: 20, shape: model.Shape{20}, params: &quant.Params{Spec: quant.Spec{Format: f}}}
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, f := range []quant.Format{quant.FP16, quant.BF16} {
		check := func(v float32) {
			t.Helper()
			var got [20]float32
			got[5], got[18] = v, v
			want := []float32{v}
			gotErr, wantErr := out(f).store("x", got[:], activation{}, 0), quant.Round16(want, want, f)
			if wantErr != nil {
				wantErr = fmt.Errorf("x: example 0: %w", atIndex(wantErr, 5))
			}
			if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
				t.Fatalf("%s of %v: error %v, want %v", f, v, gotErr, wantErr)
			}
			for _, i := range []int{5, 18} {
				if wantErr == nil && math.Float32bits(got[i]) != math.Float32bits(want[0]) {
					t.Fatalf("%s of %v (%08x) at %d: %v, want %v", f, v, math.Float32bits(v), i, got[i], want[0])
				}
			}
		}
		for h := range 1 << 16 {
			v, next := quant.Decode16(uint16(h), f), quant.Decode16(uint16(h+1), f)
			for _, m := range []float32{v, (v + next) / 2} {
				check(m)
				check(math.Float32frombits(math.Float32bits(m) + 1))
				check(math.Float32frombits(math.Float32bits(m) - 1))
			}
		}
		for range 200000 {
			check(math.Float32frombits(rnd.Uint32()))
		}
	}
}
