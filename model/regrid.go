package model

import (
	"fmt"

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
