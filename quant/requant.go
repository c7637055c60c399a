package quant

import (
	"fmt"
	"math"
)

// Requant maps the int32 accumulators of one layer to what the layer stores.
//
//	codes   q = int32(rint(clamp(float32(acc)*M[c], Lo-Zero, Hi-Zero))) + Zero
//	Sign    q = Hi if float32(acc)*M[c] >= 0, else Lo: binary activations
//	Float   y = float32(acc)*M[c], float32: the logits
//
// float32(acc) rounds half to even above 2^24; the clamp comes before the rounding; nothing is fused.
type Requant struct {
	M            []float32 // finite and positive: one per output channel; of an addition one per input; of a mean one
	Zero, Lo, Hi int32
	Float        bool
	Sign         bool
}

// Multiplier is M = float32(float32(sx*sw)/sy).
func Multiplier(sx, sw, sy float32) float32 { return Mul32(sx, sw) / sy }

// BiasCode is rint(b / float32(sx*sw)) in float64 after the float32 product, and whether it fits an int32.
func BiasCode(b float64, sx, sw float32) (q int32, ok bool) {
	r := math.RoundToEven(b / float64(Mul32(sx, sw)))
	if !(r >= -math.MaxInt32 && r <= math.MaxInt32) {
		return 0, false
	}
	return int32(r), true
}

// Code requantizes one accumulator of channel c.
func (r *Requant) Code(acc int32, c int) int32 { return r.Round(Mul32(float32(acc), r.M[c])) }

// Round is the clamp-and-round of a value t that is already in units of the output scale, or of Sign the code of its sign.
// NaN gives Lo.
func (r *Requant) Round(t float32) int32 {
	if r.Sign {
		if t >= 0 {
			return r.Hi
		}
		return r.Lo
	}
	lo, hi := float32(r.Lo-r.Zero), float32(r.Hi-r.Zero)
	if !(t > lo) {
		t = lo
	}
	if t > hi {
		t = hi
	}
	return int32(math.RoundToEven(float64(t))) + r.Zero
}

// Value is the float32 output of channel c when Float is set.
func (r *Requant) Value(acc int32, c int) float32 { return Mul32(float32(acc), r.M[c]) }

// Validate checks that r has the given number of multipliers and that its limits make sense.
func (r *Requant) Validate(multipliers int) error {
	if len(r.M) != multipliers {
		return fmt.Errorf("requantization has %d multipliers, not %d", len(r.M), multipliers)
	}
	for c, m := range r.M {
		if !(m > 0) || math.IsInf(float64(m), 0) {
			return fmt.Errorf("multiplier[%d] is %v; it must be finite and positive", c, m)
		}
	}
	if !r.Float && (r.Lo > r.Hi || r.Zero < r.Lo || r.Zero > r.Hi) {
		return fmt.Errorf("zero point %d and limits [%d, %d] contradict each other", r.Zero, r.Lo, r.Hi)
	}
	return nil
}
