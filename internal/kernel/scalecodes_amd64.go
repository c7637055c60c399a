package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

func (t *isa) scaleGradRowsVec(lane *[16]float32, dy []float32, acc, bias []int32, m []float32, codes, mask []uint8, zero int32) int {
	n := len(acc) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if len(m)%vecLanes == 0 {
		b, step := wholeBias(bias)
		t.scaleGradRowsRun(lane, dy, acc, b, m, codes, mask, n, step, zero)
		return n
	}
	var mBuf [stretchLen]float32
	var bBuf [stretchLen]int32
	ms := stretch(&mBuf, m)
	if ms == nil {
		return 0
	}
	b, step := biasStream(&bBuf, bias)
	t.scaleGradRowsRun(lane, dy, acc, b, ms, codes, mask, n, step, zero)
	return n
}

func (t *isa) scaleGradRowsRun(lane *[16]float32, dy []float32, acc []int32, b *int32, ms []float32, codes, mask []uint8, n, biasMask int, zero int32) {
	if t.tier == cpu.AVX512VNNI {
		scaleGradRowsZ(&lane[0], &dy[0], &acc[0], b, &ms[0], &codes[0], &mask[0], n, len(ms), biasMask, zero)
	} else {
		scaleGradRowsY(&lane[0], &dy[0], &acc[0], b, &ms[0], &codes[0], &mask[0], n, len(ms), biasMask, zero)
	}
}

// scaleGradVec and sumSquaresVec add leading elements to lanes.
func (t *isa) scaleGradVec(lane *[16]float32, dy, x []float32, scale, lo, hi float32) int {
	n := len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	switch wide := t.tier == cpu.AVX512VNNI; {
	case scale == 1 && wide:
		scaleGradOneZ(&lane[0], &dy[0], &x[0], n, lo, hi)
	case scale == 1:
		scaleGradOneY(&lane[0], &dy[0], &x[0], n, lo, hi)
	case wide:
		scaleGradZ(&lane[0], &dy[0], &x[0], n, scale, lo, hi)
	default:
		scaleGradY(&lane[0], &dy[0], &x[0], n, scale, lo, hi)
	}
	return n
}

// scaleGradCodesVec adds leading elements to lane and masks their dy. lane and
// inverse have a multiple of vecLanes elements.
func (t *isa) scaleGradCodesVec(lane, dy, x, inverse []float32, codes []int8, mask []uint8) int {
	n := len(x) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		scaleGradCodesZ(&lane[0], &dy[0], &x[0], &inverse[0], &codes[0], &mask[0], n, len(lane))
	} else {
		scaleGradCodesY(&lane[0], &dy[0], &x[0], &inverse[0], &codes[0], &mask[0], n, len(lane))
	}
	return n
}

// scaleGradU8Vec adds elements from element from on, a multiple of sixteen; it
// returns where it stopped.
func (t *isa) scaleGradU8Vec(lane *[16]float32, dy []float32, up []uint8, x []float32, inverse float32, codes, mask []uint8, from int, zero int32) int {
	n := (len(x) - from) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return from
	}
	if up != nil {
		up = up[from/8:]
	}
	u, step := passMask(up, 2)
	if t.tier == cpu.AVX512VNNI {
		scaleGradU8Z(&lane[0], &dy[from], u, &x[from], &codes[from], &mask[from/8], n, step, inverse, zero)
	} else {
		scaleGradU8Y(&lane[0], &dy[from], u, &x[from], &codes[from], &mask[from/8], n, step, inverse, zero)
	}
	return from + n
}
