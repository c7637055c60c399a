package infer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/quant"
)

// TestRound16 compares the fast rounding with package quant's on every 16-bit value, halfway to the next, the float32
// neighbours of both, and random patterns.
func TestRound16(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, f := range []quant.Format{quant.FP16, quant.BF16} {
		check := func(v float32) {
			t.Helper()
			got, want := []float32{1, v, v}, []float32{1, v, v}
			gotErr, wantErr := round16(got, f), quant.Round16(want, want, f)
			if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
				t.Fatalf("%s of %v: error %v, want %v", f, v, gotErr, wantErr)
			}
			if wantErr == nil && math.Float32bits(got[1]) != math.Float32bits(want[1]) {
				t.Fatalf("%s of %v (%08x): %v, want %v", f, v, math.Float32bits(v), got[1], want[1])
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
