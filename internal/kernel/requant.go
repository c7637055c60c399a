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
	r := rows(len(acc), channels)
	dst, m = dst[:len(acc)], m[:channels]
	if bias != nil {
		bias = bias[:channels]
	}
	requantGeneric(dst, acc, bias, m, zero, lo, hi, r, channels)
}

func requantGeneric(dst []uint8, acc, bias []int32, m []float32, zero, lo, hi int32, r, channels int) {
	flo, fhi := float32(lo-zero), float32(hi-zero)
	for i := range r {
		out := dst[i*channels:][:channels]
		for c, v := range acc[i*channels:][:channels] {
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
			out[c] = uint8(int32(t+roundMagic-roundMagic) + zero)
		}
	}
}

func (t *isa) requantTrain(dst []uint8, mask []uint8, acc []int32, bias []int32, m []float32, zero, lo, hi int32, relu bool, channels int) RequantStats {
	r := rows(len(acc), channels)
	dst, m, mask = dst[:len(acc)], m[:channels], mask[:MaskLen(len(acc))]
	if bias != nil {
		bias = bias[:channels]
	}
	return requantTrainGeneric(dst, mask, acc, bias, m, zero, lo, hi, relu, r, channels)
}

func requantTrainGeneric(dst, mask []uint8, acc, bias []int32, m []float32, zero, lo, hi int32, relu bool, r, channels int) RequantStats {
	flo, fhi := float32(lo-zero), float32(hi-zero)
	var st RequantStats
	var bits uint8
	at := 0
	for i := range r {
		for c := range channels {
			v := acc[at]
			if bias != nil {
				v += bias[c]
			}
			t := float32(v) * m[c]
			if at == 0 {
				st = RequantStats{t, t}
			}
			if t < st.Min {
				st.Min = t
			}
			if t > st.Max {
				st.Max = t
			}
			q := rintClamped(t, flo, fhi)
			if q >= flo && q <= fhi && (!relu || t > 0) {
				bits |= 1 << (at & 7)
			}
			if q < flo {
				q = flo
			}
			if q > fhi {
				q = fhi
			}
			dst[i*channels+c] = uint8(int32(q) + zero)
			if at&7 == 7 {
				mask[at>>3], bits = bits, 0
			}
			at++
		}
	}
	if at&7 != 0 {
		mask[at>>3] = bits
	}
	return st
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
	r := rows(len(acc), channels)
	dst, m = dst[:len(acc)], m[:channels]
	if bias != nil {
		bias = bias[:channels]
	}
	for i := range r {
		out := dst[i*channels:][:channels]
		for c, v := range acc[i*channels:][:channels] {
			if bias != nil {
				v += bias[c]
			}
			out[c] = float32(v) * m[c]
		}
	}
}
