package eval

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// addSums adds a bias to the sums of a matrix product, or two quantized tensors.
func addSums(c *call, args []meaning) (meaning, error) {
	if len(args) != 2 {
		return nil, fmt.Errorf("%w: %d inputs", ErrModel, len(args))
	}
	for i, a := range args {
		if p, is := a.(*pending); is {
			if c.node.Op != "Add" || p.relu || len(p.terms) != 1 || len(p.shape) == 0 {
				return nil, refuse("input %d is a sum that no QuantizeLinear has rounded", i)
			}
			channels := p.shape[len(p.shape)-1]
			bias, err := biasSums(args, 1-i, channels, p.terms[0].unit)
			if err != nil {
				return nil, err
			}
			t := p.terms[0]
			if t.inner != 1 || t.cells != nil || t.owner != nil || bias == nil {
				return nil, refuse("a bias along the last axis for channels along another")
			}
			t.sum = append([]int64{}, t.sum...)
			for k := range t.sum {
				t.sum[k] += bias[k%channels]
				if t.sum[k] < math.MinInt32 || t.sum[k] > math.MaxInt32 {
					return nil, refuse("the sum %d of channel %d leaves int32", t.sum[k], k%channels)
				}
			}
			return &pending{shape: p.shape, terms: []term{t}}, nil
		}
	}
	a, err := operand(args, 0, false)
	if err != nil {
		return nil, err
	}
	b, err := operand(args, 1, false)
	if err != nil {
		return nil, err
	}
	shape, sa, sb, err := aligned(a, b)
	if err != nil {
		return nil, err
	}
	return &pending{shape: shape, terms: []term{
		{sum: sa, unit: a.scale, inner: 1},
		{sum: sb, unit: b.scale, inner: 1, minus: c.node.Op == "Sub"},
	}}, nil
}

// aligned broadcasts two tensors of codes, centred.
func aligned(a, b *dequant) (shape []int, sa, sb []int64, err error) {
	if shape, err = broadcast(a.codes.Shape, b.codes.Shape); err != nil {
		return nil, nil, nil, err
	}
	if err = checkSize(shape); err != nil {
		return nil, nil, nil, err
	}
	spread := func(d *dequant) []int64 {
		from := d.centred()
		if len(from) == count(shape) {
			return from
		}
		out := make([]int64, count(shape))
		walk(shape, d.codes.Shape, func(i, j int) { out[i] = from[j] })
		return out
	}
	return shape, spread(a), spread(b), nil
}

// mulSums is the product of two quantized tensors: one sum in units of f32(s_a * s_b).
func mulSums(args []meaning) (meaning, error) {
	a, err := factor(args, 0, false)
	if err != nil {
		return nil, err
	}
	b, err := factor(args, 1, false)
	if err != nil {
		return nil, err
	}
	shape, sa, sb, err := aligned(a, b)
	if err != nil {
		return nil, err
	}
	for i := range sa {
		sa[i] *= sb[i]
	}
	return &pending{shape: shape, terms: []term{{sum: sa, unit: units(a, b), inner: 1}}}, nil
}

// meanSums adds up the real cells of each window.
func meanSums(c *call, args []meaning) (meaning, error) {
	x, err := factor(args, 0, false)
	if err != nil {
		return nil, err
	}
	q := x.centred()
	if c.node.Op == "GlobalAveragePool" {
		if len(x.codes.Shape) < 3 || count(x.codes.Shape[2:]) == 0 {
			return nil, fmt.Errorf("%w: a pool over %v", ErrModel, x.codes.Shape)
		}
		shape, n := globalShape(x.codes.Shape), count(x.codes.Shape[2:])
		sum := make([]int64, count(shape))
		for i, v := range q {
			sum[i/n] += v
		}
		return &pending{shape: shape, terms: []term{{sum: sum, unit: x.scale, inner: 1, cells: []int{n}}}}, nil
	}
	if c.int("count_include_pad", 0) != 0 {
		return nil, refuse("count_include_pad: the mean is over real cells")
	}
	s, n, err := poolSums(c, x.codes.Shape, func(plane, i int) int64 { return q[plane+i] })
	if err != nil {
		return nil, err
	}
	return &pending{shape: s.shape, terms: []term{{sum: s.at, unit: x.scale, inner: 1, cells: n}}}, nil
}

// concatSums joins quantized tensors; each keeps the scale it comes with until the common QuantizeLinear.
func concatSums(c *call, args []meaning) (meaning, error) {
	var unit []float32
	var codes []*Tensor
	var at []*Tensor
	for i := range args {
		d, err := operand(args, i, false)
		if err != nil {
			return nil, err
		}
		t := Tensor{Type: onnxpb.Int64, Shape: d.codes.Shape, Ints: d.centred()}
		from := Tensor{Type: onnxpb.Int64, Shape: d.codes.Shape, Ints: make([]int64, t.Len())}
		for k := range from.Ints {
			from.Ints[k] = int64(i)
		}
		codes, at, unit = append(codes, &t), append(at, &from), append(unit, d.scale[0])
	}
	joined, err := concat(&call{node: c.node, opset: c.opset, in: codes})
	if err != nil {
		return nil, err
	}
	owner, err := concat(&call{node: c.node, opset: c.opset, in: at})
	if err != nil {
		return nil, err
	}
	return &pending{shape: joined[0].Shape, terms: []term{{sum: joined[0].Ints, unit: unit, owner: owner[0].Ints, inner: 1}}}, nil
}
