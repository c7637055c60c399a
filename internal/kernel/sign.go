package kernel

import (
	"math"

	"github.com/narrow-ml/narrow/internal/elementary"
)

// Grids with even levels, of which a sign is the smallest: codes of binary
// activations, which are 0 and 2 around the zero point 1, and gradients.

const plusOne uint8 = 2 // and 0 for -1

// RequantSign writes the codes of the signs of accumulators: of acc+bias[c] >= 0
// the code of +1. bias may be nil. The sign of float32(acc+bias)*m is the same
// for every m > 0.
func RequantSign(dst []uint8, acc, bias []int32, channels int) {
	rows(len(acc), channels)
	dst = dst[:len(acc)]
	if bias == nil {
		for i, v := range acc {
			dst[i] = uint8(^(v >> 31)) & plusOne
		}
		return
	}
	for from := 0; from < len(acc); from += channels {
		out := dst[from : from+channels]
		for c, v := range acc[from : from+channels] {
			out[c] = uint8(^((v + bias[c]) >> 31)) & plusOne
		}
	}
}

// RequantSignTrain is RequantSign that also keeps what training needs: mask bits
// of the elements with |t| <= 1, t = float32(acc+bias[c])*m[c], and the extremes
// of t. A shard must begin at a multiple of eight elements.
func RequantSignTrain(dst, mask []uint8, acc, bias []int32, m []float32) RequantStats {
	RequantSign(dst, acc, bias, len(m))
	if len(acc) == 0 {
		return RequantStats{}
	}
	mask = mask[:MaskLen(len(acc))]
	clear(mask)
	var st RequantStats
	c := 0
	for i, v := range acc {
		if bias != nil {
			v += bias[c]
		}
		t := float32(v) * m[c]
		if i == 0 {
			st = RequantStats{t, t}
		}
		st.Min, st.Max = min(st.Min, t), max(st.Max, t)
		if t >= -1 && t <= 1 {
			mask[i>>3] |= 1 << (i & 7)
		}
		if c++; c == len(m) {
			c = 0
		}
	}
	return RequantStats{st.Min + 0, st.Max + 0} // -0 + 0 is 0
}

// QuantizeSign writes the codes of the signs of x/scale, -0 counting as 0, and,
// unless mask is nil, a bit for each |x/scale| <= 1. The index of the first NaN
// is returned, or -1.
func QuantizeSign(dst, mask []uint8, x []float32, scale float32) (nan int) {
	dst, mask = dst[:len(x)], maskFor(mask, len(x))
	const one = 0x3f800000 // the bits of 1: without branches that would guess signs
	nan = -1
	for i, v := range x {
		t := math.Float32bits(v/scale + 0) // -0 + 0 is 0
		if t&^(1<<31) > 0x7f800000 && nan < 0 {
			nan = i
		}
		dst[i] = uint8(t>>31-1) & plusOne
		if mask != nil {
			if i&7 == 0 {
				mask[i>>3] = 0
			}
			mask[i>>3] |= uint8((t&^(1<<31)-one-1)>>31) << (i & 7) // below 0 where the magnitude is at most 1
		}
	}
	return nan
}

// SlopeGrad writes dx = dy * slope(x/scale[c]), one scale for all or one per
// channel of the last axis. dx may be dy.
func SlopeGrad(dx, dy, x, scale []float32, slope func(t float32) float32) {
	rows(len(x), len(scale))
	dx, dy = dx[:len(x)], dy[:len(x)]
	c := 0
	for i, v := range x {
		dx[i] = dy[i] * slope(v/scale[c])
		if c++; c == len(scale) {
			c = 0
		}
	}
}

// ApproxSignSlope is 2-2|t| where |t| <= 1 and 0 elsewhere (arXiv:1808.00278).
func ApproxSignSlope(t float32) float32 {
	if t < 0 {
		t = -t
	}
	if !(t <= 1) {
		return 0
	}
	return 2 - 2*t
}

// SwishSignSlope is b*(2 - b*t*tanh(b*t/2)) / (1 + cosh(b*t)) with b = 5
// (arXiv:1812.11800).
func SwishSignSlope(t float32) float32 {
	const b = 5
	u := float64(b * float64(t))
	if u < 0 {
		u = -u // the slope is even
	}
	e := elementary.Exp(-u) // tanh(u/2) = (1-e)/(1+e), 1+cosh(u) = (1+e)^2/(2e)
	inner := 2 - float64(u*((1-e)/(1+e)))
	return float32(float64(b*inner) * 2 * e / float64((1+e)*(1+e))) // doubling is a sum
}

// ScaleGradEven writes, per channel of the last axis, the gradient of a learned
// scale of even levels before its factor g: sum dy * { -hi below, hi above,
// q-t inside }, where t = x/scale, q is the odd integer nearest to it, and
// inside is where the straight-through estimator passes: where q is a level or,
// of a sign, |t| <= 1.
func ScaleGradEven(dst []float64, dy, x, scale []float32, hi int32) {
	rows(len(x), len(scale))
	dst, dy = dst[:len(scale)], dy[:len(x)]
	clear(dst)
	top := float32(hi)
	below, above := -top-1, top+1
	if hi == 1 {
		below, above = -1, 1+0x1p-23 // 1 itself is inside
	}
	c := 0
	for i, v := range x {
		dst[c] += float64(dy[i] * evenSlope(v/scale[c], top, below, above))
		if c++; c == len(scale) {
			c = 0
		}
	}
}

// evenSlope is the derivative of s*code(x/s) by s at t = x/s.
func evenSlope(t, top, below, above float32) float32 {
	switch {
	case t >= above:
		return top
	case t < below:
		return -top
	}
	q := int32(t) // towards zero, at most a byte
	if float32(q) > t {
		q--
	}
	return float32(q>>1<<1+1) - t
}
