package model

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/narrow-ml/narrow/quant"
)

// Bounds of a deployable model. They keep sizes within an int on every platform, whatever a file says.
const (
	maxRank     = 4
	maxExtent   = 1 << 24 // of an axis, a kernel, a stride, a padding
	maxElements = 1 << 28 // of one tensor of one example
	maxName     = 1 << 10 // bytes
)

// boundedSize reports whether the product of positive extents is at most maxElements, without overflow.
func boundedSize(s Shape) bool {
	n := 1
	for _, d := range s {
		if d > maxElements/n {
			return false
		}
		n *= d
	}
	return true
}

// Validate checks everything that a Frozen model promises to those who run or export it: shapes that follow from the
// operations, exactly the parameters that they need, codes on their grids, accumulators that cannot leave 32 bits,
// multipliers that are those of the scales. [Encode], [Decode] and the engine call it; what [Freeze] returns passes.
func Validate(m *Model) error {
	if m.Stage != Frozen {
		return fmt.Errorf("model %q is %s; freeze it first", m.Name, m.Stage)
	}
	v := validator{m: m, shapes: map[string]Shape{}, params: map[string]bool{}, quant: map[string]bool{}, layers: map[string]bool{}}
	err := v.head()
	for i := 0; err == nil && i < len(m.Nodes); i++ {
		err = v.node(&m.Nodes[i])
	}
	if err == nil {
		err = v.tail()
	}
	if err != nil {
		return fmt.Errorf("model %q: %w", m.Name, err)
	}
	return nil
}

// validator walks the nodes once and remembers what it has met.
type validator struct {
	m      *Model
	shapes map[string]Shape // of the tensors made so far
	params map[string]bool  // needed so far
	quant  map[string]bool  // tensor names that may have a quantizer
	layers map[string]bool  // layers with weights
}

func (v *validator) head() error {
	m := v.m
	if err := checkName("model", m.Name); err != nil {
		return err
	}
	if !m.Precision.Weight.Valid() || !m.Precision.Act.Valid() {
		return errors.New("its base precision is not set")
	}
	if m.Target != quant.ONNX {
		return fmt.Errorf("target %s is not supported", m.Target)
	}
	if len(m.Inputs) != 1 || len(m.Nodes) == 0 {
		return fmt.Errorf("has %d inputs and %d layers; it needs 1 input and at least 1 layer", len(m.Inputs), len(m.Nodes))
	}
	in := &m.Inputs[0]
	if err := checkName("input", in.Name); err != nil {
		return err
	}
	for _, label := range in.Labels {
		if err := checkName("label", label); err != nil {
			return err
		}
	}
	if err := checkShape(in.Shape); err != nil {
		return fmt.Errorf("input %q: %w", in.Name, err)
	}
	if !positive(in.Scale) || in.Zero < 0 || in.Zero > 255 {
		return fmt.Errorf("input %q: scale %v must be finite and positive and zero point %d a byte", in.Name, in.Scale, in.Zero)
	}
	v.shapes[in.Name], v.quant[in.Name] = in.Shape, true
	q := m.Quant[in.Name]
	if q == nil {
		return nil
	}
	if err := checkActivation(q); err != nil {
		return fmt.Errorf("input %q: %w", in.Name, err)
	}
	if !q.Spec.Format.IsInteger() {
		return nil
	}
	if q.Spec.Range != quant.Constant && !in.BytesAreCodes(q) {
		return fmt.Errorf("input %q: its bytes are its codes, so it must be int8 with scale %v and zero point %d, not %s with %v and %d", in.Name, in.Scale, in.Zero, q.Spec.Format, q.Scale[0], q.Zero[0])
	}
	return nil
}

func (v *validator) node(n *Node) error {
	if err := checkName("tensor", n.Name); err != nil {
		return err
	}
	if n.Layer != "" || n.Op.HasWeight() {
		if err := checkName("layer", n.Layer); err != nil {
			return n.errorf("%w", err)
		}
	}
	if v.shapes[n.Name] != nil {
		return n.errorf("tensor name %q is used twice", n.Name)
	}
	if err := n.checkAttr(); err != nil {
		return err
	}
	in, err := n.inShape(v.shapes)
	if err != nil {
		return err
	}
	shape, err := n.outShape(in)
	if err != nil {
		return err
	}
	if !slices.Equal(shape, n.Shape) || !boundedSize(shape) {
		return n.errorf("shape %v; its input and attributes give %v, and %d elements are allowed", n.Shape, shape, maxElements)
	}
	v.shapes[n.Name], v.quant[n.Name] = n.Shape, true
	if q := v.m.Quant[n.Name]; q != nil {
		if err := checkActivation(q); err != nil {
			return n.errorf("tensor %q: %w", n.Name, err)
		}
	}
	if !n.Op.HasWeight() {
		if n.Op.HasQuantizer() {
			return v.plain(n)
		}
		return v.sharing(n)
	}
	if v.layers[n.Layer] {
		return n.errorf("another conv or dense has the same layer name, and so the same parameters")
	}
	v.layers[n.Layer] = true
	return v.weighted(n, in)
}

// sharing checks a node whose output has its input's scale.
func (v *validator) sharing(n *Node) error {
	if !n.Op.SharesScale() {
		return n.errorf("has no meaning in a frozen model; batch norm must be fused into the layer before it")
	}
	if n.Requant != nil {
		return n.errorf("has a requantization, and its output has the quantizer of its input")
	}
	in, out := v.m.Quant[n.In[0]], v.m.Quant[n.Name]
	if !sameQuant(in, out) {
		return n.errorf("its output must have the quantizer of its input %q", n.In[0])
	}
	if out != nil && out.Spec.Format.IsInteger() && v.m.IsOutput(n.Name) {
		return n.errorf("an integer model must end in a dense or conv layer, whose float32 logits are the output")
	}
	return nil
}

// plain checks an operation without weights that has a quantizer of its own.
func (v *validator) plain(n *Node) error {
	out := v.m.Quant[n.Name]
	integer := out != nil && out.Spec.Format.IsInteger()
	for _, name := range n.In {
		if in := v.m.Quant[name]; (in != nil && in.Spec.Format.IsInteger()) != integer {
			return n.errorf("its input %q and its output must both be on integer codes, or neither", name)
		}
	}
	if !integer {
		if n.Requant != nil {
			return n.errorf("a float operation has no requantization")
		}
		return nil
	}
	if v.m.IsOutput(n.Name) {
		return n.errorf("an integer model must end in a dense or conv layer, whose float32 logits are the output")
	}
	if err := n.checkRequant(v.m, n.Op.Inputs()); err != nil {
		return err
	}
	return n.checkPlainRequant()
}

func (v *validator) tail() error {
	m := v.m
	if last := m.Nodes[len(m.Nodes)-1].Name; len(m.Outputs) != 1 || m.Outputs[0] != last {
		return fmt.Errorf("outputs are %q; the one output must be the last layer's tensor %q", m.Outputs, last)
	}
	for _, name := range m.ParamNames() {
		if !v.params[name] {
			return fmt.Errorf("parameter %q belongs to no layer", name)
		}
	}
	for _, name := range m.QuantNames() {
		if !v.quant[name] {
			return fmt.Errorf("quantizer of %q, which is no tensor or weight of the model", name)
		}
	}
	return nil
}

// checkAttr bounds the attributes before anything is computed from them.
func (n *Node) checkAttr() error {
	a := n.Attr
	for _, v := range []int{a.Kernel[0], a.Kernel[1], a.Stride[0], a.Stride[1], a.Pad[0], a.Pad[1], a.Pad[2], a.Pad[3], a.Groups, a.Units} {
		if v < 0 || v > maxExtent {
			return n.errorf("attribute %d is outside [0, %d]", v, maxExtent)
		}
	}
	if !finite(a.Eps) || !finite(a.Momentum) {
		return n.errorf("eps %v and momentum %v must be finite", a.Eps, a.Momentum)
	}
	if !n.Op.HasWeight() && (a.Bias || a.Norm || (a.Relu && n.Op != Add)) {
		return n.errorf("bias and norm are attributes of conv and dense, relu of these and add")
	}
	if a.Cap != 0 && !a.Relu && n.Op != ReLU {
		return n.errorf("cap %v is the limit of a ReLU, and there is none", a.Cap)
	}
	return nil
}

func checkActivation(q *quant.Params) error {
	if err := q.Validate(1); err != nil {
		return err
	}
	if !q.Spec.Format.IsInteger() {
		if len(q.Scale)+len(q.Zero) > 0 {
			return fmt.Errorf("format %s has no scale", q.Spec.Format)
		}
		return nil
	}
	return activationForm(q.Spec)
}

func sameQuant(a, b *quant.Params) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Spec == b.Spec && slices.Equal(a.Scale, b.Scale) && slices.Equal(a.Zero, b.Zero)
}

func checkShape(s Shape) error {
	if len(s) == 0 || len(s) > maxRank || slices.Min(s) < 1 || slices.Max(s) > maxExtent || !boundedSize(s) {
		return fmt.Errorf("shape %v must have 1 to %d positive extents and at most %d elements", []int(s), maxRank, maxElements)
	}
	return nil
}

// checkName keeps names printable, so that files and messages show them as they are.
func checkName(kind, name string) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) {
		return fmt.Errorf("%s name %q must be UTF-8 of 1 to %d bytes", kind, name, maxName)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%s name %q has a character that cannot be printed", kind, name)
		}
	}
	return nil
}

func finite(v float32) bool { return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) }

func positive(v float32) bool { return v > 0 && finite(v) }
