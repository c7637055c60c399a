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
// there. mul and add may hold the numbers of several rows: 64 of them are the
// fastest. y may be x.
//
// With rounding, bad is the index of the first NaN or finite value that would
// become infinite, else -1: y holds results before it and its unrounded value
// in its place.
func ScaleShift(y, x, mul, add []float32, channels int, a After) (bad int) {
	return active.scaleShift(y, x, mul, add, channels, a)
}

// ones and noShift leave a value as it is; neither is ever written.
var ones, noShift = repeated(1), repeated(float32(math.Copysign(0, -1))) // adding -0 changes no value, not even -0

func repeated(v float32) (x [4 * vecLanes]float32) {
	fill(x[:], v)
	return x
}

func (t *isa) scaleShift(y, x, mul, add []float32, channels int, a After) (bad int) {
	y = y[:len(x)]
	if mul == nil {
		mul, add = ones[:], noShift[:]
	} else {
		rows(len(x), channels)
		add = add[:len(mul)]
		rows(len(mul), channels)
	}
	if !a.ReLU || a.Limit == 0 {
		a.Limit = float32(math.Inf(1))
	}
	done, stopped := t.scaleShiftVec(y, x, mul, add, 0, a)
	for stopped && len(x)-done >= vecLanes { // at a value that is no 16-bit number, or an infinity
		if bad = scaleShiftGeneric(y[:done+vecLanes], x, mul, add, done, a); bad >= 0 {
			return bad
		}
		done += vecLanes
		if stopped = done%len(mul) == 0; stopped { // where the streams begin again
			var n int
			n, stopped = t.scaleShiftVec(y, x, mul, add, done, a)
			done += n
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
