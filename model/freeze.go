package model

import (
	"fmt"
	"slices"

	"github.com/narrow-ml/narrow/quant"
)

// Freeze turns a Float or Quantized model into what is deployed. Integer layers get codes, int32 biases with batch norm
// folded in, and their Requant; 16-bit layers get 16-bit weights; batch norm of float layers becomes y = mul*v + add.
// Nothing in the result refers to the masters of m.
func Freeze(m *Model) (*Model, error) {
	if m.Stage == Frozen {
		return nil, fmt.Errorf("model %q is frozen already", m.Name)
	}
	if err := m.shaped(); err != nil {
		return nil, err
	}
	if m.Stage == Quantized {
		if err := Check(m); err != nil {
			return nil, err
		}
	}
	out := m.with(slices.Clone(m.Nodes))
	out.Stage, out.Params = Frozen, map[string]*Param{}
	for i := range out.Nodes {
		n := &out.Nodes[i]
		if err := out.checkReady(n); err != nil {
			return nil, err
		}
		if n.Op == BatchNorm {
			return nil, n.errorf("a frozen model has batch norm only inside conv and dense: run Fuse first")
		}
		if !n.Op.HasWeight() {
			if err := out.freezePlain(n); err != nil {
				return nil, err
			}
			continue
		}
		n.Attr.Whole, n.Attr.Dropout = false, 0 // what is left of them is in the numbers, or nothing
		w := m.Params[n.Param(Weight)]
		if w == nil || len(w.Data) == 0 || len(w.Data) != w.Shape.Size() {
			return nil, n.errorf("parameter %q has no float32 master: run Shapes first", n.Param(Weight))
		}
		affine, err := m.Affine(&m.Nodes[i])
		if err != nil {
			return nil, err
		}
		q := out.Quant[n.Param(Weight)]
		if q != nil && q.Spec.Format.IsInteger() && !m.WeightOnly(n) {
			err = out.freezeInteger(n, w, affine)
		} else {
			err = out.freezeFloat(n, m.Params, q, affine)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkReady reports an input or output quantizer that has no scale yet.
func (m *Model) checkReady(n *Node) error {
	for _, name := range append([]string{n.Name}, n.In...) {
		q := m.Quant[name]
		if q == nil {
			continue
		}
		if !q.Ready() {
			return n.errorf("tensor %q has no range yet: calibrate or train first", name)
		}
		if err := q.Validate(1); err != nil {
			return n.errorf("tensor %q: %w", name, err)
		}
	}
	return nil
}

func (m *Model) freezeInteger(n *Node, w *Param, affine Affine) error {
	if m.Wide(n) {
		return m.freezeWide(n, w, affine)
	}
	in, q, c := m.Quant[n.In[0]], m.Quant[n.Param(Weight)], n.Attr.Units
	codes, scale := make([]int8, len(w.Data)), make([]float32, c)
	if _, err := CodeWeights(codes, scale, w.Data, q, in, &affine); err != nil {
		return n.errorf("weight: %w", err)
	}
	folded, bad := affine.Fold(scale, in.Scale[0])
	if bad >= 0 {
		return n.errorf("bias of channel %d does not fit 32 bits", bad)
	}
	for i := range codes {
		codes[i] *= folded.Sign[i%c]
	}
	return m.freezeFolded(n, &Param{Shape: slices.Clone(w.Shape), Codes: codes}, folded)
}

// freezePlain gives an integer operation without weights its requantization.
func (m *Model) freezePlain(n *Node) error {
	out := m.Quant[n.Name]
	if !n.Op.HasQuantizer() || out == nil || !out.Spec.Format.IsInteger() {
		return nil
	}
	n.Requant = m.plainRequant(n)
	if err := n.Requant.Validate(n.Op.Inputs()); err != nil {
		return n.errorf("%w", err)
	}
	return n.checkPlainRequant()
}

func (m *Model) freezeFloat(n *Node, masters map[string]*Param, q *quant.Params, affine Affine) error {
	w := masters[n.Param(Weight)]
	frozen := &Param{Shape: slices.Clone(w.Shape)}
	if q != nil && q.Spec.Format.IsInteger() {
		codes, err := m.freezeCodes(n, w, q)
		if err != nil {
			return err
		}
		frozen.Codes = codes.Codes
	} else if q != nil && q.Spec.Format.Rounds16() {
		rounded := make([]float32, len(w.Data))
		if err := quant.Round16(rounded, w.Data, q.Spec.Format); err != nil {
			return n.errorf("weight: %w", err)
		}
		frozen.Half = make([]uint16, len(rounded))
		for i, v := range rounded {
			frozen.Half[i] = quant.Encode16(v, q.Spec.Format)
		}
	} else {
		frozen.Data = slices.Clone(w.Data)
	}
	m.Params[n.Param(Weight)] = frozen
	if n.Attr.Norm {
		mul, add := affine.Float32()
		m.Params[n.Param(NormMul)] = &Param{Shape: Shape{n.Attr.Units}, Data: mul}
		m.Params[n.Param(NormAdd)] = &Param{Shape: Shape{n.Attr.Units}, Data: add}
		n.Attr.Bias = false
		return nil
	}
	if n.Attr.Bias {
		m.Params[n.Param(Bias)] = masters[n.Param(Bias)].Clone()
	}
	return nil
}

// Float32 is the affine map in the float32 arithmetic of float layers: y = float32(mul*v) + add. Without batch norm mul
// is nil.
func (a Affine) Float32() (mul, add []float32) {
	add = make([]float32, len(a.B))
	for c, v := range a.B {
		add[c] = float32(v)
	}
	if a.F == nil {
		return nil, add
	}
	mul = make([]float32, len(a.F))
	for c, v := range a.F {
		mul[c] = float32(v)
	}
	return mul, add
}
