package quant

import "math"

// MinScale is the smallest scale that range selection gives: 2^-23, the float32 epsilon, as PyTorch's observers use.
const MinScale = float32(1.0 / (1 << 23))

// Choose returns the scale and zero point of s for values in [min, max] (definition D6 of docs/arithmetic.md). The range
// is first widened to contain 0.
//
//	Symmetric   s = max(-min, max) / ((hi-lo)/2)      z = 0; unsigned: 128 for 8 bits, else (lo+hi)/2
//	Affine      s = (max-min) / (hi-lo)               z = clamp(lo - rint(min/s), lo, hi)
//	PowerOfTwo  the symmetric s, raised to a power of two; on an unsigned grid without negative values
//	            max / (hi-lo), raised, and z = lo
//
// A range of no width gives [MinScale]. min and max must be finite, else the result is not meaningful: observers
// refuse NaN and saturate infinities before they ask.
func (s Spec) Choose(min, max float32) (scale float32, zero int32) {
	lo, hi := s.Grid()
	if min > 0 {
		min = 0
	}
	if max < 0 {
		max = 0
	}
	if s.Scheme == Affine {
		scale = float32(max-min) / float32(hi-lo)
		if math.IsInf(float64(scale), 0) {
			scale = float32((float64(max) - float64(min)) / float64(hi-lo))
		}
		scale = atLeast(scale)
		z := float64(lo) - math.RoundToEven(float64(min/scale))
		return scale, int32(clamp64(z, float64(lo), float64(hi)))
	}
	if s.Scheme == PowerOfTwo && !s.Signed && min == 0 {
		return ceilPow2(atLeast(max / float32(hi-lo))), lo
	}
	amax := max
	if -min > amax {
		amax = -min
	}
	scale = s.symmetric(amax, float32(hi-lo)/2)
	if !s.Signed {
		zero = (lo + hi) / 2
		if s.Format == Int8 && !s.Even {
			zero = 128
		}
	}
	return scale, zero
}

func (s *Spec) symmetric(amax, half float32) float32 {
	scale := atLeast(amax / half)
	if s.Scheme == PowerOfTwo {
		scale = ceilPow2(scale)
	}
	return scale
}

// ChooseSymmetric writes the scales that [Spec.Choose] gives ranges of the magnitudes amax, one by one. s must be signed and not
// affine. scale may be amax.
func (s Spec) ChooseSymmetric(scale, amax []float32) {
	lo, hi := s.Grid()
	half := float32(hi-lo) / 2
	for i, v := range amax {
		scale[i] = s.symmetric(v, half)
	}
}

// ConstantScale is the scale and zero point of a Spec whose range is constant.
func (s Spec) ConstantScale() (scale float32, zero int32) { return s.Choose(-s.Max, s.Max) }

// atLeast is a usable scale: no smaller than [MinScale].
func atLeast(scale float32) float32 {
	if !(scale > MinScale) {
		return MinScale
	}
	return scale
}

// ceilPow2 is the smallest power of two that is at least x, for finite x > 0; 2^127, the largest that float32 holds, for
// any x above it.
func ceilPow2(x float32) float32 {
	frac, exp := math.Frexp(float64(x))
	if frac == 0.5 {
		return x
	}
	return float32(math.Ldexp(1, min(exp, 127)))
}

func clamp64(v, lo, hi float64) float64 {
	if v < lo {
		return lo
	}
	if v > hi {
		return hi
	}
	return v
}
