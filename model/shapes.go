package model

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Shapes computes every node's output shape and makes the parameters that are missing: zeros, with gamma and var 1. It
// checks names, inputs and attributes, and that no two layers own the same parameter. m is a Float or Quantized model. The
// first error is returned, with the layer's origin.
func Shapes(m *Model) (*Model, error) {
	out := m.with(slices.Clone(m.Nodes))
	shapes := map[string]Shape{}
	for _, in := range out.Inputs {
		if in.Name == "" || shapes[in.Name] != nil {
			return nil, fmt.Errorf("input name %q is empty or used twice", in.Name)
		}
		if len(in.Shape) == 0 || slices.Min(in.Shape) < 1 {
			return nil, fmt.Errorf("input %q: shape %v must have positive extents", in.Name, in.Shape)
		}
		if !positive(in.Scale) || in.Zero < 0 || in.Zero > 255 {
			return nil, fmt.Errorf("input %q: scale %v must be finite and positive and zero point %d a byte", in.Name, in.Scale, in.Zero)
		}
		shapes[in.Name] = in.Shape
	}
	if len(out.Nodes) == 0 {
		return nil, fmt.Errorf("model %q has no layers", m.Name)
	}
	owner := map[string]*Node{} // of each parameter
	for i := range out.Nodes {
		n := &out.Nodes[i]
		if n.Name == "" || shapes[n.Name] != nil {
			return nil, n.errorf("tensor name %q is empty or used twice", n.Name)
		}
		in, err := n.inShape(shapes)
		if err != nil {
			return nil, err
		}
		shape, err := n.outShape(in)
		if err != nil {
			return nil, err
		}
		n.Shape, shapes[n.Name] = shape, shape
		if err := out.ensureParams(n, in, owner); err != nil {
			return nil, err
		}
	}
	for i := range out.Nodes { // weights and activations share the names of Quant
		if n := &out.Nodes[i]; owner[n.Name] != nil {
			return nil, n.errorf("tensor name %q is the name of a parameter", n.Name)
		}
	}
	if len(out.Outputs) == 0 {
		return nil, fmt.Errorf("model %q has no outputs", m.Name)
	}
	for _, name := range out.Outputs {
		if shapes[name] == nil {
			return nil, fmt.Errorf("output %q is not a tensor of model %q", name, m.Name)
		}
	}
	return out, nil
}

// inShape is the shape of what a node reads; the two inputs of an addition must agree.
func (n *Node) inShape(made map[string]Shape) (Shape, error) {
	if want := n.Op.Inputs(); len(n.In) != want {
		plural := "s"
		if want == 1 {
			plural = ""
		}
		return nil, n.errorf("needs %d input%s, has %d", want, plural, len(n.In))
	}
	for _, name := range n.In {
		if made[name] == nil {
			return nil, n.errorf("reads %q, which no earlier layer makes", name)
		}
	}
	in := made[n.In[0]]
	if n.Op != Add {
		return in, nil
	}
	if n.In[0] == n.In[1] {
		return nil, n.errorf("adds %q to itself; name two different tensors", n.In[0])
	}
	if other := made[n.In[1]]; !slices.Equal(in, other) {
		return nil, n.errorf("%q has shape %v and %q has %v; a sum needs equal shapes: bring one branch to the other's with a 1x1 conv and its stride", n.In[0], []int(in), n.In[1], []int(other))
	}
	return in, nil
}

func (n *Node) outShape(in Shape) (Shape, error) {
	a := n.Attr
	if !(a.Cap >= 0) || !finite(a.Cap) {
		return nil, n.errorf("cap %v must be finite and positive, or 0 for none", a.Cap)
	}
	if !(a.Dropout >= 0 && a.Dropout < 1) {
		return nil, n.errorf("dropout %v must be in [0, 1)", a.Dropout)
	}
	if a.Dropout > 0 && !n.Op.HasWeight() {
		return nil, n.errorf("dropout is of the input of conv and dense layers")
	}
	switch n.Op {
	case Dense:
		if len(in) != 1 {
			return nil, n.errorf("input has shape %v; put a flatten layer before it", in)
		}
		if a.Units < 1 {
			return nil, n.errorf("units is %d; it must be at least 1", a.Units)
		}
		return Shape{a.Units}, nil
	case Conv, MaxPool:
		if len(in) != 3 {
			return nil, n.errorf("input has shape %v; it needs height, width and channels", in)
		}
		channels := in[2]
		if n.Op == Conv {
			channels = a.Units
			if a.Units < 1 || a.Groups < 1 || in[2]%a.Groups != 0 || a.Units%a.Groups != 0 {
				return nil, n.errorf("%d input channels, %d filters and %d groups do not fit: both must be multiples of the groups", in[2], a.Units, a.Groups)
			}
		}
		h, err := n.window(0, in[0], a.Pad[0], a.Pad[2])
		if err != nil {
			return nil, err
		}
		w, err := n.window(1, in[1], a.Pad[1], a.Pad[3])
		if err != nil {
			return nil, err
		}
		return Shape{h, w, channels}, nil
	case BatchNorm:
		if !(a.Eps > 0) || !(a.Momentum > 0 && a.Momentum <= 1) {
			return nil, n.errorf("eps %v must be positive and momentum %v in (0, 1]", a.Eps, a.Momentum)
		}
		if a.Whole && len(in) != 1 {
			return nil, n.errorf("norm over the whole tensor is for dense layers, and the input has shape %v; use norm: batch", []int(in))
		}
		return slices.Clone(in), nil
	case ReLU, Add:
		return slices.Clone(in), nil
	case GlobalAvgPool:
		if len(in) != 3 {
			return nil, n.errorf("input has shape %v; it needs height, width and channels", in)
		}
		if in[0] > maxMeanCells/in[1] {
			return nil, n.errorf("the mean of %dx%d cells could leave 32 bits; at most %d are supported", in[0], in[1], maxMeanCells)
		}
		return Shape{in[2]}, nil
	case Flatten:
		return Shape{in.Size()}, nil
	}
	return nil, n.errorf("unknown operation")
}

// maxPoolCells bounds a pooling window: training remembers the place of each maximum in one byte.
const maxPoolCells = 254

// maxMeanCells bounds global average pooling: the sum of so many differences of two bytes fits an int32.
const maxMeanCells = math.MaxInt32 / 255

// window is the number of positions of a window along one axis: floor((extent+pad-kernel)/stride) + 1.
func (n *Node) window(axis, extent, before, after int) (int, error) {
	k, s := n.Attr.Kernel[axis], n.Attr.Stride[axis]
	if k < 1 || s < 1 || before < 0 || after < 0 {
		return 0, n.errorf("kernel %d and stride %d must be at least 1, padding %d,%d at least 0", k, s, before, after)
	}
	if n.Op == MaxPool && (before >= k || after >= k) {
		return 0, n.errorf("padding %d,%d must be smaller than the window %d", before, after, k)
	}
	if cells := n.Attr.Kernel[0] * n.Attr.Kernel[1]; n.Op == MaxPool && cells > maxPoolCells {
		return 0, n.errorf("a window of %d cells; max-pool supports at most %d", cells, maxPoolCells)
	}
	if extent+before+after < k {
		return 0, n.errorf("kernel %d is larger than the padded input %d", k, extent+before+after)
	}
	return (extent+before+after-k)/s + 1, nil
}

// shaped reports a node that [Shapes] has not seen; the later passes rely on what it checks.
func (m *Model) shaped() error {
	for i := range m.Nodes {
		if n := &m.Nodes[i]; n.Shape == nil || len(n.In) != n.Op.Inputs() {
			return n.errorf("has no shape yet: run Shapes first")
		}
	}
	return nil
}

// paramShapes lists the parameters of a node in a Float or Quantized model.
func (n *Node) paramShapes(in Shape) map[string]Shape {
	out := map[string]Shape{}
	a := n.Attr
	switch n.Op {
	case Conv:
		out[Weight] = Shape{a.Kernel[0], a.Kernel[1], in[2] / a.Groups, a.Units}
	case Dense:
		out[Weight] = Shape{in[0], a.Units}
	case BatchNorm:
		for _, role := range []string{Gamma, Beta, Mean, Var} {
			out[role] = Shape{n.statistics(in.Channels())}
		}
	}
	if n.Op.HasWeight() {
		if a.Bias {
			out[Bias] = Shape{a.Units}
		}
		if a.Norm {
			for _, role := range []string{Gamma, Beta, Mean, Var} {
				out[role] = Shape{n.statistics(a.Units)}
			}
		}
	}
	return out
}

// statistics is how many means and variances a batch norm of so many channels has.
func (n *Node) statistics(channels int) int {
	if n.Attr.Whole {
		return 1
	}
	return channels
}

func (m *Model) ensureParams(n *Node, in Shape, owner map[string]*Node) error {
	shapes := n.paramShapes(in)
	for _, role := range slices.Sorted(maps.Keys(shapes)) {
		name, shape := n.Param(role), shapes[role]
		if other := owner[name]; other != nil {
			return n.errorf("parameter %q is that of tensor %q already; give the layers different names", name, other.Name)
		}
		owner[name] = n
		if p := m.Params[name]; p != nil {
			if !slices.Equal(p.Shape, shape) {
				return n.errorf("parameter %q has shape %v, the layer needs %v", name, p.Shape, shape)
			}
			if len(p.Data) != shape.Size() {
				return n.errorf("parameter %q has %d float32 values, its shape %v has %d", name, len(p.Data), shape, shape.Size())
			}
			continue
		}
		p := &Param{Shape: shape, Data: make([]float32, shape.Size())}
		if role == Gamma || role == Var {
			for i := range p.Data {
				p.Data[i] = 1
			}
		}
		m.Params[name] = p
	}
	return nil
}
