package model

import (
	"fmt"
	"path"
	"strings"

	"github.com/narrow-ml/narrow/quant"
)

// QuantConfig says which Spec every tensor gets.
type QuantConfig struct {
	Precision   quant.Precision
	Weight, Act quant.Spec // the defaults
	InputAct    bool       // the model input has the grid of activations; else its bytes are its codes
	Rules       []Rule     // first match wins
	Target      quant.Target
}

// Rule overrides the defaults for the layers whose name matches a glob pattern (path.Match). A nil Spec keeps the
// default. Act is the spec of the output of a layer: of conv, dense, add and global average pooling. Weight means
// nothing to the last two.
type Rule struct {
	Layer       string
	Weight, Act *quant.Spec
	Origin      string // file:line
}

// DefaultQuant is the configuration of a precision without rules.
func DefaultQuant(p quant.Precision) QuantConfig {
	return QuantConfig{Precision: p, Weight: quant.WeightSpec(p.Weight), Act: quant.ActSpec(p.Act), Target: quant.ONNX}
}

// Place assigns a Spec to every tensor that will be quantized: one quantizer for each model input, each weight, and each
// group of conv or dense with its batch norm and ReLU, of an addition with its ReLU, and each global average. Tensors of
// operations that share their input's scale get theirs in [Share]; the logits stay float32. A rule that matches no layer,
// or whose settings meet nothing (a weight where there is none, an act that meets only logits), is an error naming its
// line. m must be fused and not frozen.
func Place(m *Model, q QuantConfig) (*Model, error) {
	if m.Stage == Frozen {
		return nil, fmt.Errorf("model %q is frozen; its masters are gone, so start from the float model", m.Name)
	}
	if err := m.shaped(); err != nil {
		return nil, err
	}
	out := m.with(append([]Node(nil), m.Nodes...))
	out.Stage, out.Precision, out.Target = Quantized, q.Precision, q.Target
	out.Quant = map[string]*quant.Params{}
	integer := q.Act.Format.IsInteger()
	for _, in := range out.Inputs {
		p := &quant.Params{Spec: q.Act}
		if integer {
			p = &quant.Params{Spec: inputSpec(), Scale: []float32{in.Scale}, Zero: []int32{in.Zero}}
		}
		if integer && q.InputAct {
			if q.Act.Format.Bits() > 8 {
				return nil, fmt.Errorf("input %q: its codes are bytes, and the grid of activations is %s; leave the input its bytes", in.Name, q.Act)
			}
			if q.Act.Range != quant.Constant {
				return nil, fmt.Errorf("input %q: the grid of activations %s follows what layers compute, and nothing is computed before the input; use range constant with max, or leave the input its bytes", in.Name, q.Act)
			}
			s, z := q.Act.ConstantScale()
			p = &quant.Params{Spec: q.Act, Scale: []float32{s}, Zero: []int32{z}}
		}
		out.Quant[in.Name] = p
	}
	var used, usedWeight, usedAct = make([]bool, len(q.Rules)), make([]bool, len(q.Rules)), make([]bool, len(q.Rules))
	for i := range out.Nodes {
		n := &out.Nodes[i]
		if !n.Op.HasQuantizer() {
			continue
		}
		w, a := q.Weight, q.Act
		for r, rule := range q.Rules {
			ok, err := path.Match(rule.Layer, n.Layer)
			if err != nil {
				return nil, ruleError(rule, fmt.Errorf("layer pattern: %w", err))
			}
			if !ok {
				continue
			}
			used[r] = true
			usedWeight[r] = usedWeight[r] || n.Op.HasWeight()
			usedAct[r] = usedAct[r] || !out.IsOutput(n.Name)
			if rule.Weight != nil {
				w = *rule.Weight
			}
			if rule.Act != nil {
				a = *rule.Act
			}
			break
		}
		if a.Format.IsInteger() != integer || integer && !w.Format.IsInteger() || !integer && w.Format.IsInteger() && (a.Format != quant.FP16 || q.Act.Format != quant.FP16) {
			return nil, n.errorf("formats %s and %s mix integers with floats under precision %s; keep every layer on integers (a wider one, such as int8, for a sensitive layer) or use fp16 for the whole model", w.Format, a.Format, q.Precision)
		}
		if n.Op.HasWeight() {
			out.Quant[n.Param(Weight)] = quant.NewParams(w, n.Attr.Units)
		}
		if !out.IsOutput(n.Name) {
			out.Quant[n.Name] = &quant.Params{Spec: a}
		}
	}
	for r, rule := range q.Rules {
		if !used[r] {
			return nil, ruleError(rule, fmt.Errorf("matches no layer that is quantized by itself (layers: %s), or an earlier rule matches first", strings.Join(out.quantLayers(), ", ")))
		}
		if rule.Weight != nil && !usedWeight[r] {
			return nil, ruleError(rule, fmt.Errorf("its weight applies to nothing: none of these layers has weights"))
		}
		if rule.Act != nil && !usedAct[r] {
			return nil, ruleError(rule, fmt.Errorf("its act applies to nothing: the output of the last layer is float32 logits"))
		}
	}
	return out, nil
}

// Placed is a fused float model with all its quantizers, ready for calibration: [Place], [Share] and [Check].
func Placed(m *Model, q QuantConfig) (*Model, error) {
	out, err := Place(m, q)
	if err != nil {
		return nil, err
	}
	if out, err = Share(out); err != nil {
		return nil, err
	}
	return out, Check(out)
}

// inputSpec is how model inputs are quantized in every integer precision: their bytes are their codes.
func inputSpec() quant.Spec {
	s := quant.ActSpec(quant.Int8)
	s.Range = quant.MinMax
	return s
}

func ruleError(r Rule, err error) error {
	where := ""
	if r.Origin != "" {
		where = r.Origin + ": "
	}
	return fmt.Errorf("%srule for layer %q: %w", where, r.Layer, err)
}

// quantLayers are the layers that a rule can say something about.
func (m *Model) quantLayers() []string {
	var names []string
	for i := range m.Nodes {
		if m.Nodes[i].Op.HasQuantizer() {
			names = append(names, m.Nodes[i].Layer)
		}
	}
	return names
}

// Share gives the output of every scale-sharing operation the very quantizer of its input: one *quant.Params, two names.
func Share(m *Model) (*Model, error) {
	if err := m.shaped(); err != nil {
		return nil, err
	}
	out := m.with(append([]Node(nil), m.Nodes...))
	for i := range out.Nodes {
		n := &out.Nodes[i]
		if !n.Op.SharesScale() {
			continue
		}
		q := out.Quant[n.In[0]]
		if q == nil {
			return nil, n.errorf("its input %q has no quantizer", n.In[0])
		}
		if out.IsOutput(n.Name) {
			return nil, n.errorf("a quantized model must end in a dense or conv layer, whose float32 logits are the output")
		}
		out.Quant[n.Name] = q
	}
	return out, nil
}

// Check reports the first thing a quantized model cannot mean: a Spec with contradictions, weights that are not signed
// with zero point 0, activations that are not unsigned per tensor, codes wider than a byte, an operation without a
// quantized meaning.
func Check(m *Model) error {
	if m.Stage != Quantized {
		return fmt.Errorf("model %q is %s; only a quantized model can be checked", m.Name, m.Stage)
	}
	if m.Target != quant.ONNX {
		return fmt.Errorf("model %q: target %s is not supported", m.Name, m.Target)
	}
	if err := m.shaped(); err != nil {
		return err
	}
	for _, name := range m.QuantNames() {
		if err := m.Quant[name].Spec.Validate(); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		var err error
		switch {
		case n.Op.HasWeight():
			err = n.checkSpecs(m)
		case n.Op.HasQuantizer():
			err = n.checkPlain(m)
		case !n.Op.SharesScale():
			err = n.errorf("has no quantized arithmetic")
		case n.Op == ReLU && m.Quant[n.Name] != nil && m.Quant[n.Name].Spec.IsSign():
			err = n.errorf("a ReLU of signs has the code of zero, which binary activations do not; remove it, or use a wider activation, for example int2")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) checkSpecs(m *Model) error {
	w := m.Quant[n.Param(Weight)]
	if w == nil {
		return n.errorf("its weight has no quantizer")
	}
	in := m.Quant[n.In[0]]
	if in == nil {
		return n.errorf("its input %q has no quantizer", n.In[0])
	}
	if !w.Spec.Format.IsInteger() {
		return nil
	}
	integer := !m.WeightOnly(n)
	if !w.Spec.Signed || w.Spec.Scheme == quant.Affine || w.Spec.Format.Bits() > 8 && !integer {
		return n.errorf("weight %s: weights must be signed, without zero point, and of at most 8 bits where activations are floats", w.Spec)
	}
	if w.Spec.Per == quant.PerGroup && integer {
		return n.errorf("weight %s: %w", w.Spec, errGroupOfCodes)
	}
	if integer && m.Wide(n) && w.Spec.Rounding != quant.HalfEven {
		return n.errorf("weight %s: layers with 16-bit codes round halves to even; use rounding half-even here", w.Spec)
	}
	if w.Spec.Range == quant.DoReFa && w.Spec.Per != quant.PerTensor {
		return n.errorf("weight %s: %w", w.Spec, errDoReFaPer)
	}
	if w.Spec.Range == quant.DoReFa && integer && m.Wide(n) {
		return n.errorf("weight %s: layers with 16-bit codes do not train through tanh; use range minmax or lsq here", w.Spec)
	}
	if w.Spec.Scheme == quant.PowerOfTwo && n.Attr.Norm && integer {
		return n.errorf("weight %s: folding batch norm multiplies each scale by gamma/sqrt(var+eps), which leaves no power of two; use scheme symmetric here, or no batch norm", w.Spec)
	}
	if !w.Spec.Range.ForWeights() {
		return n.errorf("weight range %q is for activations; use minmax, lsq or mse", w.Spec.Range)
	}
	if m.Quant[n.Name] == nil && n.Attr.Cap > 0 && integer {
		return n.errorf("the logits are float32 and have no upper limit: remove relu6 from the last layer")
	}
	return n.checkOutput(m)
}

// checkPlain checks an operation without weights that has a quantizer of its own.
func (n *Node) checkPlain(m *Model) error {
	a := m.Quant[n.Name]
	if a == nil || m.IsOutput(n.Name) {
		return n.errorf("a quantized model must end in a dense or conv layer, whose float32 logits are the output")
	}
	for _, name := range n.In {
		in := m.Quant[name]
		if in == nil {
			return n.errorf("its input %q has no quantizer", name)
		}
		if in.Spec.Format.IsInteger() != a.Spec.Format.IsInteger() {
			return n.errorf("its input %q is %s and its output %s; both must be integers, or neither", name, in.Spec.Format, a.Spec.Format)
		}
	}
	return n.checkOutput(m)
}

// checkOutput checks the quantizer of the node's output.
func (n *Node) checkOutput(m *Model) error {
	a := m.Quant[n.Name]
	if a == nil || !a.Spec.Format.IsInteger() {
		return nil
	}
	if a.Spec.IsSign() && !n.Op.HasWeight() {
		return n.errorf("activation %s: only conv and dense layers have binary outputs; give this layer another act by a rule, for example int8", a.Spec)
	}
	if a.Spec.IsSign() && n.Attr.Relu {
		return n.errorf("activation %s: the sign of a ReLU is always +1; remove the ReLU, or use a wider activation, for example int2", a.Spec)
	}
	if a.Spec.IsSign() && m.Wide(n) {
		return n.errorf("activation %s: a layer with 16-bit integers has no binary output; use up to 8 bits on its input and weight, or a wider activation", a.Spec)
	}
	if err := activationForm(a.Spec); err != nil {
		return n.errorf("%w", err)
	}
	if a.Spec.Rounding != quant.HalfEven {
		return n.errorf("activation %s: activations become codes by ONNX's QuantizeLinear, which rounds halves to even; only weights have another rounding", a.Spec)
	}
	if !a.Spec.Range.ForActs() {
		return n.errorf("activation range %q is for weights; use envelope or lsq", a.Spec.Range)
	}
	if a.Spec.Range == quant.PACT && !m.nonNegative(n) {
		return n.errorf("activation %s: pact clips at 0, and this output has negative values, which it would cut off; use lsq+ here, or put a relu behind the layer", a.Spec)
	}
	return nil
}

// nonNegative reports a node whose output can have no negative value: a ReLU, or what keeps the sign of one.
func (m *Model) nonNegative(n *Node) bool {
	if n.Attr.Relu || n.Op == ReLU {
		return true
	}
	if n.Op.HasWeight() || n.Op == BatchNorm {
		return false
	}
	for _, name := range n.In {
		if from := m.Node(name); from == nil || !m.nonNegative(from) {
			return false
		}
	}
	return true
}
