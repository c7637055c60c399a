//go:build narrow_fault

package infer

import (
	"math"

	"github.com/narrow-ml/narrow/quant"
)

// A build with the tag narrow_fault rounds halves away from zero: a fault that `narrow verify` must find, made to test
// that it does. No other build contains any of this.
const rounding = "half away from zero (built with narrow_fault: for tests of verify only)"

// fused is false: the kernels requantize as they should, so this build keeps requantization apart.
const fused = false

// requantRows turns accumulators into codes, wrongly where float32(acc)*M is halfway between two integers.
func requantRows(dst []uint8, acc, bias []int32, r *quant.Requant) {
	lo, hi := float32(r.Lo-r.Zero), float32(r.Hi-r.Zero)
	for i, a := range acc {
		c := i % len(r.M)
		if bias != nil {
			a += bias[c]
		}
		t := min(max(quant.Mul32(float32(a), r.M[c]), lo), hi)
		dst[i] = uint8(int32(math.Round(float64(t))) + r.Zero)
	}
}
