package onnx

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// The versions of the files: the oldest that have what is used, so that old runtimes and checkers accept them.
const (
	irVersion, opset         = 8, 17
	irVersionWide, opsetWide = 10, 21 // int4 weights, 16-bit codes
)

// Write writes a Frozen model as an ONNX file. The same model and options always give the same bytes.
func Write(w io.Writer, m *model.Model, o Options) error {
	file, err := Build(m, o)
	if err != nil {
		return err
	}
	if _, err := w.Write(onnxpb.Marshal(file)); err != nil {
		return fmt.Errorf("onnx export of %q: %w", m.Name, err)
	}
	return nil
}

// Build makes the ONNX model that Write writes.
func Build(m *model.Model, o Options) (*onnxpb.Model, error) {
	if _, err := ParsePreset(string(o.Preset)); err != nil {
		return nil, fmt.Errorf("onnx export of %q: preset %w", m.Name, err)
	}
	if err := model.Validate(m); err != nil {
		return nil, fmt.Errorf("onnx export: %w", err)
	}
	b := newBuilder(m, o)
	if err := b.build(); err != nil {
		return nil, fmt.Errorf("onnx export of %q: %w", m.Name, err)
	}
	return b.file, nil
}

// builder collects the graph. Each model tensor that has been made is known by up to two ONNX names: codes (the model's
// own name) and reals (dequantized, or the float tensor).
type builder struct {
	m       *model.Model
	options Options
	file    *onnxpb.Model
	graph   *onnxpb.Graph
	taken   map[string]bool
	real    map[string]string           // model tensor -> ONNX tensor of its reals
	codes   map[string]string           // model tensor -> ONNX tensor of its codes
	grids   map[*quant.Params][2]string // quantizer -> names of its scale and zero point
	images  map[string]model.Shape      // flattened tensors whose elements are in the order c, h, w of this image
}

func newBuilder(m *model.Model, o Options) *builder {
	b := &builder{
		m: m, options: o, graph: &onnxpb.Graph{Name: m.Name}, taken: map[string]bool{},
		real: map[string]string{}, codes: map[string]string{}, grids: map[*quant.Params][2]string{}, images: map[string]model.Shape{},
	}
	b.file = &onnxpb.Model{
		IRVersion: irVersion, ProducerName: "narrow", Graph: b.graph, Opsets: []onnxpb.Opset{{Version: opset}},
		Metadata: []onnxpb.Prop{{Key: "narrow.model", Value: m.Name}, {Key: "narrow.precision", Value: m.Precision.String()}},
	}
	if o.PackInt4 || wide(m) {
		b.file.IRVersion, b.file.Opsets[0].Version = irVersionWide, opsetWide
	}
	for _, in := range m.Inputs {
		b.taken[in.Name] = true
	}
	for i := range m.Nodes {
		b.taken[m.Nodes[i].Name] = true
	}
	return b
}

// wide reports whether any tensor has 16-bit codes.
func wide(m *model.Model) bool {
	for _, name := range m.QuantNames() {
		if m.Quant[name].Spec.Format == quant.Int16 {
			return true
		}
	}
	return false
}

func (b *builder) build() error {
	for _, in := range b.m.Inputs {
		if err := b.input(in); err != nil {
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	for i := range b.m.Nodes {
		n := &b.m.Nodes[i]
		err := b.node(n)
		if err != nil {
			return fmt.Errorf("%s %q: %w", n.Op, n.Name, err)
		}
	}
	for _, name := range b.m.Outputs {
		shape, _ := b.m.ShapeOf(name)
		out, err := b.reals(name)
		if err != nil {
			return fmt.Errorf("output %q: %w", name, err)
		}
		b.graph.Outputs = append(b.graph.Outputs, valueInfo(out, shape))
	}
	return nil
}

func valueInfo(name string, s model.Shape) *onnxpb.ValueInfo {
	shape := &onnxpb.Shape{Dims: []onnxpb.Dim{onnxpb.SymbolicDim("N")}}
	for _, d := range onnxShape(s) {
		shape.Dims = append(shape.Dims, onnxpb.FixedDim(d))
	}
	return &onnxpb.ValueInfo{Name: name, Type: onnxpb.TensorType(onnxpb.Float, shape)}
}

// input declares a model input and brings it to its grid or its 16-bit format.
func (b *builder) input(in model.Input) error {
	b.graph.Inputs = append(b.graph.Inputs, valueInfo(in.Name, in.Shape))
	if len(in.Labels) > 0 {
		labels, err := json.Marshal(in.Labels)
		if err != nil {
			return err
		}
		b.file.Metadata = append(b.file.Metadata, onnxpb.Prop{Key: "narrow.labels", Value: string(labels)})
	}
	q := b.m.Quant[in.Name]
	switch {
	case q == nil || q.Spec.Format == quant.FP32:
		b.real[in.Name] = in.Name
	case q.Spec.Format.Rounds16():
		b.real[in.Name] = b.rounded(in.Name, b.fresh(in.Name+"_rounded"), q.Spec.Format)
	default:
		codes := b.fresh(in.Name + "_codes")
		b.codes[in.Name] = codes
		if q.Spec.IsSign() {
			lo, hi := q.Spec.Grid()
			return b.signed(in.Name, codes, lo, hi)
		}
		if lo, hi := q.Spec.Grid(); lo != 0 || hi != 255 {
			wide, err := b.quantize(in.Name, b.fresh(in.Name+"_wide"), q)
			if err != nil {
				return err
			}
			return b.clipped(in.Name, wide, codes, lo, hi)
		}
		_, err := b.quantize(in.Name, codes, q)
		return err
	}
	return nil
}

func (b *builder) node(n *model.Node) error {
	q := b.m.Quant[n.Name]
	image, flattened := b.images[n.In[0]]
	switch n.Op {
	case model.Conv, model.Dense:
		if n.Requant != nil {
			return b.integerLayer(n)
		}
		return b.floatLayer(n)
	case model.MaxPool:
		return b.moved(n, q, "MaxPool", windowAttrs(n)...)
	case model.ReLU:
		return b.ownReLU(n)
	case model.Add:
		return b.addition(n)
	case model.GlobalAvgPool:
		return b.globalAvg(n)
	case model.Flatten:
		in, _ := b.m.ShapeOf(n.In[0])
		if isImage(in) && b.m.IsOutput(n.Name) {
			return fmt.Errorf("a flattened image as the model's output would come out in the order c, h, w; end in a dense layer or leave the flatten out")
		}
		if isImage(in) {
			b.images[n.Name] = in
		} else if flattened {
			b.images[n.Name] = image
		}
		return b.moved(n, q, "Flatten", onnxpb.IntAttr("axis", 1))
	}
	return fmt.Errorf("this operation has no ONNX form here")
}

// moved writes an operator whose output keeps the grid of its input: between DequantizeLinear and QuantizeLinear with
// the same scale, which runtimes drop to run it on the codes.
func (b *builder) moved(n *model.Node, q *quant.Params, op string, attrs ...*onnxpb.Attribute) error {
	in, err := b.reals(n.In[0])
	if err != nil {
		return err
	}
	if _, quantized := b.codes[n.In[0]]; !quantized {
		b.real[n.Name] = b.add(op, n.Name, []string{in}, attrs...)
		return nil
	}
	if q == nil {
		return fmt.Errorf("its input has codes but it has no quantizer")
	}
	out, err := b.quantize(b.add(op, b.fresh(n.Name+"_real"), []string{in}, attrs...), n.Name, q)
	b.codes[n.Name] = out
	return err
}

// reals returns the ONNX tensor with the real values of a model tensor, behind a DequantizeLinear if it has codes.
func (b *builder) reals(name string) (string, error) {
	if out, ok := b.real[name]; ok {
		return out, nil
	}
	codes, ok := b.codes[name]
	if !ok {
		return "", fmt.Errorf("tensor %q has not been made", name)
	}
	grid, err := b.grid(name, b.m.Quant[name])
	if err != nil {
		return "", err
	}
	out := b.add("DequantizeLinear", b.fresh(name+"_dq"), []string{codes, grid[0], grid[1]})
	b.real[name] = out
	return out, nil
}

// quantize rounds an ONNX tensor of reals to the grid of q.
func (b *builder) quantize(in, out string, q *quant.Params) (string, error) {
	grid, err := b.grid(out, q)
	if err != nil {
		return "", err
	}
	return b.add("QuantizeLinear", out, []string{in, grid[0], grid[1]}), nil
}

// grid adds scale and zero point of an activation; tensors that share a quantizer share them.
func (b *builder) grid(name string, q *quant.Params) ([2]string, error) {
	if g, ok := b.grids[q]; ok {
		return g, nil
	}
	s, z := q.At(0)
	scale, err := onnxpb.FloatTensor(b.fresh(name+"_scale"), onnxpb.Float, nil, []float32{s})
	if err != nil {
		return [2]string{}, err
	}
	typ := onnxpb.Uint8
	if q.Spec.Format == quant.Int16 {
		typ = onnxpb.Int16
	}
	zero, err := onnxpb.IntTensor(b.fresh(name+"_zero"), typ, nil, []int32{z})
	if err != nil {
		return [2]string{}, err
	}
	b.grids[q] = [2]string{b.initializer(scale), b.initializer(zero)}
	return b.grids[q], nil
}

// add appends a node with one output.
func (b *builder) add(op, out string, in []string, attrs ...*onnxpb.Attribute) string {
	b.graph.Nodes = append(b.graph.Nodes, &onnxpb.Node{Op: op, Name: op + "/" + out, Inputs: in, Outputs: []string{out}, Attrs: attrs})
	return out
}

func (b *builder) initializer(t *onnxpb.Tensor) string {
	b.graph.Initializers = append(b.graph.Initializers, t)
	return t.Name
}

// fresh gives a name that no other tensor has.
func (b *builder) fresh(name string) string {
	free := name
	for i := 2; b.taken[free]; i++ {
		free = name + "_" + strconv.Itoa(i)
	}
	b.taken[free] = true
	return free
}

func windowAttrs(n *model.Node) []*onnxpb.Attribute {
	pair := func(v [2]int) []int64 { return []int64{int64(v[0]), int64(v[1])} }
	p := n.Attr.Pad // top, left, bottom, right: the order of ONNX
	return []*onnxpb.Attribute{
		onnxpb.IntsAttr("kernel_shape", pair(n.Attr.Kernel)...),
		onnxpb.IntsAttr("strides", pair(n.Attr.Stride)...),
		onnxpb.IntsAttr("pads", int64(p[0]), int64(p[1]), int64(p[2]), int64(p[3])),
	}
}
