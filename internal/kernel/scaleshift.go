package kernel

import "math"

// After is what follows a product in inference.
type After struct {
	ReLU  bool
	Limit float32 // upper limit of the ReLU; 0: none
	Round Rounding
}

// Rounding is the format that results are rounded to.
type Rounding uint8

// The formats: float32, which is no rounding, and 16 bits, halves to even.
const (
	RoundNone Rounding = iota
	RoundF16
	RoundBF16
)

// ScaleShift is batch norm, activation and rounding in one pass:
//
//	y = round(relu(float32(x*mul[c]) + add[c]))
//
// product and sum rounded apart. mul and add are both nil where there is
// nothing to scale; then so is channels 0. A NaN passes a ReLU, -0 becomes 0
// there. y may be x.
//
// With rounding, bad is the index of the first NaN or finite value that would
// become infinite, else -1: y holds results before it and its unrounded value
// in its place.
func ScaleShift(y, x, mul, add []float32, channels int, a After) (bad int) {
	return active.scaleShift(y, x, mul, add, channels, a)
}

// ones and noShift leave a value as it is; neither is ever written.
var ones, noShift = [vecLanes]float32{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, negativeZeros()

// negativeZeros are sixteen -0: adding one changes no value, not even -0.
func negativeZeros() (v [vecLanes]float32) {
	fill(v[:], float32(math.Copysign(0, -1)))
	return v
}

func (t *isa) scaleShift(y, x, mul, add []float32, channels int, a After) (bad int) {
	y = y[:len(x)]
	if mul == nil {
		mul, add, channels = ones[:], noShift[:], 0
	} else {
		rows(len(x), channels)
		mul, add = mul[:channels], add[:channels]
	}
	if !a.ReLU || a.Limit == 0 {
		a.Limit = float32(math.Inf(1))
	}
	done := 0
	for {
		n, stopped := t.scaleShiftVec(y, x, mul, add, done, channels, a)
		if done += n; !stopped {
			break
		}
		if bad = scaleShiftGeneric(y[:done+vecLanes], x, mul, add, done, a); bad >= 0 {
			return bad
		}
		if done += vecLanes; channels != 0 && done%channels != 0 { // the streams begin with a row: infinities are rare
			break
		}
	}
	return scaleShiftGeneric(y, x, mul, add, done, a)
}

// scaleShiftGeneric is the definition of ScaleShift, from element from to the
// end of y.
func scaleShiftGeneric(y, x, mul, add []float32, from int, a After) (bad int) {
	for i, c := from, from%len(mul); i < len(y); i++ {
		v := float32(x[i]*mul[c]) + add[c]
		if a.ReLU {
			if v <= 0 {
				v = 0
			}
			if v > a.Limit {
				v = a.Limit
			}
		}
		y[i] = v
		if a.Round != RoundNone {
			r := a.Round.of(v)
			if d := r - r; d != d && !math.IsInf(float64(v), 0) {
				return i
			}
			y[i] = r
		}
		if c++; c == len(mul) {
			c = 0
		}
	}
	return -1
}

const signBit = 1 << 31

// of rounds one value; a NaN stays one.
func (f Rounding) of(v float32) float32 {
	if v != v {
		return v
	}
	b := math.Float32bits(v)
	sign, mag := b&signBit, b&^uint32(signBit)
	drop, most := 13, math.Float32bits(65504)
	if f == RoundBF16 {
		drop, most = 16, 0x7f7f0000
	}
	const least = (127 - 14) << 23 // 2^-14, the smallest normal number of fp16
	if f == RoundF16 && mag < least {
		r := math.Float32frombits(mag) + 0.5 - 0.5 // numbers at 0.5 are 2^-24 apart, as those near 0 in fp16
		return math.Float32frombits(math.Float32bits(r) | sign)
	}
	r := (mag + 1<<(drop-1) - 1 + mag>>drop&1) >> drop << drop
	if r > most {
		r = 0x7f800000
	}
	return math.Float32frombits(r | sign)
}
