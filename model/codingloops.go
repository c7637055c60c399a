package model

import "math"

// plainLoops are the passes of CodeWeights in plain Go: their definition.
func plainLoops() Loops {
	return Loops{AbsMax: absMax, Quantize: quantizeWeights, Squash: func(w []float32, top float32) []float32 {
		out := make([]float32, len(w))
		Squash(out, w, top)
		return out
	}}
}

// absMax compares magnitudes as integers, which orders them, infinities and NaN last, without a branch.
func absMax(dst, w []float32, channels int) (nan int) {
	const inf = 0x7f800000
	top := make([]uint32, channels)
	for from := 0; from < len(w); from += channels {
		for c, v := range w[from : from+channels] {
			top[c] = max(top[c], math.Float32bits(v)&^(1<<31))
		}
	}
	nan = -1
	for c, v := range top {
		dst[c] = math.Float32frombits(v)
		if v > inf {
			nan = 0
		}
	}
	if nan < 0 {
		return nan
	}
	for i, v := range w {
		if v != v {
			return i
		}
	}
	return nan
}

// quantizeWeights rounds as quant.One does: where |t| < 2^22, adding and subtracting 1.5*2^23 is rounding half to even,
// and what lies further away is clamped before.
func quantizeWeights(codes []int8, mask []uint8, w, scale []float32, lo, hi int32) (odd int) {
	const magic float32 = 3 << 22
	odd = -1
	flo, fhi := float32(lo), float32(hi)
	clear(mask)
	c := len(scale)
	for from := 0; from < len(w); from += c {
		out := codes[from : from+c]
		for ch, v := range w[from : from+c] {
			t := v / scale[ch]
			if t < flo-1 {
				t = flo - 1
			}
			if t > fhi+1 {
				t = fhi + 1
			}
			q := int32(t + magic - magic)
			out[ch] = int8(min(max(q, lo), hi))
			if mask != nil && q >= lo && q <= hi {
				i := from + ch
				mask[i>>3] |= 1 << (i & 7)
			}
			if v-v != 0 && odd < 0 {
				odd = from + ch
			}
		}
	}
	return odd
}

// quantizeEven codes as quant.Spec.Code does for even levels, with a mask of quant.Spec.EvenPass. A weight beyond the grid is clamped
// before the floor.
func quantizeEven(codes []int8, mask []uint8, w, scale []float32, hi int32) {
	if hi == 1 {
		quantizeSigns(codes, mask, w, scale)
		return
	}
	top, edge := float32(hi), float32(hi)+1
	clear(mask)
	c := len(scale)
	for from := 0; from < len(w); from += c {
		out := codes[from : from+c]
		for ch, v := range w[from : from+c] {
			t := v / scale[ch]
			if mask != nil && t >= -edge && t < edge {
				i := from + ch
				mask[i>>3] |= 1 << (i & 7)
			}
			t = min(max(t, -top-1), top)
			q := int32(t)
			if float32(q) > t {
				q--
			}
			out[ch] = int8(q>>1<<1 + 1)
		}
	}
}

// quantizeSigns is quantizeEven of two levels, without branches that would guess signs: the bits of a float32 hold its sign
// and order its magnitude.
func quantizeSigns(codes []int8, mask []uint8, w, scale []float32) {
	const one = 0x3f800000 // the bits of 1
	codes = codes[:len(w)]
	c := 0
	for i, v := range w {
		t := math.Float32bits(v/scale[c] + 0) // -0 + 0 is 0
		codes[i] = 1 - 2*int8(t>>31)
		if mask != nil {
			if i&7 == 0 {
				mask[i>>3] = 0
			}
			mask[i>>3] |= uint8((t&^(1<<31)-one-1)>>31) << (i & 7) // below 0 where the magnitude is at most 1
		}
		if c++; c == len(scale) {
			c = 0
		}
	}
}
