package quant

import (
	"fmt"
	"math"
	"slices"
)

// Learned is a kind of number that a range method trains with the weights.
type Learned uint8

// The learned numbers, one for each scale of a tensor.
const (
	LearnedScale     Learned = iota + 1 // the scale s itself
	LearnedOffset                       // the zero point as a real number, which is rounded onto the grid
	LearnedThreshold                    // log2 of the largest magnitude; the scale is a power of two that follows from it
)

var learnedNames = []string{LearnedScale: "scale", LearnedOffset: "offset", LearnedThreshold: "threshold"}

func (v Learned) String() string { return enumName("Learned", learnedNames, uint8(v)) }

// rangeRules is the one table of what range methods are: a method is a row.
var rangeRules = [...]struct {
	weights, acts bool      // what it can find the range of
	observed      bool      // an activation's range follows the batches of training
	derived       bool      // a weight's scale follows from the current master and the Spec: none is stored
	calibrated    bool      // it looks at all calibration data at once and stays
	scheme        Scheme    // the only scheme that goes with it; 0: any but pow2 if it learns, else any
	learned       []Learned // what is trained
}{
	MinMax:     {weights: true, acts: true, observed: true, derived: true},
	EMA:        {acts: true, observed: true},
	Envelope:   {acts: true, observed: true},
	LSQ:        {weights: true, acts: true, learned: []Learned{LearnedScale}},
	Percentile: {weights: true, acts: true, calibrated: true},
	MSE:        {weights: true, acts: true, calibrated: true},
	Mean:       {weights: true, derived: true},
	Constant:   {weights: true, acts: true, derived: true},
	LSQPlus:    {acts: true, scheme: Affine, learned: []Learned{LearnedScale, LearnedOffset}},
	PACT:       {acts: true, scheme: Affine, learned: []Learned{LearnedScale}},
	TQT:        {weights: true, acts: true, scheme: PowerOfTwo, learned: []Learned{LearnedThreshold}},
	DoReFa:     {weights: true, scheme: Symmetric, derived: true},
}

// Learned lists what the method trains; nothing for most.
func (v Range) Learned() []Learned {
	if int(v) >= len(rangeRules) {
		return nil
	}
	return rangeRules[v].learned
}

// Learns reports a method that trains its range.
func (v Range) Learns() bool { return len(v.Learned()) > 0 }

// Observed reports a method by which an activation's range follows the batches of training.
func (v Range) Observed() bool { return int(v) < len(rangeRules) && rangeRules[v].observed }

// Calibrated reports a method that finds a range once, from all calibration data.
func (v Range) Calibrated() bool { return int(v) < len(rangeRules) && rangeRules[v].calibrated }

// Derived reports a method by which a weight's scale follows from the current master and the Spec, so that none is stored.
func (v Range) Derived() bool { return int(v) < len(rangeRules) && rangeRules[v].derived }

// ForWeights reports a method that finds the range of a weight.
func (v Range) ForWeights() bool { return int(v) < len(rangeRules) && rangeRules[v].weights }

// ForActs reports a method that finds the range of an activation.
func (v Range) ForActs() bool { return int(v) < len(rangeRules) && rangeRules[v].acts }

// RangesWhere lists the methods that ok accepts, in the order of the table.
func RangesWhere(ok func(Range) bool) []Range {
	var out []Range
	for v := range rangeRules {
		if ok(Range(v)) {
			out = append(out, Range(v))
		}
	}
	return out
}

// checkRange reports a method that does not go with the scheme.
func (s Spec) checkRange() error {
	switch want := rangeRules[s.Range].scheme; {
	case want != 0 && s.Scheme != want:
		return fmt.Errorf("range method %s needs scheme %s, not %s", s.Range, want, s.Scheme)
	case want == 0 && s.Scheme == PowerOfTwo && s.Range.Learns():
		return fmt.Errorf("%s learns scales that are not powers of two: use scheme symmetric, or range method tqt", s.Range)
	}
	return nil
}

// thresholdBits is how many codes lie between 0 and the threshold of method tqt, as a power of two: all of an unsigned grid
// whose zero point is its lowest code, else half of the grid (arXiv:1903.08066, section 3.1).
func (p *Params) thresholdBits(c int) int {
	n := p.Spec.Format.Bits()
	if lo, _ := p.Spec.Grid(); !p.Spec.Signed && p.Zero[c] == lo {
		return n
	}
	return n - 1
}

// Numbers are the learned numbers of a kind that the range method trains: the memory that training moves.
func (p *Params) Numbers(kind Learned) []float32 {
	if kind == LearnedScale {
		return p.Scale
	}
	return p.Learned
}

// Start makes the learned numbers that are not the scales themselves from the scales and zero points that calibration found.
// Numbers that are there already are kept. An offset starts at the zero point; a threshold in the middle of the octave that
// gives the scale, so that a step in either direction has the same way to go to the next power of two.
func (p *Params) Start() {
	kinds := p.Spec.Range.Learned()
	if len(p.Learned) == len(p.Scale) || len(kinds) == 0 || slices.Equal(kinds, []Learned{LearnedScale}) {
		return
	}
	p.Learned = make([]float32, len(p.Scale))
	for c, s := range p.Scale {
		switch kinds[len(kinds)-1] {
		case LearnedOffset:
			p.Learned[c] = float32(p.Zero[c])
		case LearnedThreshold:
			_, exp := math.Frexp(float64(ceilPow2(s))) // 2^k is 0.5 * 2^(k+1)
			p.Learned[c] = float32(exp-1+p.thresholdBits(c)) - 0.5
		}
	}
}

// Settle makes scales and zero points follow the learned numbers, and keeps these where they mean something, since an
// optimizer knows no limits:
//
//	scale       s = max(s, MinScale)
//	offset      o = clamp(o, lo, hi)                       z = rint(o)
//	threshold   s = 2^(ceil(t) - n)                        n = the grid's bits, less 1 unless the zero point is the lowest code
//
// A number that is NaN makes the scale NaN, which [Params.Validate] refuses.
func (p *Params) Settle() {
	lo, hi := p.Spec.Grid()
	for _, kind := range p.Spec.Range.Learned() {
		numbers := p.Numbers(kind)
		for c, v := range numbers {
			switch {
			case v != v:
				p.Scale[c] = v
			case kind == LearnedScale:
				if v < MinScale {
					numbers[c] = MinScale
				}
			case kind == LearnedOffset:
				numbers[c] = min(max(v, float32(lo)), float32(hi))
				p.Zero[c] = int32(math.RoundToEven(float64(numbers[c])))
			case kind == LearnedThreshold:
				n := p.thresholdBits(c)
				numbers[c] = min(max(v, float32(n+minExponent)), float32(n+maxExponent))
				p.Scale[c] = float32(math.Ldexp(1, int(math.Ceil(float64(numbers[c])))-n))
			}
		}
	}
}

// The exponents of the smallest and the largest scale that is a power of two.
const (
	minExponent = -23
	maxExponent = 127
)
