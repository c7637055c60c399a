package kernel

import (
	"math"
	"math/bits"

	"github.com/narrow-ml/narrow/internal/cpu"
)

// maskStream returns where mask bits go: a nil mask goes to sink, over and
// over.
func maskStream(sink *[2]uint8, mask []uint8) (m *uint8, step int) {
	if mask == nil {
		return &sink[0], 0
	}
	return &mask[0], 2
}

// nanIndex turns a quantizer's answer for n elements into the index of the
// first odd one, or -1.
func nanIndex(n, code int) int {
	if code == 0 {
		return -1
	}
	return n - code>>16 + bits.TrailingZeros16(uint16(code))
}

func (t *isa) quantizeF32Vec(dst []float32, mask []uint8, x, scale []float32, lo, hi float32) (n, nan int) {
	n = len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0, -1
	}
	var buf [stretchLen]float32
	var sink [2]uint8
	s := stretch(&buf, scale)
	if s == nil {
		return 0, -1
	}
	m, step := maskStream(&sink, mask)
	if t.tier == cpu.AVX512VNNI {
		return n, nanIndex(n, quantizeF32Z(&dst[0], m, &x[0], &s[0], n, len(s), step, lo, hi, 0))
	}
	return n, nanIndex(n, quantizeF32Y(&dst[0], m, &x[0], &s[0], n, len(s), step, lo, hi, 0))
}

func (t *isa) quantizeU8Vec(dst, mask []uint8, x []float32, scale float32, zero int32, lo, hi float32) (n, nan int) {
	n = len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0, -1
	}
	var s [vecLanes]float32
	var sink [2]uint8
	fill(s[:], scale)
	m, step := maskStream(&sink, mask)
	if t.tier == cpu.AVX512VNNI {
		return n, nanIndex(n, quantizeU8Z(&dst[0], m, &x[0], &s[0], n, vecLanes, step, lo, hi, zero))
	}
	return n, nanIndex(n, quantizeU8Y(&dst[0], m, &x[0], &s[0], n, vecLanes, step, lo, hi, zero))
}

func (t *isa) quantizeS8Vec(dst []int8, mask []uint8, x, scale []float32, lo, hi float32) (n, odd int) {
	n = len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0, -1
	}
	var buf [stretchLen]float32
	var sink [2]uint8
	s := stretch(&buf, scale)
	if s == nil {
		return 0, -1
	}
	m, step := maskStream(&sink, mask)
	if t.tier == cpu.AVX512VNNI {
		if quantizeModerate(dst, m, x, s, n, step, lo, hi) {
			return n, -1
		}
		return n, nanIndex(n, quantizeS8Z(&dst[0], m, &x[0], &s[0], n, len(s), step, lo, hi, 0))
	}
	return n, nanIndex(n, quantizeS8Y(&dst[0], m, &x[0], &s[0], n, len(s), step, lo, hi, 0))
}

// quantizeModerate quantizes weights where neither they nor their scales are near the limits of float32, so that remainders of
// quotients are exact, and there are rows enough to pay for reciprocals of the scales. Otherwise it reports false and may
// have written anything.
func quantizeModerate(dst []int8, mask *uint8, x, scale []float32, n, step int, lo, hi float32) bool {
	if len(scale) > stretchLen || n < 4*len(scale) {
		return false
	}
	var inverse [stretchLen]float32
	if reciprocalsZ(&inverse[0], &scale[0], len(scale), 1/mostModerate, mostModerate) != 0 {
		return false
	}
	bottom, top := roundedTo(lo, hi)
	got := quantizeWeightsZ(&dst[0], mask, &x[0], &scale[0], &inverse[0], n, len(scale), step, bottom, top)
	return math.Float32frombits(uint32(got)) <= mostModerate // not so of NaN
}

// mostModerate is a magnitude that leaves room to the limits of float32, as its reciprocal does.
const mostModerate = 0x1p60

func moderate(scale float32) bool { return scale >= 1/mostModerate && scale <= mostModerate }

// quantizeTrainVec quantizes leading elements and widens st. Where odd says that there is a NaN or something that is far from
// moderate, what it did is of no use.
func (t *isa) quantizeTrainVec(dst, mask []uint8, x []float32, scale, lo, hi float32, zero int32, st *RequantStats) (n int, odd bool) {
	n = len(x) &^ (vecLanes - 1)
	wide := t.tier == cpu.AVX512VNNI
	if t.tier == cpu.Generic || n == 0 || st.Min != st.Min || wide && !moderate(scale) {
		return 0, false
	}
	var stats statLanes
	stats.spread(st)
	least, most := roundedTo(lo, hi)
	found := 0
	if wide {
		found = quantizeTrainZ(&dst[0], &mask[0], &x[0], &stats[0], n, scale, 1/scale, least, most, zero)
	} else {
		found = quantizeTrainY(&dst[0], &mask[0], &x[0], &stats[0], n, scale, 1/scale, least, most, zero)
	}
	stats.join(st)
	return n, found != 0
}

// roundedTo returns the least number that is rounded to lo and the greatest that is rounded to hi, whole numbers, halves to
// even.
func roundedTo(lo, hi float32) (least, most float32) {
	least, most = lo-0.5, hi+0.5
	if int(lo)&1 != 0 {
		least = math.Nextafter32(least, hi)
	}
	if int(hi)&1 != 0 {
		most = math.Nextafter32(most, lo)
	}
	return least, most
}

func (t *isa) dequantizeU8Vec(dst []float32, q []uint8, scale []float32, zero int32) int {
	n := len(q) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	switch {
	case len(scale) == 1:
		var s [vecLanes]float32
		fill(s[:], scale[0])
		t.dequantizeU8Run(dst, q, s[:], n, zero)
		return n
	case len(scale)%vecLanes == 0:
		t.dequantizeU8Run(dst, q, scale, n, zero)
		return n
	}
	var buf [stretchLen]float32
	s := stretch(&buf, scale)
	if s == nil {
		return 0
	}
	t.dequantizeU8Run(dst, q, s, n, zero)
	return n
}

func (t *isa) dequantizeU8Run(dst []float32, q []uint8, s []float32, n int, zero int32) {
	if t.tier == cpu.AVX512VNNI {
		dequantizeU8Z(&dst[0], &q[0], &s[0], n, len(s), zero)
	} else {
		dequantizeU8Y(&dst[0], &q[0], &s[0], n, len(s), zero)
	}
}

func (t *isa) dequantizeS8Vec(dst []float32, q []int8, scale []float32) int {
	n := len(q) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	var buf [stretchLen]float32
	s := stretch(&buf, scale)
	if s == nil {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		dequantizeS8Z(&dst[0], &q[0], &s[0], n, len(s), 0)
	} else {
		dequantizeS8Y(&dst[0], &q[0], &s[0], n, len(s), 0)
	}
	return n
}
