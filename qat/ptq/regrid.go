package ptq

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Regrid is a quantized model with the specs of q, for training that goes on with other formats. The range of an activation
// stays: its new scale and zero point are those of the values that the old grid covered, s*(lo-z) to s*(hi-z). A learned
// weight scale becomes the mse scale of the current master: a grid of few codes needs a narrower range than one of many,
// and a ternary one of the same range would hold little but zeros. Scales that follow the masters are left to them. The
// masters are m's own.
func Regrid(m *model.Model, q model.QuantConfig) (*model.Model, error) {
	if m.Stage != model.Quantized {
		return nil, fmt.Errorf("model %q is %s; only a quantized model has ranges to keep", m.Name, m.Stage)
	}
	out, err := model.Place(m, q)
	if err != nil {
		return nil, err
	}
	if out, err = model.Share(out); err != nil {
		return nil, err
	}
	for _, name := range out.QuantNames() {
		old, p := m.Quant[name], out.Quant[name]
		if len(p.Scale) > 0 || old == nil { // the input, or a tensor that shares a quantizer already done
			continue
		}
		w := m.Params[name]
		switch {
		case w == nil:
			err = keepRange(p, old)
		case p.Spec.Range.Learns():
			err = fillWeight(p, w, MSE, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("model %q: tensor %q: %w", m.Name, name, err)
		}
	}
	return out, model.Check(out)
}

// keepRange gives an activation the range that it has on another grid.
func keepRange(p, old *quant.Params) error {
	switch {
	case !p.Spec.Format.IsInteger() || len(old.Scale) != 1 || p.Spec.Signed != old.Spec.Signed:
		return fmt.Errorf("the range of %s has no meaning on %s", old.Spec, p.Spec)
	case p.Spec.Range == quant.Constant:
		s, z := p.Spec.ConstantScale()
		p.Scale, p.Zero = []float32{s}, []int32{z}
		return nil
	}
	if p.Spec.Scheme == quant.PowerOfTwo && old.Spec.Scheme == quant.PowerOfTwo {
		keepPow2(p, old)
		return nil
	}
	lo, hi := old.Spec.Grid()
	s, z := old.At(0)
	scale, zero := p.Spec.Choose(quant.Mul32(s, float32(lo-z)), quant.Mul32(s, float32(hi-z)))
	p.Scale, p.Zero = []float32{scale}, []int32{zero}
	return nil
}

// keepPow2 keeps the power of two at which the range ends: one bit less is a scale twice as large. A learned threshold is
// that power of two and stays.
func keepPow2(p, old *quant.Params) {
	lo, _ := old.Spec.Grid()
	s, z := old.At(0)
	least := float32(0)
	if z != lo {
		least = -1
	}
	_, zero := p.Spec.Choose(least, 1)
	p.Scale, p.Zero = []float32{float32(math.Ldexp(float64(s), old.Spec.Format.Bits()-p.Spec.Format.Bits()))}, []int32{zero}
	if p.Spec.Range == quant.TQT && old.Spec.Range == quant.TQT {
		p.Learned = append([]float32(nil), old.Learned...)
	}
}
