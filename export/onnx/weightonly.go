package onnx

import (
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// weightValues stores the codes of a weight-only layer with their scales and dequantizes them: the layer multiplies reals.
func (b *builder) weightValues(n *model.Node) (string, error) {
	name := n.Param(model.Weight)
	p, q := b.m.Params[name], b.m.Quant[name]
	if q.Spec.Per == quant.PerGroup {
		return b.groupValues(n, p, q)
	}
	codes, dims := outputMajor(b, n, p.Codes, p.Shape)
	scaleDims := []int64{int64(len(q.Scale))}
	if q.Spec.Per == quant.PerTensor {
		scaleDims = nil
	}
	return dequantized(b, name, codes, dims, q.Scale, scaleDims)
}

// dequantized stores codes and scales, per tensor or for each index of the first axis, and multiplies them.
func dequantized[T int8 | int16](b *builder, name string, codes []T, dims []int64, scale []float32, scaleDims []int64) (string, error) {
	typ := b.weightType(b.m.Quant[name])
	stored, err := onnxpb.IntTensor(b.fresh(name), typ, dims, codes)
	if err != nil {
		return "", err
	}
	s, err := onnxpb.FloatTensor(b.fresh(name+"_scale"), onnxpb.Float, scaleDims, scale)
	if err != nil {
		return "", err
	}
	zero, err := onnxpb.IntTensor(b.fresh(name+"_zero"), typ, scaleDims, make([]int8, len(scale)))
	if err != nil {
		return "", err
	}
	return b.add("DequantizeLinear", b.fresh(name+"_dq"),
		[]string{b.initializer(stored), b.initializer(s), b.initializer(zero)}, onnxpb.IntAttr("axis", 0)), nil
}

// groupValues writes groups as rows of their own, [C*groups, G], so that one scale per row serves and no opset with blocked
// DequantizeLinear is needed; a Reshape and a Transpose bring the values into the operator's order. A last group that is
// shorter is filled up with zeros, which a Slice takes away again.
func (b *builder) groupValues(n *model.Node, p *model.Param, q *quant.Params) (string, error) {
	name := n.Param(model.Weight)
	c, size := n.Attr.Units, q.Spec.Group
	rows, groups := len(p.Codes)/c, len(q.Scale)/c
	codes, scale := make([]int8, c*groups*size), make([]float32, c*groups)
	for i, code := range p.Codes {
		codes[i%c*groups*size+i/c] = code
	}
	for i, s := range q.Scale {
		scale[i%c*groups+i/c] = s
	}
	at, err := dequantized(b, name, codes, []int64{int64(c * groups), int64(size)}, scale, []int64{int64(c * groups)})
	if err != nil {
		return "", err
	}
	if rows < groups*size {
		if at, err = b.reshaped(name, at, int64(c), int64(groups*size)); err != nil {
			return "", err
		}
		in := []string{at}
		for i, v := range []int64{0, int64(rows), 1} {
			limit, err := b.integers(name+[]string{"_start", "_end", "_axis"}[i], v)
			if err != nil {
				return "", err
			}
			in = append(in, limit)
		}
		at = b.add("Slice", b.fresh(name+"_rows"), in)
	}
	image, flat := b.images[n.In[0]]
	switch {
	case n.Op == model.Conv:
		image = model.Shape{p.Shape[0], p.Shape[1], p.Shape[2]}
	case !flat:
		return b.reshaped(name, at, int64(c), int64(rows))
	}
	if at, err = b.reshaped(name, at, int64(c), int64(image[0]), int64(image[1]), int64(image[2])); err != nil {
		return "", err
	}
	at = b.add("Transpose", b.fresh(name+"_outputs"), []string{at}, onnxpb.IntsAttr("perm", 0, 3, 1, 2))
	if n.Op == model.Conv {
		return at, nil
	}
	return b.reshaped(name, at, int64(c), int64(rows))
}

func (b *builder) reshaped(name, in string, shape ...int64) (string, error) {
	dims, err := b.integers(name+"_shape", shape...)
	if err != nil {
		return "", err
	}
	return b.add("Reshape", b.fresh(name+"_shaped"), []string{in, dims}), nil
}

// integers stores a list of int64, as shapes and axes are.
func (b *builder) integers(name string, v ...int64) (string, error) {
	t, err := onnxpb.IntTensor(b.fresh(name), onnxpb.Int64, []int64{int64(len(v))}, v)
	if err != nil {
		return "", err
	}
	return b.initializer(t), nil
}

// weightType is the element type of weight codes.
func (b *builder) weightType(q *quant.Params) onnxpb.DataType {
	if q.Spec.Format == quant.Int16 {
		return onnxpb.Int16
	}
	if lo, hi := q.Spec.Grid(); b.options.PackInt4 && lo >= -8 && hi <= 7 {
		return onnxpb.Int4
	}
	return onnxpb.Int8
}
