package model

import (
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/quant"
)

// Wide reports whether a layer of codes computes with 64-bit accumulators: its weight, its input or its output has 16 bits.
func (m *Model) Wide(n *Node) bool {
	for _, name := range append([]string{n.Name, n.Param(Weight)}, n.In...) {
		if q := m.Quant[name]; q != nil && q.Spec.Format == quant.Int16 {
			return true
		}
	}
	return false
}

// CodeWide is [CodeWeights] for the weight of a layer with 64-bit accumulators: 65,536 products of 16 bits fit them many times
// over, so a scale is raised only until the bias fits its int32.
func CodeWide(codes []int16, scale []float32, w []float32, p, in *quant.Params, affine *Affine) (raised int, err error) {
	c := len(scale)
	if c == 0 || len(w)%c != 0 || len(codes) != len(w) {
		return 0, fmt.Errorf("%d weights, %d codes and %d channels do not fit", len(w), len(codes), c)
	}
	if err := checkCoding(p, in, affine, c, 16); err != nil {
		return 0, err
	}
	w, err = plainLoops().weightScales(scale, w, p, c, false)
	if err != nil {
		return 0, err
	}
	for ch := range scale {
		before := scale[ch]
		for affine != nil {
			if _, _, _, ok := affine.foldChannel(ch, scale[ch], in.Scale[0]); ok {
				break
			}
			if scale[ch] > math.MaxFloat32/2 {
				return raised, fmt.Errorf("channel %d: no scale keeps the bias within 32 bits; it is out of all proportion to the weights", ch)
			}
			scale[ch] *= 2
		}
		if scale[ch] != before {
			raised++
		}
	}
	for i, v := range w {
		codes[i] = int16(p.Spec.Code(v, scale[i%c], 0))
	}
	return raised, nil
}

// freezeWide is freezeInteger with 64-bit accumulators.
func (m *Model) freezeWide(n *Node, w *Param, affine Affine) error {
	in, q, c := m.Quant[n.In[0]], m.Quant[n.Param(Weight)], n.Attr.Units
	codes, scale := make([]int16, len(w.Data)), make([]float32, c)
	if _, err := CodeWide(codes, scale, w.Data, q, in, &affine); err != nil {
		return n.errorf("weight: %w", err)
	}
	folded, bad := affine.Fold(scale, in.Scale[0])
	if bad >= 0 {
		return n.errorf("bias of channel %d does not fit 32 bits", bad)
	}
	for i := range codes {
		codes[i] *= int16(folded.Sign[i%c])
	}
	weight := &Param{Shape: slices.Clone(w.Shape)}
	if q.Spec.Format == quant.Int16 {
		weight.Codes16 = codes
	} else {
		weight.Codes = make([]int8, len(codes))
		for i, code := range codes {
			weight.Codes[i] = int8(code)
		}
	}
	return m.freezeFolded(n, weight, folded)
}

// freezeFolded stores an integer layer's weight with what was folded behind it.
func (m *Model) freezeFolded(n *Node, weight *Param, folded Folded) error {
	c := n.Attr.Units
	spec := m.Quant[n.Param(Weight)].Spec
	spec.Per, spec.Estimator = quant.PerChannel, quant.Clipped // the estimator is training's affair
	m.Quant[n.Param(Weight)] = &quant.Params{Spec: spec, Scale: folded.Scale, Zero: make([]int32, c)}
	m.Params[n.Param(Weight)] = weight
	m.Params[n.Param(Bias)] = &Param{Shape: Shape{c}, Int32: folded.Bias}
	n.Attr.Norm, n.Attr.Bias = false, true
	n.Requant = NewRequant(n, m.Quant[n.In[0]].Scale[0], folded.Scale, m.Quant[n.Name])
	if err := n.Requant.Validate(c); err != nil {
		return n.errorf("%w", err)
	}
	return nil
}

// Wide is the weight codes as 16 bits, whatever they are stored in.
func (p *Param) Wide() []int16 {
	if p.Codes16 != nil {
		return p.Codes16
	}
	out := make([]int16, len(p.Codes))
	for i, q := range p.Codes {
		out[i] = int16(q)
	}
	return out
}

// activationForm reports an activation grid that no layer computes on: up to 8 bits it is unsigned, and 16 bits are signed
// with zero point 0.
func activationForm(s quant.Spec) error {
	wide := s.Format == quant.Int16
	switch {
	case s.Per != quant.PerTensor || s.Signed != wide:
		return fmt.Errorf("activation %s: activations must be per tensor, and unsigned up to 8 bits or signed with 16", s)
	case wide && s.Scheme == quant.Affine:
		return fmt.Errorf("activation %s: 16-bit activations have zero point 0: use scheme symmetric", s)
	}
	return nil
}
