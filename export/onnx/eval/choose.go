package eval

import (
	"fmt"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// atLeast is GreaterOrEqual of a tensor with one number.
func atLeast(c *call) ([]Tensor, error) {
	a, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	b, err := c.arg(1)
	if err != nil {
		return nil, err
	}
	if a.Type != b.Type || b.Len() != 1 || len(b.Shape) > len(a.Shape) {
		return nil, fmt.Errorf("%w: %v%v compared with %v%v; one number of the same type can be", ErrUnsupported, a.Type, a.Shape, b.Type, b.Shape)
	}
	out, err := newTensor(onnxpb.Bool, a.Shape)
	if err != nil {
		return nil, err
	}
	for i := range out.Ints {
		if a.IsReal() && a.Reals[i] >= b.Reals[0] || !a.IsReal() && a.Ints[i] >= b.Ints[0] {
			out.Ints[i] = 1
		}
	}
	return one(out, nil)
}

// where picks each element from the second input where the first is true, else from the third; both have the shape of the
// first, or one element.
func where(c *call) ([]Tensor, error) {
	cond, err := c.arg(0)
	if err != nil {
		return nil, err
	}
	if cond.Type != onnxpb.Bool {
		return nil, fmt.Errorf("%w: condition of type %v", ErrModel, cond.Type)
	}
	var from [2]*Tensor // if false, if true
	for i := range from {
		t, err := c.arg(2 - i)
		if err != nil {
			return nil, err
		}
		if t.Len() != 1 && !sameShape(t.Shape, cond.Shape) || len(t.Shape) > len(cond.Shape) {
			return nil, fmt.Errorf("%w: a choice of shape %v for conditions %v", ErrUnsupported, t.Shape, cond.Shape)
		}
		from[i] = t
	}
	if from[0].Type != from[1].Type {
		return nil, fmt.Errorf("%w: a choice between %v and %v", ErrModel, from[0].Type, from[1].Type)
	}
	out, err := newTensor(from[0].Type, cond.Shape)
	if err != nil {
		return nil, err
	}
	for i, yes := range cond.Ints {
		t := from[yes]
		at := i % t.Len()
		if out.IsReal() {
			out.Reals[i] = t.Reals[at]
		} else {
			out.Ints[i] = t.Ints[at]
		}
	}
	return one(out, nil)
}

func sameShape(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i, n := range a {
		if n != b[i] {
			return false
		}
	}
	return true
}

// signs is GreaterOrEqual with 0 of the sums of one layer: the real number that a sum stands for has its sign.
func signs(args []meaning) (meaning, error) {
	p, is := args[0].(*pending)
	zero, err := constantArg(args, 1)
	if err != nil {
		return nil, err
	}
	if !is || len(p.terms) != 1 || p.relu {
		return nil, refuse("it compares what is not the sums of one layer")
	}
	if zero == nil || !zero.IsReal() || zero.Len() != 1 || zero.Reals[0] != 0 {
		return nil, refuse("it compares sums with something else than 0")
	}
	out, err := newTensor(onnxpb.Bool, p.shape)
	if err != nil {
		return nil, err
	}
	for i, v := range p.terms[0].sum {
		if v >= 0 {
			out.Ints[i] = 1
		}
	}
	return plain{out}, nil
}
