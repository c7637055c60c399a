package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// scaleShiftVec does leading sixteens from element from on, which begins a
// row; stopped says that the next one has a result that is not finite.
func (t *isa) scaleShiftVec(y, x, mul, add []float32, from int, a After) (done int, stopped bool) {
	n := (len(x) - from) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0, false
	}
	if len(mul)%vecLanes != 0 {
		return t.scaleShiftStretched(y[from:], x[from:], mul, add, n, a)
	}
	return t.scaleShiftRun(&y[from], &x[from], mul, add, n, a)
}

func (t *isa) scaleShiftStretched(y, x, mul, add []float32, n int, a After) (done int, stopped bool) {
	var mulBuf, addBuf [stretchLen]float32
	m, b := stretch(&mulBuf, mul), stretch(&addBuf, add)
	if m == nil {
		return 0, false
	}
	return t.scaleShiftRun(&y[0], &x[0], m, b, n, a)
}

func (t *isa) scaleShiftRun(y, x *float32, mul, add []float32, n int, a After) (done int, stopped bool) {
	m, b, period, left := &mul[0], &add[0], len(mul), 0
	wide := t.tier == cpu.AVX512VNNI
	if long := n &^ (longLanes - 1); wide && period%longLanes == 0 && long > 0 {
		left = scaleShiftLong(y, x, m, b, long, period, a)
		return long - left, left > 0
	}
	switch {
	case a.Round == RoundF16 && a.ReLU && wide:
		left = scaleShiftF16ReLUZ(y, x, m, b, n, period, a.Limit)
	case a.Round == RoundF16 && a.ReLU:
		left = scaleShiftF16ReLUY(y, x, m, b, n, period, a.Limit)
	case a.Round == RoundF16 && wide:
		left = scaleShiftF16Z(y, x, m, b, n, period)
	case a.Round == RoundF16:
		left = scaleShiftF16Y(y, x, m, b, n, period)
	case a.Round == RoundBF16 && a.ReLU && wide:
		left = scaleShiftBF16ReLUZ(y, x, m, b, n, period, a.Limit)
	case a.Round == RoundBF16 && a.ReLU:
		left = scaleShiftBF16ReLUY(y, x, m, b, n, period, a.Limit)
	case a.Round == RoundBF16 && wide:
		left = scaleShiftBF16Z(y, x, m, b, n, period)
	case a.Round == RoundBF16:
		left = scaleShiftBF16Y(y, x, m, b, n, period)
	case a.ReLU && wide:
		scaleShiftReLUZ(y, x, m, b, n, period, a.Limit)
	case a.ReLU:
		scaleShiftReLUY(y, x, m, b, n, period, a.Limit)
	case wide:
		scaleShiftZ(y, x, m, b, n, period)
	default:
		scaleShiftY(y, x, m, b, n, period)
	}
	return n - left, left > 0
}

// longLanes is what an iteration of the long streams takes.
const longLanes = 4 * vecLanes

// scaleShiftLong is the avx512 routine for n and period that are multiples of
// longLanes.
func scaleShiftLong(y, x, m, b *float32, n, period int, a After) (left int) {
	switch {
	case a.Round == RoundF16 && a.ReLU:
		return scaleShiftF16ReLUZx4(y, x, m, b, n, period, a.Limit)
	case a.Round == RoundF16:
		return scaleShiftF16Zx4(y, x, m, b, n, period)
	case a.Round == RoundBF16 && a.ReLU:
		return scaleShiftBF16ReLUZx4(y, x, m, b, n, period, a.Limit)
	case a.Round == RoundBF16:
		return scaleShiftBF16Zx4(y, x, m, b, n, period)
	case a.ReLU:
		scaleShiftReLUZx4(y, x, m, b, n, period, a.Limit)
	default:
		scaleShiftZx4(y, x, m, b, n, period)
	}
	return 0
}

// addRequantVec, meanSumsVec and meanVec do leading elements or channels.
func (t *isa) addRequantVec(dst []uint8, a, b Term, zero int32, lo, hi float32) int {
	n := len(dst) &^ (vecLanes - 1)
	if t.tier == cpu.Generic || n == 0 {
		return 0
	}
	if t.tier == cpu.AVX512VNNI {
		addRequantZ(&dst[0], &a.Q[0], &b.Q[0], n, a.M, b.M, lo, hi, a.Zero, b.Zero, zero)
	} else {
		addRequantY(&dst[0], &a.Q[0], &b.Q[0], n, a.M, b.M, lo, hi, a.Zero, b.Zero, zero)
	}
	return n
}

func (t *isa) meanSumsVec(acc []int32, x []uint8, cells int) (done int) {
	if t.tier == cpu.Generic || cells == 0 {
		return 0
	}
	for ; done+vecLanes <= len(acc); done += vecLanes {
		if t.tier == cpu.AVX512VNNI {
			meanSumsZ(&acc[done], &x[done], cells, len(acc))
		} else {
			meanSumsY(&acc[done], &x[done], cells, len(acc))
		}
	}
	return done
}

func (t *isa) meanVec(y, x []float32, cells int) (done int) {
	if t.tier == cpu.Generic || cells == 0 {
		return 0
	}
	for ; done+vecLanes <= len(y); done += vecLanes {
		if t.tier == cpu.AVX512VNNI {
			meanF32Z(&y[done], &x[done], cells, 4*len(y), float32(cells))
		} else {
			meanF32Y(&y[done], &x[done], cells, 4*len(y), float32(cells))
		}
	}
	return done
}
