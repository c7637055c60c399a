package kernel

// Quantization of float32 slices: q = clamp(rint(x/s) + z) with a true
// division and halves to even; infinities saturate; a NaN is an error of the
// caller's data, and its index is returned so that the error can say where
// (the first one; -1 when there is none). What is written for a NaN is the
// code of zero, with mask bit 0.
//
// A mask, where given, has the bit of an element set when its rounded value is
// in [lo, hi] before the clamp: the straight-through estimator on the ROUNDED
// value. A shard must begin at a multiple of eight elements.
//
// scale has one element, or one for each channel of the last axis, all
// positive and finite.

// MaskLen returns the bytes a mask of n elements needs.
func MaskLen(n int) int { return (n + 7) / 8 }

// QuantizeU8 writes codes with zero point zero. mask may be nil.
func QuantizeU8(dst []uint8, mask []uint8, x []float32, scale float32, zero, lo, hi int32) (nan int) {
	return active.quantizeU8(dst, mask, x, scale, zero, lo, hi)
}

// QuantizeTrain is QuantizeU8 that also keeps what training needs: a mask, and
// the extremes of x. Where nan says that there is a NaN, nothing else is
// specified.
func QuantizeTrain(dst, mask []uint8, x []float32, scale float32, zero, lo, hi int32) (st RequantStats, nan int) {
	return active.quantizeTrain(dst, mask, x, scale, zero, lo, hi)
}

func (t *isa) quantizeTrain(dst, mask []uint8, x []float32, scale float32, zero, lo, hi int32) (st RequantStats, nan int) {
	dst, mask = dst[:len(x)], mask[:MaskLen(len(x))]
	if len(x) == 0 {
		return st, -1
	}
	flo, fhi := float32(lo-zero), float32(hi-zero)
	st = RequantStats{x[0], x[0]}
	m := maskBits{mask: mask}
	done, odd := t.quantizeTrainVec(dst, mask, x, scale, flo, fhi, zero, &st)
	if odd {
		done, st = 0, RequantStats{x[0], x[0]}
	}
	for i := done; i < len(x); i++ {
		v := x[i]
		if v != v {
			return st, i
		}
		st.Min, st.Max = min(st.Min, v), max(st.Max, v)
		q, in := round(v, scale, flo, fhi)
		dst[i] = uint8(int32(q) + zero)
		m.put(i, in)
	}
	if len(x)&7 != 0 {
		m.flush(len(x))
	}
	return RequantStats{st.Min + 0, st.Max + 0}, -1 // -0 + 0 is 0
}

// QuantizeS8 writes symmetric codes (zero point 0) with one scale, or one per
// channel. mask may be nil. It is the quantizer of weights, which must be
// finite, and returns the index of the first that is infinite or NaN.
func QuantizeS8(dst []int8, mask []uint8, x, scale []float32, lo, hi int32) (odd int) {
	return active.quantizeS8(dst, mask, x, scale, lo, hi)
}

// FakeQuant writes s*(q-z), the value a code stands for, with one scale (and
// zero point) for the tensor. dst may be x; mask may be nil.
func FakeQuant(dst []float32, mask []uint8, x []float32, scale float32, zero, lo, hi int32) (nan int) {
	return active.fakeQuant(dst, mask, x, scale, zero, lo, hi)
}

// FakeQuantChannels is FakeQuant with one symmetric scale per channel.
func FakeQuantChannels(dst []float32, mask []uint8, x, scale []float32, lo, hi int32) (nan int) {
	return active.fakeQuantChannels(dst, mask, x, scale, lo, hi)
}

// MaskGrad writes dx = dy where the mask bit is set, else 0. dx may be dy.
func MaskGrad(dx, dy []float32, mask []uint8) {
	active.maskGrad(dx, dy, mask)
}

func (t *isa) maskGrad(dx, dy []float32, mask []uint8) {
	dx, mask = dx[:len(dy)], mask[:MaskLen(len(dy))]
	for i := t.maskGradVec(dx, dy, mask); i < len(dy); i++ {
		v := dy[i]
		if mask[i>>3]>>(i&7)&1 == 0 {
			v = 0
		}
		dx[i] = v
	}
}

// MaskReLUGrad is MaskGrad, then ReLUGrad: dx = dy where the mask bit is set
// and y > 0, else 0. dx may be dy.
func MaskReLUGrad(dx, dy, y []float32, mask []uint8) { active.maskReLUGrad(dx, dy, y, mask) }

func (t *isa) maskReLUGrad(dx, dy, y []float32, mask []uint8) {
	dx, y, mask = dx[:len(dy)], y[:len(dy)], mask[:MaskLen(len(dy))]
	for i := t.maskReLUGradVec(dx, dy, y, mask); i < len(dy); i++ {
		v := dy[i]
		if mask[i>>3]>>(i&7)&1 == 0 || !(y[i] > 0) {
			v = 0
		}
		dx[i] = v
	}
}

// AddMasked writes dst = a + dy where the mask bit is set, else a + 0. dst may
// be a.
func AddMasked(dst, a, dy []float32, mask []uint8) { active.addMasked(dst, a, dy, mask) }

func (t *isa) addMasked(dst, a, dy []float32, mask []uint8) {
	dst, a, mask = dst[:len(dy)], a[:len(dy)], mask[:MaskLen(len(dy))]
	for i := t.addMaskedVec(dst, a, dy, mask); i < len(dy); i++ {
		v := dy[i]
		if mask[i>>3]>>(i&7)&1 == 0 {
			v = 0
		}
		dst[i] = a[i] + v
	}
}

// DequantizeU8 writes scale[c]*(q-zero) with one scale, or one per channel.
func DequantizeU8(dst []float32, q []uint8, scale []float32, zero int32) {
	active.dequantizeU8(dst, q, scale, zero)
}

// DequantizeS8 writes scale[c]*q with one scale, or one per channel.
func DequantizeS8(dst []float32, q []int8, scale []float32) {
	active.dequantizeS8(dst, q, scale)
}

func (t *isa) dequantizeU8(dst []float32, q []uint8, scale []float32, zero int32) {
	rows(len(q), len(scale))
	dst = dst[:len(q)]
	dequantize(dst, q, scale, zero, t.dequantizeU8Vec(dst, q, scale, zero))
}

func (t *isa) dequantizeS8(dst []float32, q []int8, scale []float32) {
	rows(len(q), len(scale))
	dst = dst[:len(q)]
	dequantize(dst, q, scale, 0, t.dequantizeS8Vec(dst, q, scale))
}

// DequantizeColumns writes scale*(q-zero) of rows of n codes, stride apart, one
// row behind the other.
func DequantizeColumns(dst []float32, q []uint8, stride, n, rows int, scale float32, zero int32) {
	active.dequantizeColumns(dst, q, stride, n, rows, scale, zero)
}

func (t *isa) dequantizeColumns(dst []float32, q []uint8, stride, n, rows int, scale float32, zero int32) {
	if rows == 0 || n == 0 {
		return
	}
	dst, q = dst[:rows*n], q[:(rows-1)*stride+n]
	var one [vecLanes]float32
	fill(one[:], scale)
	for i := range rows {
		row := q[i*stride:][:n]
		done := t.dequantizeU8Vec(dst[i*n:], row, one[:], zero)
		dequantize(dst[i*n:][:n], row, one[:], zero, done)
	}
}

// dequantize is the definition of both, from element from on.
func dequantize[T int8 | uint8](dst []float32, q []T, scale []float32, zero int32, from int) {
	for i, c := from, from%len(scale); i < len(q); i++ {
		dst[i] = float32(int32(q[i])-zero) * scale[c]
		if c++; c == len(scale) {
			c = 0
		}
	}
}

// ScaleGrad returns the learned scale's gradient before its factor g (LSQ,
// arXiv:1902.08153, eq. 3, masked on the rounded value), summed over x:
//
//	sum dy * { lo-z below, hi-z above, rint(x/s) - x/s inside }
//
// over 16 float32 lanes in blocks of 4096 elements, blocks added in float64.
// lo and hi are relative to the zero point.
func ScaleGrad(dy, x []float32, scale float32, lo, hi int32) float64 {
	return active.scaleGrad(dy, x, scale, lo, hi)
}

func (t *isa) scaleGrad(dy, x []float32, scale float32, lo, hi int32) float64 {
	dy = dy[:len(x)]
	flo, fhi := float32(lo), float32(hi)
	var total float64
	for len(x) > 0 {
		px, pdy := x[:min(laneBlock, len(x))], dy[:min(laneBlock, len(x))]
		x, dy = x[len(px):], dy[len(px):]
		var lane [16]float32
		for i := t.scaleGradVec(&lane, pdy, px, scale, flo, fhi); i < len(px); i++ {
			lane[i%16] += float32(pdy[i] * scaleSlope(px[i]/scale, flo, fhi))
		}
		total += float64(tree16(&lane))
	}
	return total
}

// ScaleGradChannels is ScaleGrad for one scale per channel, adding rows in
// blocks as SumColumns does: one shard's part.
func ScaleGradChannels(dst []float64, dy, x, scale []float32, lo, hi int32) {
	active.columnSums(dst, termScaleGrad, &columnArgs{x: x, dy: dy[:len(x)], scale: scale, lo: float32(lo), hi: float32(hi)}, len(scale))
}

// scaleSlope is the derivative of s*clamp(rint(x/s)) by s at t = x/s.
func scaleSlope(t, lo, hi float32) float32 {
	switch r := rintClamped(t, lo, hi); {
	case r < lo:
		return lo
	case r > hi:
		return hi
	default:
		return r - t
	}
}

// maskBits collects mask bits into bytes.
type maskBits struct {
	mask []uint8
	bits uint8
}

func (m *maskBits) put(i int, in bool) {
	if in {
		m.bits |= 1 << (i & 7)
	}
	if i&7 == 7 {
		m.flush(i)
	}
}

// flush stores the byte that holds bit i.
func (m *maskBits) flush(i int) {
	if m.mask != nil {
		m.mask[i>>3] = m.bits
	}
	m.bits = 0
}

// round returns clamp(rint(x/s)) between lo and hi, which are relative to the
// zero point, and whether it lay inside before the clamp.
func round(x, scale, lo, hi float32) (q float32, in bool) {
	t := x / scale
	if t != t {
		return 0, false
	}
	q = rintClamped(t, lo, hi)
	switch {
	case q < lo:
		return lo, false
	case q > hi:
		return hi, false
	}
	return q, true
}

// eachRounded runs put over the rounded elements of x from element from on, a
// multiple of sixteen, with one scale per channel. It completes mask and
// returns the index of the first odd element, first when that is not -1.
func eachRounded(mask []uint8, x, scale []float32, lo, hi float32, from, first int, odd func(float32) bool, put func(i int, q, s float32)) int {
	m := maskBits{mask: mask}
	for i, c := from, from%len(scale); i < len(x); i++ {
		s := scale[c]
		q, in := round(x[i], s, lo, hi)
		if first < 0 && odd(x[i]) {
			first = i
		}
		put(i, q, s)
		m.put(i, in)
		if c++; c == len(scale) {
			c = 0
		}
	}
	if len(x)&7 != 0 {
		m.flush(len(x))
	}
	return first
}

func isNaN(v float32) bool { return v != v }

func notFinite(v float32) bool { return v-v != 0 }

func firstNaN(x []float32) int {
	for i, v := range x {
		if v != v {
			return i
		}
	}
	return -1
}

// maskFor returns mask cut to n elements; nil stays nil.
func maskFor(mask []uint8, n int) []uint8 {
	if mask == nil {
		return nil
	}
	return mask[:MaskLen(n)]
}

func (t *isa) quantizeU8(dst []uint8, mask []uint8, x []float32, scale float32, zero, lo, hi int32) int {
	dst, mask = dst[:len(x)], maskFor(mask, len(x))
	flo, fhi := float32(lo-zero), float32(hi-zero)
	done, nan := t.quantizeU8Vec(dst, mask, x, scale, zero, flo, fhi)
	one := [1]float32{scale}
	return eachRounded(mask, x, one[:], flo, fhi, done, nan, isNaN, func(i int, q, _ float32) {
		dst[i] = uint8(int32(q) + zero)
	})
}

func (t *isa) quantizeS8(dst []int8, mask []uint8, x, scale []float32, lo, hi int32) int {
	rows(len(x), len(scale))
	dst, mask = dst[:len(x)], maskFor(mask, len(x))
	done, odd := t.quantizeS8Vec(dst, mask, x, scale, float32(lo), float32(hi))
	return eachRounded(mask, x, scale, float32(lo), float32(hi), done, odd, notFinite, func(i int, q, _ float32) { dst[i] = int8(q) })
}

func (t *isa) fakeQuant(dst []float32, mask []uint8, x []float32, scale float32, zero, lo, hi int32) int {
	one := [1]float32{scale}
	return t.fakeQuantChannels(dst, mask, x, one[:], lo-zero, hi-zero)
}

func (t *isa) fakeQuantChannels(dst []float32, mask []uint8, x, scale []float32, lo, hi int32) int {
	rows(len(x), len(scale))
	dst, mask = dst[:len(x)], maskFor(mask, len(x))
	done, nan := t.quantizeF32Vec(dst, mask, x, scale, float32(lo), float32(hi))
	return eachRounded(mask, x, scale, float32(lo), float32(hi), done, nan, isNaN, func(i int, q, s float32) { dst[i] = q * s })
}
