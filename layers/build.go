package layers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

// Build makes the graph of a fused Float or Quantized model and compiles it. The graph shares the model's memory:
// parameters, running statistics, scales and zero points change in place, so model.Freeze and an evaluation graph of the
// same model always see the latest. Activations of a Quantized model must be calibrated; a weight with a learned scale
// and none yet gets qat.InitialScale.
func Build(m *model.Model, o Options) (*Net, error) {
	net, err := build(m, o)
	if err != nil {
		return nil, fmt.Errorf("model %q: %w", m.Name, err)
	}
	return net, nil
}

func build(m *model.Model, o Options) (*Net, error) {
	if o.Loss.Kind == "" {
		o.Loss.Kind = CrossEntropy
	}
	switch {
	case o.Batch < 1:
		return nil, fmt.Errorf("batch size %d must be at least 1", o.Batch)
	case m.Stage == model.Frozen:
		return nil, errors.New("is frozen and has no masters to train: build the model it was frozen from, or run it in the engine")
	case len(m.Inputs) != 1 || len(m.Outputs) != 1:
		return nil, fmt.Errorf("has %d inputs and %d outputs; graphs have one of each", len(m.Inputs), len(m.Outputs))
	}
	if err := o.Loss.validate(); err != nil {
		return nil, err
	}
	if err := validBackward(m, o); err != nil {
		return nil, err
	}
	if m.Stage == model.Quantized {
		if err := model.Check(m); err != nil {
			return nil, err
		}
	}
	b := &builder{
		m: m, o: o, g: G.NewGraph(), st: qat.NewStep(o.Pool, o.Train),
		edges: map[string]edge{}, acts: map[string]*act{}, pooled: map[string]bool{}, forked: map[string]bool{},
	}
	b.st.ScaleFactor, b.st.PACTDecay, b.st.Seed = o.ScaleFactor, o.PACTDecay, o.Seed
	if err := b.input(); err != nil {
		return nil, err
	}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		err := b.layer(n)
		if err == nil {
			err = b.fork(n)
		}
		if err != nil {
			where := ""
			if n.Origin != "" {
				where = n.Origin + ": "
			}
			return nil, fmt.Errorf("%s%s %q: %w", where, n.Op, n.Layer, err)
		}
	}
	return b.finish()
}

// edgeKind says what flows on an edge.
type edgeKind uint8

const (
	onFloats edgeKind = iota + 1
	onCodes
	onAcc // inside a quantized layer whose batch norm, if any, is frozen for good
)

// edge is the tensor that a model's node makes.
type edge struct {
	node   *G.Node
	kind   edgeKind
	grad   bool         // something trained lies before it
	hidden *qat.Act     // quantizes what node holds, when somebody asks for the tensor
	round  quant.Format // rounds it, likewise
}

// act is an activation's quantizer in the graph.
type act struct {
	*qat.Act
	params *quant.Params
}

type builder struct {
	m     *model.Model
	o     Options
	g     *G.ExprGraph
	st    *qat.Step
	edges map[string]edge
	acts  map[string]*act

	drops  []*dropout
	pooled map[string]bool // nodes whose pooling belongs to the layer before them, by name
	forked map[string]bool // nodes whose several readers read a fork

	bytes   *qat.Codes
	table   *[256]uint8 // from bytes to codes; nil where they are the same
	leaves  []trained
	weights []coded
	learned []learnedRange // scales that follow what leaves learn
}

// trained is a leaf that gets a gradient.
type trained struct {
	name, role string
	value      []float32
	node       *G.Node
	learned    quant.Learned
	span       float32
}

func (b *builder) input() error {
	in := b.m.Inputs[0]
	p := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{in.Scale}, Zero: []int32{in.Zero}}
	q := b.m.Quant[in.Name]
	integer := q != nil && q.Spec.Format.IsInteger()
	if integer {
		if err := q.Validate(1); err != nil {
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
		p, b.table = q, in.InputTable(q)
	}
	b.bytes = qat.NewActCodes(p, append(tensor.Shape{b.o.Batch}, in.Shape...))
	leaf, err := gx.Leaf(b.g, in.Name, b.bytes)
	if err != nil {
		return err
	}
	e := edge{kind: onFloats}
	if integer {
		e.kind = onCodes
		e.node, err = qat.QuantizeInput(in.Name, leaf, p)
	} else if e.node, err = qat.DequantizeInput(b.st, in.Name, leaf); err == nil && q != nil {
		e.node, err = qat.Round(b.st, in.Name, e.node, q.Spec.Format, false, false)
	}
	b.edges[in.Name] = e
	return err
}

// layer is the one map from the operations of a model to those of the graph.
func (b *builder) layer(n *model.Node) error {
	if len(n.In) != n.Op.Inputs() || n.Shape == nil {
		return fmt.Errorf("has no shape or not %d inputs: run model.Shapes first", n.Op.Inputs())
	}
	if b.pooled[n.Name] { // by the layer before it
		return nil
	}
	for _, name := range n.In {
		if _, ok := b.edges[name]; !ok {
			return fmt.Errorf("reads %q, which no earlier layer makes", name)
		}
	}
	x := b.edges[n.In[0]]
	in, _ := b.m.ShapeOf(n.In[0])
	out := x
	var err error
	switch n.Op {
	case model.Conv, model.Dense:
		return b.weighted(n, in, x)
	case model.ReLU:
		out.node, err = newRelu(b.st, n, x.node, x.kind, b.wideParams(n.Name), x.grad)
		if q := b.m.Quant[n.Name]; err == nil && n.Attr.Cap > 0 && q != nil && q.Spec.Format.Rounds16() {
			out.node, err = qat.Round(b.st, n.Name, out.node, q.Spec.Format, false, x.grad) // the limit itself may need it
		}
	case model.Add, model.GlobalAvgPool:
		out, err = b.plain(n, in, x)
	case model.MaxPool:
		out.node, err = newPool(b.st, n, in, x.node, x.kind, x.grad)
	case model.Flatten:
		out.node, err = newFlatten(b.st, n.Layer, x.node, x.kind, x.grad)
	case model.BatchNorm:
		err = errors.New("is not fused into the layer before it: run model.Fuse first")
	default:
		err = errors.New("has no graph op (there are: conv, dense, add, gap, relu, maxpool, flatten)")
	}
	b.edges[n.Name] = out
	return err
}

// param adds the leaf of a trained parameter.
func (b *builder) param(n *model.Node, role string) (*G.Node, error) {
	name := n.Param(role)
	p := b.m.Params[name]
	if p == nil || len(p.Data) == 0 {
		return nil, fmt.Errorf("parameter %q is missing: run model.Shapes first", name)
	}
	return b.leaf(trained{name: name, role: role, value: p.Data}, p.Shape)
}

func (b *builder) leaf(t trained, shape model.Shape) (*G.Node, error) {
	var err error
	if t.node, err = gx.Leaf(b.g, t.name, gx.Wrap(t.value, shape...)); err == nil {
		b.leaves = append(b.leaves, t)
	}
	return t.node, err
}

// plain adds an addition or a global average with what was fused into it.
func (b *builder) plain(n *model.Node, in model.Shape, x edge) (edge, error) {
	grad, kind := x.grad, onFloats
	var y *G.Node
	var err error
	wide, relu := b.m.Wide(n), n.Attr.Relu
	if wide {
		y, grad, err = b.widePlain(n, in)
	} else if n.Op == model.Add {
		other := b.edges[n.In[1]]
		if x.kind != other.kind {
			return edge{}, fmt.Errorf("inputs %q and %q are not both integers", n.In[0], n.In[1])
		}
		grad = x.grad || other.grad
		joined := relu && n.Attr.Cap == 0 && x.kind == onFloats
		y, err = newAddition(b.st, n, x, other, joined)
		relu = relu && !joined
	} else {
		y, err = newGlobalAvg(b.st, n, in, x, nil)
	}
	if x.kind == onCodes || wide {
		kind = onAcc
		if b.m.Quant[n.Name] == nil {
			return edge{}, errors.New("a quantized model must end in a dense or conv layer: only their outputs may be float32")
		}
	}
	if err == nil && relu {
		y, err = newRelu(b.st, n, y, kind, nil, grad)
	}
	if err != nil {
		return edge{}, err
	}
	return b.store(n, y, grad)
}

// store adds the quantizer of a layer's output; grad says whether something trained lies before it.
func (b *builder) store(n *model.Node, y *G.Node, grad bool) (out edge, err error) {
	out = edge{node: y, kind: onFloats, grad: grad}
	switch q := b.m.Quant[n.Name]; {
	case q == nil:
	case q.Spec.Format.IsInteger():
		if b.wideParams(n.Name) == nil {
			out.kind = onCodes
		}
		out.grad = grad || q.Spec.Range.Learns()
		out.node, err = b.activation(n.Name, q, y, grad)
	default:
		out.node, err = qat.Round(b.st, n.Name, y, q.Spec.Format, false, grad)
	}
	return out, err
}

// weight adds the leaf of a layer's weight and its quantizer; the second result is nil where the layer computes on floats.
func (b *builder) weight(n *model.Node) (*G.Node, *qat.Weight, error) {
	leaf, err := b.param(n, model.Weight)
	if err != nil {
		return nil, nil, err
	}
	name := n.Param(model.Weight)
	q := b.m.Quant[name]
	switch {
	case q == nil || q.Spec.Format == quant.FP32:
		return leaf, nil, nil
	case !q.Spec.Format.IsInteger():
		node, err := qat.Round(b.st, n.Layer, leaf, q.Spec.Format, true, true)
		return node, nil, err
	}
	qat.InitialScale(q, b.m.Params[name].Data, n.Attr.Units)
	learned, err := b.learn(name, q)
	if err != nil {
		return nil, nil, err
	}
	in, _ := b.m.ShapeOf(n.In[0])
	geom, err := geometry(n, in)
	if err != nil {
		return nil, nil, err
	}
	node, weight, err := qat.QuantizeWeight(b.st, b.m, n, geom, leaf, learned)
	if err == nil && q.Spec.Per != quant.PerGroup && !b.m.Wide(n) {
		b.weights = append(b.weights, coded{name, weight})
	}
	if b.m.WeightOnly(n) {
		weight = nil // its values are read, not its codes
	}
	return node, weight, err
}

// learnedRange is the range of a tensor whose method learns it.
type learnedRange struct {
	name string
	p    *quant.Params
}

// learn adds the leaves of what the range method of a tensor learns, if anything.
func (b *builder) learn(tensor string, q *quant.Params) (G.Nodes, error) {
	var nodes G.Nodes
	q.Start()
	for _, kind := range q.Spec.Range.Learned() {
		lo, hi := q.Spec.Grid()
		numbers := q.Numbers(kind)
		node, err := b.leaf(trained{
			name: tensor + "." + kind.String(), role: kind.String(), value: numbers, learned: kind, span: float32(hi - lo),
		}, model.Shape{len(numbers)})
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node)
	}
	if nodes != nil {
		b.learned = append(b.learned, learnedRange{tensor, q})
	}
	return nodes, nil
}

func (b *builder) activation(name string, q *quant.Params, x *G.Node, grad bool) (*G.Node, error) {
	if !q.Ready() {
		return nil, notCalibrated(name)
	}
	learned, err := b.learn(name, q)
	if err != nil {
		return nil, err
	}
	node, a, err := qat.QuantizeAct(b.st, name, q, x, learned, grad)
	if err == nil {
		b.acts[name] = &act{a, q}
	}
	return node, err
}

func notCalibrated(name string) error {
	return fmt.Errorf("activation %q has no range: calibrate the model before training it (post-training quantization does)", name)
}

// finish adds the loss and the gradients, and compiles.
func (b *builder) finish() (*Net, error) {
	logits := b.edges[b.m.Outputs[0]].node
	shape := logits.Shape()
	if shape.Dims() != 2 {
		return nil, fmt.Errorf("output %q has shape %v; the loss needs one row of logits per example: end with a dense layer", b.m.Outputs[0], shape[1:])
	}
	net := &Net{
		st: b.st, g: b.g, batch: b.o.Batch, input: b.bytes, table: b.table, labels: make([]int32, b.o.Batch), classes: shape[1],
		wide: map[string]*quant.Params{}, edges: b.edges, acts: b.acts, drops: b.drops, out: b.m.Outputs[0], learned: b.learned,
	}
	for _, name := range slices.Sorted(maps.Keys(b.acts)) {
		net.ranges = append(net.ranges, b.acts[name])
	}
	labels, err := gx.Leaf(b.g, "labels", tensor.New(tensor.WithShape(b.o.Batch), tensor.WithBacking(net.labels)))
	if err != nil {
		return nil, err
	}
	cost, l, err := newLoss(b.st, b.o.Loss, logits, labels)
	if err != nil {
		return nil, err
	}
	net.loss = l
	slices.SortFunc(b.weights, func(x, y coded) int { return strings.Compare(x.name, y.name) })
	for _, name := range b.m.QuantNames() {
		if p := b.wideParams(name); p != nil {
			net.wide[name] = p
		}
	}
	net.weights = b.weights
	slices.SortFunc(b.leaves, func(x, y trained) int { return strings.Compare(x.name, y.name) })
	if b.o.Train {
		if err := b.gradients(net, cost); err != nil {
			return nil, err
		}
	}
	net.vm, err = gx.NewMachine(b.g)
	return net, err
}

func (b *builder) gradients(net *Net, cost *G.Node) error {
	if len(b.leaves) == 0 {
		return errors.New("has nothing to train")
	}
	wrt := make(G.Nodes, len(b.leaves))
	for i, l := range b.leaves {
		wrt[i] = l.node
	}
	grads, err := gx.Grad(cost, wrt...)
	if err != nil {
		return err
	}
	for i, l := range b.leaves {
		v := gx.Output(grads[i])
		if v == nil {
			return fmt.Errorf("parameter %q is used by several layers, which is not supported", l.name)
		}
		grad, err := gx.Floats(v)
		if err != nil {
			return fmt.Errorf("gradient of %q: %w", l.name, err)
		}
		net.trainables = append(net.trainables, Trainable{
			Name: l.name, Role: l.role, Value: l.value, Grad: grad, Learned: l.learned, Span: l.span,
		})
	}
	return nil
}
