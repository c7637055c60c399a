package quant

import (
	"fmt"
	"math"
)

// Code is the memory type of codes: uint8 for activations, int8 for weights, int16 for 16-bit grids.
type Code interface{ ~uint8 | ~int8 | ~int16 }

// Mul32 is a*b rounded to float32. Go may fuse x*y+z into one rounding on some CPUs; the conversion here forbids it.
func Mul32(a, b float32) float32 { return float32(a * b) }

// One is the code of x: clamp(rint(x/s) + z, lo, hi) with float32 division and halves to even. x must not be NaN.
func One(x, s float32, z, lo, hi int32) int32 {
	r := math.RoundToEven(float64(x/s)) + float64(z)
	return int32(clamp64(r, float64(lo), float64(hi)))
}

// Quantize writes the codes of x; [Params.Index] is the scale of each (channels are the last axis).
// It stops at the first NaN with a [NaNError].
func Quantize[C Code](dst []C, x []float32, p *Params) error {
	if len(dst) != len(x) {
		return fmt.Errorf("quantize: %d codes for %d values", len(dst), len(x))
	}
	if err := p.serves(len(x)); err != nil {
		return fmt.Errorf("quantize: %w", err)
	}
	lo, hi := p.Spec.Grid()
	if int32(C(lo)) != lo || int32(C(hi)) != hi {
		return fmt.Errorf("quantize: the grid [%d, %d] of %s does not fit codes of type %T", lo, hi, p.Spec, C(0))
	}
	for i, v := range x {
		if v != v {
			return &NaNError{Index: i}
		}
		c := p.Index(i)
		dst[i] = C(p.Spec.Code(v, p.Scale[c], p.Zero[c]))
	}
	return nil
}

// Dequantize writes s*(q-z) for each code.
func Dequantize[C Code](dst []float32, codes []C, p *Params) error {
	if len(dst) != len(codes) {
		return fmt.Errorf("dequantize: %d values for %d codes", len(dst), len(codes))
	}
	if err := p.serves(len(codes)); err != nil {
		return fmt.Errorf("dequantize: %w", err)
	}
	for i, q := range codes {
		c := p.Index(i)
		dst[i] = p.Scale[c] * float32(int32(q)-p.Zero[c])
	}
	return nil
}

// FakeQuantize writes dequantize(quantize(x)): for integer formats a point of the grid, for fp16 and bf16 the rounded
// value, for fp32 x itself. If pass is not nil, pass[i] tells whether the straight-through estimator passes the gradient
// of x[i]: lo <= rint(x/s)+z <= hi, taken on the rounded value and before the clamp (D3, and LSQ's measured need), or for
// even levels [Spec.EvenPass].
func FakeQuantize(dst, x []float32, p *Params, pass []bool) error {
	if len(dst) != len(x) || (pass != nil && len(pass) != len(x)) {
		return fmt.Errorf("fake-quantize: %d outputs and %d mask values for %d values", len(dst), len(pass), len(x))
	}
	if !p.Spec.Format.IsInteger() {
		for i := range pass {
			pass[i] = true
		}
		return Round16(dst, x, p.Spec.Format)
	}
	if err := p.serves(len(x)); err != nil {
		return fmt.Errorf("fake-quantize: %w", err)
	}
	lo, hi := p.Spec.Grid()
	for i, v := range x {
		if v != v {
			return &NaNError{Index: i}
		}
		c := p.Index(i)
		s, z := p.Scale[c], p.Zero[c]
		if p.Spec.Even {
			q := evenCode(v/s, lo-z, hi-z)
			if pass != nil {
				pass[i] = p.Spec.EvenPass(v / s)
			}
			dst[i] = s * float32(q)
			continue
		}
		r := p.Spec.Rounding.Round(float64(v/s)) + float64(z)
		q := clamp64(r, float64(lo), float64(hi))
		if pass != nil {
			pass[i] = q == r
		}
		dst[i] = s * float32(int32(q)-z)
	}
	return nil
}
