package configs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// BuildModel is the float model with shapes, parameters (zeros; gamma and var 1) and fused layers. What does not fit
// (a kernel larger than its input, a dense layer without flatten) is an [*Errors] at the layer's line. If the input has
// labels, the model must end in one logit for each.
//
// A layer c1 of conv, norm and act becomes the nodes c1/conv, c1/norm and c1, which [model.Fuse] joins; its parameters
// are c1.weight, c1.bias, c1.gamma and so on.
func (c *Config) BuildModel(in model.Input) (*model.Model, error) {
	if c.Dataset.Center {
		if in.Zero != 0 {
			return nil, fmt.Errorf("dataset.center: byte %d of data set %q stands for 0 already", in.Zero, c.Dataset.Name)
		}
		in.Zero = int32((1/in.Scale + 1) / 2) // of values from 0 to 1: the middle byte, 128 of 255
		in.Scale *= 2
	}
	m := model.New(c.Name, in)
	for i := range c.Model {
		c.Model[i].appendTo(m)
	}
	if err := c.checkSizes(in.Shape); err != nil {
		return nil, err
	}
	shaped, err := model.Shapes(m)
	if err != nil {
		return nil, c.atLayer(err)
	}
	last := &shaped.Nodes[len(shaped.Nodes)-1]
	if classes := len(in.Labels); classes > 0 && !slices.Equal(last.Shape, model.Shape{classes}) {
		i := len(c.Model) - 1
		p := c.problemAt(i)
		p.Message = fmt.Sprintf("the last layer gives shape %v, data set %q has %d classes", last.Shape, c.Dataset.Name, classes)
		p.Hint = fmt.Sprintf("end with - dense: {units: %d}", classes)
		return nil, &Errors{Problems: []Problem{p}}
	}
	fused, err := model.Fuse(shaped)
	if err != nil {
		return nil, c.atLayer(err)
	}
	return fused, nil
}

// appendTo is the one place where kinds of layers become nodes.
func (l *Layer) appendTo(m *model.Model) {
	switch {
	case l.Conv != nil:
		a := model.Attr{Kernel: l.Conv.Kernel, Stride: l.Conv.Stride, Pad: l.Conv.Pad, Groups: l.Conv.groups(), Units: l.Conv.Filters, Bias: l.Conv.Bias, Dropout: float32(l.Conv.Dropout)}
		l.appendGroup(m, model.Conv, a, l.Conv.Norm, l.Conv.Eps, l.Conv.Momentum, l.Conv.Act)
	case l.Dense != nil:
		a := model.Attr{Units: l.Dense.Units, Bias: l.Dense.Bias, Dropout: float32(l.Dense.Dropout)}
		l.appendGroup(m, model.Dense, a, l.Dense.Norm, l.Dense.Eps, l.Dense.Momentum, l.Dense.Act)
	case l.MaxPool != nil:
		l.append(m, l.node(model.MaxPool, l.Name(), model.Attr{Kernel: l.MaxPool.Size, Stride: l.MaxPool.Stride, Pad: l.MaxPool.Pad}))
	case l.Flatten != nil:
		l.append(m, l.node(model.Flatten, l.Name(), model.Attr{}))
	case l.ReLU != nil:
		l.append(m, l.node(model.ReLU, l.Name(), model.Attr{Cap: float32(l.ReLU.Cap)}))
	case l.Add != nil:
		l.appendGroup(m, model.Add, model.Attr{}, "none", 0, 0, l.Add.Act)
	case l.GAP != nil:
		l.append(m, l.node(model.GlobalAvgPool, l.Name(), model.Attr{}))
	}
}

// append adds nodes that follow one another; the first reads what the layer's `from` names.
func (l *Layer) append(m *model.Model, nodes ...model.Node) {
	for _, name := range l.sources() {
		if name == inputName && m.Node(name) == nil {
			name = m.Inputs[0].Name
		}
		nodes[0].In = append(nodes[0].In, name)
	}
	for _, n := range nodes {
		m.Append(n)
	}
}

// relu6Cap is the upper limit of act: relu6 (arXiv:1704.04861).
const relu6Cap = 6

// appendGroup adds the product, the norm and the activation of a layer; the last of them carries the layer's own name.
func (l *Layer) appendGroup(m *model.Model, op model.Op, a model.Attr, norm string, eps, momentum float64, act string) {
	nodes := []model.Node{l.node(op, l.Name()+"/"+op.String(), a)}
	if norm != "none" {
		nodes = append(nodes, l.node(model.BatchNorm, l.Name()+"/norm", model.Attr{Whole: norm == wholeNorm, Eps: float32(eps), Momentum: float32(momentum)}))
	}
	switch act {
	case "relu":
		nodes = append(nodes, l.node(model.ReLU, l.Name()+"/relu", model.Attr{}))
	case "relu6":
		nodes = append(nodes, l.node(model.ReLU, l.Name()+"/relu", model.Attr{Cap: relu6Cap}))
	}
	nodes[len(nodes)-1].Name = l.Name()
	l.append(m, nodes...)
}

func (l *Layer) node(op model.Op, name string, a model.Attr) model.Node {
	return model.Node{Name: name, Layer: l.Name(), Op: op, Attr: a, Origin: l.origin}
}

// problemAt is a Problem at the line of layer i.
func (c *Config) problemAt(i int) Problem {
	l := &c.Model[i]
	p := Problem{Field: fmt.Sprintf("model[%d].%s", i, l.Kind()), File: l.origin}
	if c.src == nil {
		return p
	}
	if n := c.src.layers[i]; n != nil {
		return c.src.problem(n, p.Field)
	}
	return p
}

// atLayer turns an error of a pass, which starts with the layer's origin, into a Problem.
func (c *Config) atLayer(err error) error {
	for i := range c.Model {
		l := &c.Model[i]
		if l.origin == "" {
			continue
		}
		if msg, ok := strings.CutPrefix(err.Error(), l.origin+": "); ok && strings.Contains(msg, fmt.Sprintf("%q", l.Name())) {
			p := c.problemAt(i)
			p.Message = msg
			return &Errors{Problems: []Problem{p}}
		}
	}
	return err
}

// Precision is the precision of the quant section's formats; full precision without one.
func (c *Config) Precision() quant.Precision {
	if c.Quant == nil {
		return quant.Full
	}
	return quant.Precision{Weight: c.Quant.Weight.Format, Act: c.Quant.Act.Format}
}

// QuantConfig is the quant section at a precision: the precision gives the formats, the section the rest, and a rule
// beats the precision. Rules and range methods are about integer grids: at fp32, fp16 and bf16 a rule keeps its pattern
// and changes nothing, nor does its act where only weights are integers.
func (c *Config) QuantConfig(p quant.Precision) (model.QuantConfig, error) {
	if !p.Weight.Valid() || !p.Act.Valid() || mixes(p.Weight, p.Act) {
		return model.QuantConfig{}, fmt.Errorf("config %q: precision %s is not one network: use integers for weights and activations, the same float for both, or integer weights with fp16 activations", c.Name, p)
	}
	q := model.DefaultQuant(p)
	if c.Quant == nil {
		return q, nil
	}
	q.Target = c.Quant.Target
	q.InputAct = c.Quant.Input == actInput && p.IsInteger()
	if p.Weight.IsInteger() {
		q.Weight = c.Quant.Weight.over(c.standard(weightRole, p.Weight))
		if c.Quant.Weight.Levels == "" {
			q.Weight = c.leveled(q.Weight, p)
		}
	}
	if p.Act.IsInteger() {
		q.Act = c.Quant.Act.over(c.standard(actRole, p.Act))
	}
	for i, r := range c.Quant.Rules {
		rule := model.Rule{Layer: r.Layer, Origin: r.origin, Weight: c.ruled(r.Weight, c.Quant.Weight, q.Weight, weightRole), Act: c.ruled(r.Act, c.Quant.Act, q.Act, actRole)}
		if w := rule.Weight; w != nil && c.Quant.Weight.Levels+r.Weight.Levels == "" {
			*w = c.leveled(*w, p)
		}
		for _, s := range []*quant.Spec{rule.Weight, rule.Act} {
			if s == nil {
				continue
			}
			if err := s.Validate(); err != nil {
				return model.QuantConfig{}, fmt.Errorf("%s: quant.rules[%d]: %w", r.origin, i, err)
			}
		}
		q.Rules = append(q.Rules, rule)
	}
	return q, nil
}

// ruled is the full Spec of a rule over the default s, which a section gave, or nil where the rule does not apply.
func (c *Config) ruled(t *TensorQuant, section TensorQuant, s quant.Spec, r role) *quant.Spec {
	if t == nil || !s.Format.IsInteger() {
		return nil
	}
	if t.Format != 0 && t.Format != s.Format {
		own := c.standard(r, t.Format)
		switch {
		case t.Format == quant.Binary || s.Format == quant.Binary: // they share no settings
			s = own
		case section.Range == 0: // auto goes by the format
			s.Range = own.Range
		}
		if r == actRole && (t.Format == quant.Int16) != (s.Format == quant.Int16) { // 16 bits are signed
			s.Signed, s.Scheme = own.Signed, own.Scheme
			if section.Scheme != 0 && t.Format != quant.Int16 {
				s.Scheme = section.Scheme
			}
		}
		s.Format = t.Format
	}
	full := *t
	if t.Range == 0 && s.Range == quant.Constant { // the default's
		full.Range, full.Max = s.Range, float64(s.Max)
	}
	full.Format = s.Format
	out := full.over(s)
	return &out
}
