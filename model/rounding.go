package model

import (
	"math"

	"github.com/narrow-ml/narrow/quant"
)

// quantizeRounded codes one block of a weight by a rounding rule other than half-even, with the mask of what the grid did not
// clamp. noise, where it is not nil, has a number of [0, 1) for each weight: stochastic rounding is floor(t + noise).
func quantizeRounded(codes []int8, mask []uint8, w, scale []float32, s quant.Spec, noise []float32) {
	low, high := s.Grid()
	lo, hi := float64(low), float64(high)
	clear(mask)
	c := len(scale)
	for i, v := range w {
		t := float64(v / scale[i%c])
		q := s.Rounding.Round(t)
		if noise != nil {
			q = math.Floor(t + float64(noise[i]))
		}
		if mask != nil && q >= lo && q <= hi {
			mask[i>>3] |= 1 << (i & 7)
		}
		codes[i] = int8(min(max(q, lo), hi))
	}
}

// magnitude is the largest |code| that a weight can have by any draw of its rounding rule.
func magnitude(v, scale float32, s quant.Spec) int64 {
	if s.Rounding != quant.Stochastic {
		q := s.Code(v, scale, 0)
		return int64(max(q, -q))
	}
	_, hi := s.Grid()
	return int64(min(math.Ceil(math.Abs(float64(v/scale))), float64(hi)))
}
