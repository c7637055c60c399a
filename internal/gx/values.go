package gx

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// NewTensor is a zeroed float32 tensor.
func NewTensor(shape ...int) *tensor.Dense {
	return tensor.New(tensor.Of(tensor.Float32), tensor.WithShape(shape...))
}

// Wrap is a float32 tensor over data, without a copy.
func Wrap(data []float32, shape ...int) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
}

// Leaf adds an input node that holds v. The value is not copied: whoever changes its memory changes the input.
func Leaf(g *G.ExprGraph, name string, v G.Value) (n *G.Node, err error) {
	defer recovered(&err, name)
	shape := v.Shape()
	n = G.NewTensor(g, v.Dtype(), shape.Dims(), G.WithShape(shape...), G.WithName(name))
	if err := G.Let(n, v); err != nil {
		return nil, fmt.Errorf("input %s: %w", name, err)
	}
	return n, nil
}

// Floats is the memory of a float32 value: a tensor's elements or the one element of a scalar. Other values are an error.
func Floats(v G.Value) ([]float32, error) {
	if d, ok := v.(*tensor.Dense); ok && d != nil && d.Dtype() == tensor.Float32 {
		return d.Float32s(), nil // Data makes its slice by reflection
	}
	if v != nil {
		switch d := v.Data().(type) {
		case []float32:
			return d, nil
		case float32:
			return []float32{d}, nil
		}
	}
	return nil, fmt.Errorf("needs float32 values, has %T", v)
}

// Watched is a node whose value survives the run; see [Watch].
type Watched struct{ value G.Value }

// Watch keeps a copy of n's value at each run. It is the only way to look at an intermediate node: after a run a node
// may hold what a later op wrote into its memory. Call it before NewMachine; n must be a float tensor or scalar.
func Watch(n *G.Node) *Watched {
	w := new(Watched)
	G.Read(n, &w.value)
	return w
}

// Values copies out what the last run computed; it is an error before the first.
func (w *Watched) Values() ([]float32, error) {
	if w.value == nil {
		return nil, fmt.Errorf("watched node has not run yet")
	}
	v, err := Floats(w.value)
	return append([]float32(nil), v...), err
}
