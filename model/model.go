package model

import (
	"fmt"
	"maps"
	"slices"

	"github.com/narrow-ml/narrow/quant"
)

// Stage says how far a model has come.
type Stage uint8

// The stages; see the package comment.
const (
	Float Stage = iota + 1
	Quantized
	Frozen
)

var stageNames = [...]string{Float: "float", Quantized: "quantized", Frozen: "frozen"}

func (s Stage) String() string {
	if int(s) < len(stageNames) && stageNames[s] != "" {
		return stageNames[s]
	}
	return fmt.Sprintf("Stage(%d)", uint8(s))
}

// Shape is the extent of a tensor without the batch axis.
type Shape []int

// Size is the number of elements; 1 for a scalar.
func (s Shape) Size() int {
	n := 1
	for _, d := range s {
		n *= d
	}
	return n
}

// Channels is the extent of the last axis; 1 for a scalar.
func (s Shape) Channels() int {
	if len(s) == 0 {
		return 1
	}
	return s[len(s)-1]
}

// Input is a model input: bytes p that stand for x = Scale*(p-Zero). The bytes are the codes of the quantized input.
type Input struct {
	Name  string
	Shape Shape
	Scale float32
	Zero  int32
	// Labels are the class names of the task the input belongs to, in the order of the logits; may be empty.
	Labels []string
}

// Param is a parameter tensor. Exactly one of the payloads is set: Data for float32 masters and for what stays float32 in
// a Frozen model, Half for 16-bit floats, Codes for weight codes of up to 8 bits, Codes16 for those of 16, Int32 for quantized
// biases.
type Param struct {
	Shape   Shape
	Data    []float32
	Half    []uint16
	Codes   []int8
	Codes16 []int16
	Int32   []int32
}

// Clone copies p and its payload.
func (p *Param) Clone() *Param {
	return &Param{Shape: slices.Clone(p.Shape), Data: slices.Clone(p.Data), Half: slices.Clone(p.Half), Codes: slices.Clone(p.Codes), Codes16: slices.Clone(p.Codes16), Int32: slices.Clone(p.Int32)}
}

// Model is one network. See the package comment for stages and layout.
type Model struct {
	Name      string
	Stage     Stage
	Precision quant.Precision // the base precision; rules may differ from it per layer
	Inputs    []Input
	Nodes     []Node // topological order, single assignment
	Outputs   []string
	Params    map[string]*Param
	Quant     map[string]*quant.Params // by tensor name: activations, inputs and weights; absent = float32 on purpose
	Target    quant.Target
}

// New starts a float model with one input.
func New(name string, in Input) *Model {
	return &Model{
		Name: name, Stage: Float, Precision: quant.Full, Inputs: []Input{in},
		Params: map[string]*Param{}, Quant: map[string]*quant.Params{}, Target: quant.ONNX,
	}
}

// Append adds a node. With no inputs named it reads the node (or input) before it. The model's output is the last node
// appended.
func (m *Model) Append(n Node) {
	if len(n.In) == 0 {
		n.In = []string{m.last()}
	}
	m.Nodes = append(m.Nodes, n)
	m.Outputs = []string{n.Name}
}

func (m *Model) last() string {
	switch {
	case len(m.Nodes) > 0:
		return m.Nodes[len(m.Nodes)-1].Name
	case len(m.Inputs) > 0:
		return m.Inputs[0].Name
	}
	return "" // Shapes reports that nothing makes it
}

// Node finds a node by the name of its output tensor; nil if there is none.
func (m *Model) Node(name string) *Node {
	for i := range m.Nodes {
		if m.Nodes[i].Name == name {
			return &m.Nodes[i]
		}
	}
	return nil
}

// Input finds an input by name; nil if there is none.
func (m *Model) Input(name string) *Input {
	for i := range m.Inputs {
		if m.Inputs[i].Name == name {
			return &m.Inputs[i]
		}
	}
	return nil
}

// ShapeOf is the shape of an input or of a node's output.
func (m *Model) ShapeOf(name string) (Shape, bool) {
	if in := m.Input(name); in != nil {
		return in.Shape, true
	}
	if n := m.Node(name); n != nil {
		return n.Shape, n.Shape != nil
	}
	return nil, false
}

// Readers lists the nodes that read a tensor.
func (m *Model) Readers(name string) []*Node {
	var out []*Node
	for i := range m.Nodes {
		if slices.Contains(m.Nodes[i].In, name) {
			out = append(out, &m.Nodes[i])
		}
	}
	return out
}

// IsOutput reports whether the tensor is an output of the model.
func (m *Model) IsOutput(name string) bool { return slices.Contains(m.Outputs, name) }

// ParamNames lists the parameters in sorted order: the order of files, optimizers and hashes.
func (m *Model) ParamNames() []string { return slices.Sorted(maps.Keys(m.Params)) }

// QuantNames lists the quantized tensors in sorted order.
func (m *Model) QuantNames() []string { return slices.Sorted(maps.Keys(m.Quant)) }

// Clone copies m with everything it holds. Tensors that share one quantizer share it in the copy too.
func (m *Model) Clone() *Model {
	out := m.with(slices.Clone(m.Nodes))
	for i := range out.Nodes {
		n := &out.Nodes[i]
		n.In, n.Shape = slices.Clone(n.In), slices.Clone(n.Shape)
		if n.Requant != nil {
			r := *n.Requant
			r.M = slices.Clone(r.M)
			n.Requant = &r
		}
	}
	out.Inputs, out.Outputs = slices.Clone(m.Inputs), slices.Clone(m.Outputs)
	for i := range out.Inputs {
		in := &out.Inputs[i]
		in.Shape, in.Labels = slices.Clone(in.Shape), slices.Clone(in.Labels)
	}
	out.Params = make(map[string]*Param, len(m.Params))
	for name, p := range m.Params {
		out.Params[name] = p.Clone()
	}
	return out
}

// with is m with other nodes: the start of every pass. Parameters are shared; the map and the quantizers are copied.
func (m *Model) with(nodes []Node) *Model {
	out := *m
	out.Nodes = nodes
	out.Params = maps.Clone(m.Params)
	out.Quant = make(map[string]*quant.Params, len(m.Quant))
	copies := map[*quant.Params]*quant.Params{}
	for name, q := range m.Quant {
		if copies[q] == nil {
			copies[q] = q.Clone()
		}
		out.Quant[name] = copies[q]
	}
	return &out
}
