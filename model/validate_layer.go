package model

import (
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/quant"
)

func (v *validator) weighted(n *Node, in Shape) error {
	name := n.Param(Weight)
	v.quant[name] = true
	w := v.m.Params[name]
	if w == nil {
		return n.errorf("parameter %q is missing", name)
	}
	v.params[name] = true
	if want := n.paramShapes(in)[Weight]; !slices.Equal(w.Shape, want) {
		return n.errorf("parameter %q has shape %v, the layer needs %v", name, w.Shape, want)
	}
	if !boundedSize(w.Shape) {
		return n.errorf("parameter %q has shape %v; %d elements are allowed", name, w.Shape, maxElements)
	}
	if err := w.check(); err != nil {
		return n.errorf("parameter %q: %w", name, err)
	}
	q := v.m.Quant[name]
	if q != nil {
		if err := q.Spec.Validate(); err != nil {
			return n.errorf("weight quantizer: %w", err)
		}
	}
	if q != nil && q.Spec.Format.IsInteger() && !v.m.WeightOnly(n) {
		return v.integer(n, w, q)
	}
	return v.float(n, w, q)
}

// float checks the parameters of a layer that computes in float32.
func (v *validator) float(n *Node, w *Param, q *quant.Params) error {
	rounds, codes := q != nil && q.Spec.Format.Rounds16(), q != nil && q.Spec.Format.IsInteger()
	if (w.Half != nil) != rounds || (w.Codes != nil) != codes || (w.Data != nil) != !(rounds || codes) {
		return n.errorf("weight: a float layer holds codes if its weight has an integer format, 16-bit values if it has 16 bits, and float32 values otherwise")
	}
	if codes {
		if err := v.weightCodes(n, w, q); err != nil {
			return err
		}
	}
	if !codes && q != nil && len(q.Scale)+len(q.Zero) > 0 {
		return n.errorf("weight quantizer: format %s has no scale", q.Spec.Format)
	}
	for i, bits := range w.Half {
		if r := quant.Decode16(bits, q.Spec.Format); !finite(r) {
			return n.errorf("weight[%d] is %v", i, r)
		}
	}
	for _, name := range []string{n.In[0], n.Name} {
		if a := v.m.Quant[name]; a != nil && a.Spec.Format.IsInteger() {
			return n.errorf("a layer that computes in float32 cannot have %q on integer codes", name)
		}
	}
	if n.Requant != nil {
		return n.errorf("a float layer has no requantization")
	}
	if n.Attr.Norm && n.Attr.Bias {
		return n.errorf("with batch norm the bias is part of %q", n.Param(NormAdd))
	}
	var roles []string
	if n.Attr.Bias {
		roles = []string{Bias}
	}
	if n.Attr.Norm {
		roles = []string{NormMul, NormAdd}
	}
	for _, role := range roles {
		if err := v.row(n, role); err != nil {
			return err
		}
	}
	return nil
}

// row checks a float32 parameter with one value per output channel.
func (v *validator) row(n *Node, role string) error {
	name := n.Param(role)
	p := v.m.Params[name]
	if p == nil || len(p.Data) == 0 || !slices.Equal(p.Shape, Shape{n.Attr.Units}) {
		return n.errorf("parameter %q must be %d float32 values", name, n.Attr.Units)
	}
	if err := p.check(); err != nil {
		return n.errorf("parameter %q: %w", name, err)
	}
	v.params[name] = true
	return nil
}

// integer checks a layer that computes on codes.
func (v *validator) integer(n *Node, w *Param, q *quant.Params) error {
	c := n.Attr.Units
	in, out := v.m.Quant[n.In[0]], v.m.Quant[n.Name]
	if in == nil || !in.Spec.Format.IsInteger() || (out != nil && !out.Spec.Format.IsInteger()) {
		return n.errorf("a layer with integer weights needs its input %q on integer codes and its output on codes or float32", n.In[0])
	}
	if (out == nil) != v.m.IsOutput(n.Name) {
		return n.errorf("the logits, and only they, are float32")
	}
	if !q.Spec.Signed || q.Spec.Per != quant.PerChannel || (w.Codes16 != nil) != (q.Spec.Format == quant.Int16) || (w.Codes == nil) != (w.Codes16 != nil) {
		return n.errorf("weight %s: frozen weights are signed codes of their format with a scale per channel", q.Spec)
	}
	if err := q.Validate(c); err != nil {
		return n.errorf("weight: %w", err)
	}
	if !n.Attr.Bias || n.Attr.Norm || slices.Max(q.Zero) != 0 || slices.Min(q.Zero) != 0 {
		return n.errorf("an integer layer has a bias, batch norm folded into it, and weight zero points of 0")
	}
	b := v.m.Params[n.Param(Bias)]
	if b == nil || len(b.Int32) == 0 || !slices.Equal(b.Shape, Shape{c}) {
		return n.errorf("parameter %q must be %d int32 codes", n.Param(Bias), c)
	}
	if err := b.check(); err != nil {
		return n.errorf("parameter %q: %w", n.Param(Bias), err)
	}
	v.params[n.Param(Bias)] = true
	top := int64(math.MaxInt32)
	if v.m.Wide(n) {
		top = math.MaxInt64
	}
	if err := checkAccumulators(w.Wide(), b.Int32, q, in, top); err != nil {
		return n.errorf("%w", err)
	}
	if out == nil && n.Attr.Cap != 0 {
		return n.errorf("float32 logits have no upper limit, and cap is %v", n.Attr.Cap)
	}
	return n.checkRequant(v.m, c)
}

// checkAccumulators checks that the codes are on their grid and that no input can drive an accumulator beyond top.
func checkAccumulators(codes []int16, bias []int32, q, in *quant.Params, top int64) error {
	c := len(bias)
	lo, hi := q.Spec.Grid()
	sums := make([]int64, c)
	for i, code := range codes {
		w := int32(code)
		if w < lo || w > hi || q.Spec.Even && w%2 == 0 {
			return fmt.Errorf("weight code[%d] = %d is outside the grid [%d, %d] of %s", i, w, lo, hi, q.Spec.Format)
		}
		sums[i%c] += int64(max(w, -w))
	}
	xlo, xhi := in.Spec.Grid()
	reach := int64(max(in.Zero[0]-xlo, xhi-in.Zero[0]))
	for ch, b := range bias {
		if bound := max(int64(b), -int64(b)) + sums[ch]*reach; bound > top {
			return fmt.Errorf("the accumulator of channel %d can reach %d, beyond 32 bits", ch, bound)
		}
	}
	return nil
}

// checkRequant checks that the multipliers and limits are the ones that follow from the scales.
func (n *Node) checkRequant(m *Model, multipliers int) error {
	if n.Requant == nil {
		return n.errorf("an integer layer needs its requantization")
	}
	if err := n.Requant.Validate(multipliers); err != nil {
		return n.errorf("%w", err)
	}
	got, want := n.Requant, m.WantRequant(n)
	if got.Float != want.Float || got.Sign != want.Sign || got.Zero != want.Zero || got.Lo != want.Lo || got.Hi != want.Hi {
		return n.errorf("requantization to [%d, %d] with zero point %d (float %t); its quantizers give [%d, %d], %d (float %t)", got.Lo, got.Hi, got.Zero, got.Float, want.Lo, want.Hi, want.Zero, want.Float)
	}
	for c := range want.M {
		if got.M[c] != want.M[c] {
			return n.errorf("multiplier[%d] is %v; the scales give %v", c, got.M[c], want.M[c])
		}
	}
	return nil
}

// check reports a payload that is not exactly one, has another size than the shape, or is not finite.
func (p *Param) check() error {
	kinds, size := 0, 0
	for _, n := range []int{len(p.Data), len(p.Half), len(p.Codes), len(p.Codes16), len(p.Int32)} {
		if n > 0 {
			kinds, size = kinds+1, n
		}
	}
	if kinds != 1 || size != p.Shape.Size() {
		return fmt.Errorf("shape %v with %d payloads, the last of %d values", p.Shape, kinds, size)
	}
	for i, x := range p.Data {
		if !finite(x) {
			return fmt.Errorf("value[%d] is %v", i, x)
		}
	}
	return nil
}
