package model

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/quant"
)

// Regrid is a quantized model with the specs of q: formats may change, ranges stay. An activation's new scale and zero
// point are those of the values that its old grid covered, s*(lo-z) to s*(hi-z); a weight's scale keeps its largest value,
// s*hi. Scales that weights make of their current masters are left out, as ever. The masters are m's own.
func Regrid(m *Model, q QuantConfig) (*Model, error) {
	if m.Stage != Quantized {
		return nil, fmt.Errorf("model %q is %s; only a quantized model has ranges to keep", m.Name, m.Stage)
	}
	out, err := Place(m, q)
	if err != nil {
		return nil, err
	}
	if out, err = Share(out); err != nil {
		return nil, err
	}
	for _, name := range out.QuantNames() {
		old, p := m.Quant[name], out.Quant[name]
		if len(p.Scale) > 0 || old == nil { // the input, or a tensor that shares a quantizer already done
			continue
		}
		if err := regrid(p, old); err != nil {
			return nil, fmt.Errorf("model %q: tensor %q: %w", m.Name, name, err)
		}
	}
	return out, Check(out)
}

// regrid gives p the ranges of old.
func regrid(p, old *quant.Params) error {
	switch {
	case !p.Spec.Format.IsInteger() || !old.Spec.Format.IsInteger() || p.Spec.Signed != old.Spec.Signed || p.Spec.Per != old.Spec.Per:
		return fmt.Errorf("the range of %s has no meaning on %s", old.Spec, p.Spec)
	case p.Spec.Range == quant.Constant && !p.Spec.Signed:
		s, z := p.Spec.ConstantScale()
		p.Scale, p.Zero = []float32{s}, []int32{z}
		return nil
	case len(old.Scale) == 0, p.Spec.Range == quant.MinMax && p.Spec.Signed, p.Spec.Range == quant.Mean, p.Spec.Range == quant.Constant:
		return nil // it follows the master, or is known
	}
	p.Scale, p.Zero = make([]float32, len(old.Scale)), make([]int32, len(old.Zero))
	if p.Spec.Scheme == quant.PowerOfTwo && old.Spec.Scheme == quant.PowerOfTwo {
		return regridPow2(p, old)
	}
	lo, hi := old.Spec.Grid()
	_, top := p.Spec.Grid()
	for c, s := range old.Scale {
		z := old.Zero[c]
		if p.Spec.Signed {
			p.Scale[c] = float32(float64(s) * float64(hi) / float64(top))
			continue
		}
		p.Scale[c], p.Zero[c] = p.Spec.Choose(quant.Mul32(s, float32(lo-z)), quant.Mul32(s, float32(hi-z)))
	}
	return nil
}

// regridPow2 keeps the power of two at which the range ends: one bit less is a scale twice as large. A learned threshold is
// that power of two and stays.
func regridPow2(p, old *quant.Params) error {
	lo, _ := old.Spec.Grid()
	for c, s := range old.Scale {
		least := float32(0)
		if old.Zero[c] != lo {
			least = -1
		}
		p.Scale[c] = float32(math.Ldexp(float64(s), old.Spec.Format.Bits()-p.Spec.Format.Bits()))
		_, p.Zero[c] = p.Spec.Choose(least, 1)
	}
	if p.Spec.Range == quant.TQT && old.Spec.Range == quant.TQT {
		p.Learned = append([]float32(nil), old.Learned...)
	}
	return nil
}
