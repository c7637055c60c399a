package quant

import (
	"fmt"
	"math"
	"strings"
)

// Estimator is the straight-through estimator of a binary tensor: what stands for the derivative of sign at t, the value
// in units of the scale (D22; larq). Tensors with more levels have the clipped one.
type Estimator uint8

// The estimators. The zero value is Clipped.
const (
	Clipped    Estimator = iota // 1 where |t| <= 1 (arXiv:1602.02830)
	ApproxSign                  // 2-2|t| where |t| <= 1 (arXiv:1808.00278)
	SwishSign                   // 5*(2-5t*tanh(5t/2))/(1+cosh(5t)) (arXiv:1812.11800)
)

func estimatorNames() []string {
	return []string{Clipped: "clipped", ApproxSign: "approx-sign", SwishSign: "swish-sign"}
}

func (v Estimator) String() string {
	if names := estimatorNames(); int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("Estimator(%d)", uint8(v))
}

// ParseEstimator reads "clipped", "approx-sign" or "swish-sign".
func ParseEstimator(s string) (Estimator, error) {
	for i, name := range estimatorNames() {
		if name == s {
			return Estimator(i), nil
		}
	}
	return 0, fmt.Errorf("unknown estimator %q (allowed: %s)", s, strings.Join(estimatorNames(), ", "))
}

// MarshalText writes the estimator's name.
func (v Estimator) MarshalText() ([]byte, error) {
	if int(v) >= len(estimatorNames()) {
		return nil, fmt.Errorf("%s has no name", v)
	}
	return []byte(v.String()), nil
}

// UnmarshalText reads an estimator's name.
func (v *Estimator) UnmarshalText(b []byte) (err error) {
	*v, err = ParseEstimator(string(b))
	return err
}

// validateLevels reports contradictions between the format and Even, Estimator and Max.
func (s Spec) validateLevels() error {
	switch {
	case s.Format == Binary && !s.Even:
		return fmt.Errorf("binary has two levels, and levels are not even")
	case s.Even && s.Format.Bits() > 7:
		return fmt.Errorf("even levels of %s do not fit a byte: use int7 or less", s.Format)
	case s.Even && (s.Scheme != Symmetric || s.Signed != s.Narrow):
		return fmt.Errorf("even levels need scheme symmetric: they lie on both sides of a zero that is no level")
	case s.Even && !s.Signed && s.Format != Binary:
		return fmt.Errorf("even levels are for weights, and for binary activations: an activation needs the level 0")
	case s.Range == DoReFa && s.Format == Binary:
		return fmt.Errorf("binary weights by range method dorefa are -mean|w| and mean|w| of the tensor: use range mean, per tensor")
	case s.Range == DoReFa && !(s.Signed && s.Narrow):
		return fmt.Errorf("range method dorefa is for weights on levels that are symmetric around 0, and %s is not", s.Format)
	case s.Range == Mean && (s.Format != Binary || !s.Signed):
		return fmt.Errorf("range method mean is the scale of binary weights: use minmax or lsq for %s", s.Format)
	case s.Format == Binary && s.Range == MinMax:
		return fmt.Errorf("binary weights have one magnitude, and the largest is no good one: use range mean, constant or lsq")
	case s.Range == Constant && !(s.Max > 0 && s.Max <= math.MaxFloat32):
		return fmt.Errorf("range method constant needs max, a positive number, and has %v", s.Max)
	case s.Range == Constant && s.Scheme == Affine:
		return fmt.Errorf("range method constant is [-max, max]: use scheme symmetric")
	case s.Range != Constant && s.Max != 0:
		return fmt.Errorf("max %v belongs to range method constant, not to %s", s.Max, s.Range)
	case s.Estimator != Clipped && s.Format != Binary:
		return fmt.Errorf("estimator %s is the gradient of a sign: it belongs to binary tensors, not to %s", s.Estimator, s.Format)
	case s.Format == Binary && !s.Signed && s.Range != Constant:
		return fmt.Errorf("a binary activation is a sign, which no range changes: use range constant, not %s", s.Range)
	}
	return nil
}

// Code is the code of x on the grid of s with scale and zero point: [One] with the rounding rule of s, and for even levels
//
//	clamp(2*floor(x/(2*scale)) + 1, lo, hi) + zero
//
// so that a value between two levels goes to the nearer one, and one in the middle to the upper: the sign of 0 is +1.
// x must not be NaN.
func (s Spec) Code(x, scale float32, zero int32) int32 {
	lo, hi := s.Grid()
	if s.Even {
		return evenCode(x/scale, lo-zero, hi-zero) + zero
	}
	r := s.Rounding.Round(float64(x/scale)) + float64(zero)
	return int32(clamp64(r, float64(lo), float64(hi)))
}

// evenCode is the odd integer nearest to t within [lo, hi], the upper one of two.
func evenCode(t float32, lo, hi int32) int32 {
	q := 2*math.Floor(float64(t)/2) + 1
	return int32(clamp64(q, float64(lo), float64(hi)))
}

// EvenPass reports whether the straight-through estimator passes the gradient at t, a value of an even grid in units of
// its scale and relative to its zero point: where the nearest odd integer is on the grid, and for a sign where |t| <= 1.
func (s Spec) EvenPass(t float32) bool {
	lo, hi := s.Grid()
	half := float32(float32(hi-lo) / 2)
	if s.Format == Binary {
		return t >= -1 && t <= 1
	}
	return t >= -half-1 && t < half+1
}

// IsSign reports an activation that keeps nothing but the sign of its layer's value.
func (s Spec) IsSign() bool { return s.Format == Binary && !s.Signed }
