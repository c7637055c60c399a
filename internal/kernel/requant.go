package kernel

// roundMagic is 1.5*2^23: adding and subtracting it rounds a float32 of
// magnitude below 2^22 to the nearest integer, halves to even, with the
// hardware's own rounding and without a branch.
const roundMagic float32 = 3 << 22

// RequantRows turns int32 accumulators into u8 codes, channel by channel:
//
//	dst = int32(rint(clamp(float32(acc+bias[c])*m[c], lo-zero, hi-zero))) + zero
//
// with one rounding per operation, halves to even, and the clamp before the
// conversion. lo and hi lie in [0,255]; ReLU is lo = zero. bias may be nil.
// len(acc) is a multiple of channels.
func RequantRows(dst []uint8, acc []int32, bias []int32, m []float32, zero, lo, hi int32, channels int) {
	active.requantRows(dst, acc, bias, m, zero, lo, hi, channels)
}

// RequantStats is what RequantTrain saw before clamping, for the range
// observer: the least and the greatest of t = float32(acc+bias)*m.
type RequantStats struct{ Min, Max float32 }

// RequantTrain is RequantRows that also keeps what training needs: mask bits of
// the elements whose straight-through gradient passes, lo-zero <= rint(t) <=
// hi-zero and, with relu set, t > 0; and the extremes of t. A shard must begin
// at a multiple of eight elements. Of no elements it returns zeros.
func RequantTrain(dst []uint8, mask []uint8, acc []int32, bias []int32, m []float32, zero, lo, hi int32, relu bool, channels int) RequantStats {
	return active.requantTrain(dst, mask, acc, bias, m, zero, lo, hi, relu, channels)
}

// ScaleRows turns int32 accumulators into float32: dst = float32(acc+bias[c]) * m[c].
// bias may be nil.
func ScaleRows(dst []float32, acc, bias []int32, m []float32, channels int) {
	active.scaleRows(dst, acc, bias, m, channels)
}

// rows returns the number of rows of length channels in n elements.
func rows(n, channels int) int {
	if channels <= 0 || n%channels != 0 {
		panic("kernel: length is not a multiple of the number of channels")
	}
	return n / channels
}

func (t *isa) requantRows(dst []uint8, acc []int32, bias []int32, m []float32, zero, lo, hi int32, channels int) {
	rows(len(acc), channels)
	dst, m = dst[:len(acc)], m[:channels]
	if bias != nil {
		bias = bias[:channels]
	}
	done := t.requantVec(dst, acc, bias, m, zero, lo, hi)
	requantGeneric(dst, acc, bias, m, zero, lo, hi, done)
}

// requantGeneric is the definition of RequantRows, from element from on.
func requantGeneric(dst []uint8, acc, bias []int32, m []float32, zero, lo, hi int32, from int) {
	flo, fhi := float32(lo-zero), float32(hi-zero)
	for i, c := from, from%len(m); i < len(acc); i++ {
		v := acc[i]
		if bias != nil {
			v += bias[c]
		}
		t := float32(v) * m[c]
		if t < flo {
			t = flo
		}
		if t > fhi {
			t = fhi
		}
		dst[i] = uint8(int32(t+roundMagic-roundMagic) + zero)
		if c++; c == len(m) {
			c = 0
		}
	}
}

func (t *isa) requantTrain(dst []uint8, mask []uint8, acc []int32, bias []int32, m []float32, zero, lo, hi int32, relu bool, channels int) RequantStats {
	rows(len(acc), channels)
	dst, m, mask = dst[:len(acc)], m[:channels], mask[:MaskLen(len(acc))]
	if bias != nil {
		bias = bias[:channels]
	}
	if len(acc) == 0 {
		return RequantStats{}
	}
	first := acc[0]
	if bias != nil {
		first += bias[0]
	}
	t0 := float32(first) * m[0]
	st := RequantStats{t0, t0}
	done := t.requantTrainVec(dst, mask, acc, bias, m, zero, lo, hi, relu, &st)
	requantTrainGeneric(dst, mask, acc, bias, m, zero, lo, hi, relu, &st, done)
	return RequantStats{st.Min + 0, st.Max + 0} // -0 + 0 is 0
}

// requantTrainGeneric is the definition of RequantTrain, from element from on,
// a multiple of eight.
func requantTrainGeneric(dst, mask []uint8, acc, bias []int32, m []float32, zero, lo, hi int32, relu bool, st *RequantStats, from int) {
	flo, fhi := float32(lo-zero), float32(hi-zero)
	var bits uint8
	for i, c := from, from%len(m); i < len(acc); i++ {
		v := acc[i]
		if bias != nil {
			v += bias[c]
		}
		t := float32(v) * m[c]
		st.Min, st.Max = min(st.Min, t), max(st.Max, t)
		q := rintClamped(t, flo, fhi)
		if q >= flo && q <= fhi && (!relu || t > 0) {
			bits |= 1 << (i & 7)
		}
		if q < flo {
			q = flo
		}
		if q > fhi {
			q = fhi
		}
		dst[i] = uint8(int32(q) + zero)
		if i&7 == 7 || i == len(acc)-1 {
			mask[i>>3], bits = bits, 0
		}
		if c++; c == len(m) {
			c = 0
		}
	}
}

// rintClamped rounds t to an integer, halves to even, where that integer can
// lie in [lo, hi]; a t farther away becomes an integer just outside, so that
// callers can still tell which side it was on. A NaN stays NaN.
func rintClamped(t, lo, hi float32) float32 {
	if t < lo-1 {
		t = lo - 1
	}
	if t > hi+1 {
		t = hi + 1
	}
	return t + roundMagic - roundMagic
}

func (t *isa) scaleRows(dst []float32, acc, bias []int32, m []float32, channels int) {
	rows(len(acc), channels)
	dst, m = dst[:len(acc)], m[:channels]
	if bias != nil {
		bias = bias[:channels]
	}
	done := t.scaleRowsVec(dst, acc, bias, m)
	for i, c := done, done%channels; i < len(acc); i++ {
		v := acc[i]
		if bias != nil {
			v += bias[c]
		}
		dst[i] = float32(v) * m[c]
		if c++; c == channels {
			c = 0
		}
	}
}
