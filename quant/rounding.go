package quant

import (
	"fmt"
	"math"
)

// Rounding names the rule by which a value in units of the scale becomes an integer.
type Rounding uint8

// The rounding rules.
const (
	HalfEven   Rounding = iota + 1 // to nearest, halves to the even integer: IEEE 754, ONNX QuantizeLinear
	Stochastic                     // training: up with the probability of the fraction; otherwise HalfEven
	Floor                          // to the integer below
	Ceil                           // to the integer above
	ToZero                         // the fraction is cut off
	HalfUp                         // to nearest, halves up (D15's single rounding)
)

var roundingNames = []string{HalfEven: "half-even", Stochastic: "stochastic", Floor: "floor", Ceil: "ceil", ToZero: "to-zero", HalfUp: "half-up"}

func (v Rounding) String() string { return enumName("Rounding", roundingNames, uint8(v)) }

// Roundings lists the rounding rules.
func Roundings() []Rounding { return []Rounding{HalfEven, Stochastic, Floor, Ceil, ToZero, HalfUp} }

// ParseRounding reads the name of a rounding rule.
func ParseRounding(s string) (Rounding, error) {
	return parseEnum[Rounding]("rounding", roundingNames, s)
}

// MarshalText writes the rule's name.
func (v Rounding) MarshalText() ([]byte, error) { return enumText("Rounding", roundingNames, uint8(v)) }

// UnmarshalText reads a rule's name.
func (v *Rounding) UnmarshalText(b []byte) (err error) {
	*v, err = orZero(b, ParseRounding)
	return err
}

// Round is t rounded, outside of training: Stochastic is HalfEven there.
func (v Rounding) Round(t float64) float64 {
	switch v {
	case Floor:
		return math.Floor(t)
	case Ceil:
		return math.Ceil(t)
	case ToZero:
		return math.Trunc(t)
	case HalfUp:
		return math.Floor(t + 0.5)
	}
	return math.RoundToEven(t)
}

// Nearest reports a rule under which the value of a code has that code again even where the division is an ulp off.
func (v Rounding) Nearest() bool { return v == HalfEven || v == Stochastic || v == HalfUp }

// validateRounding reports a rule that the tensor cannot have.
func (s Spec) validateRounding() error {
	switch {
	case s.Rounding == HalfEven:
	case !s.Signed:
		return fmt.Errorf("rounding %s is for weights: activations become codes by ONNX's QuantizeLinear, which rounds halves to even", s.Rounding)
	case s.Even:
		return fmt.Errorf("rounding %s chooses between neighbouring integers, and even levels are two apart: use half-even", s.Rounding)
	}
	return nil
}
