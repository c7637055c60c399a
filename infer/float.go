package infer

import (
	"fmt"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// inputValues turns bytes into the float32 values they stand for, through a table.
type inputValues struct {
	out   *tensor
	table [256]float32
}

func newInputValues(in *model.Input, out *tensor) (op, error) {
	o := &inputValues{out: out}
	for p := range o.table {
		o.table[p] = in.Scale * float32(int32(p)-in.Zero)
	}
	return o, quant.Round16(o.table[:], o.table[:], storeFormat(out))
}

func (o *inputValues) run(w *worker, n int) error {
	y := w.values(o.out, n)
	for i, p := range w.x[:len(y)] {
		y[i] = o.table[p]
	}
	return nil
}

func (o *inputValues) kernel() string { return "table of the byte's value" }

// storeFormat is the format that a float tensor's values are rounded to when they are stored.
func storeFormat(t *tensor) quant.Format {
	if t.params == nil {
		return quant.FP32
	}
	return t.params.Spec.Format
}

// floatLayer is a conv or dense layer in float32, with 16-bit rounding of what it stores where the model says so.
type floatLayer struct {
	in, out  *tensor
	name     string
	dense    bool
	geom     kernel.ConvGeom
	weight   []float32
	mul, add []float32 // y = float32(mul*v) + add; mul may be nil, and add too
	after    activation
}

func newFloatLayer(m *model.Model, n *model.Node, in, out *tensor) (op, error) {
	l := &floatLayer{
		in: in, out: out, name: fmt.Sprintf("%s %q", n.Op, n.Layer), dense: n.Op == model.Dense,
		geom: convGeom(n, in), after: activationOf(n),
	}
	w := m.Params[n.Param(model.Weight)]
	l.weight = w.Data
	if w.Half != nil {
		format := m.Quant[n.Param(model.Weight)].Spec.Format
		l.weight = make([]float32, len(w.Half))
		for i, bits := range w.Half {
			l.weight[i] = quant.Decode16(bits, format)
		}
	}
	switch {
	case n.Attr.Norm:
		l.mul, l.add = m.Params[n.Param(model.NormMul)].Data, m.Params[n.Param(model.NormAdd)].Data
	case n.Attr.Bias:
		l.add = m.Params[n.Param(model.Bias)].Data
	}
	return l, l.geom.Check()
}

func (l *floatLayer) run(w *worker, n int) error {
	x, y := w.values(l.in, n), w.values(l.out, n)
	if c := l.geom.Cout; l.dense {
		kernel.Gemm(y, c, x, l.geom.Cin, false, l.weight, c, false, n, c, l.geom.Cin, false, &w.scratch)
	} else {
		kernel.ConvForward(y, x, l.weight, nil, n, l.geom, &w.scratch)
	}
	if l.mul != nil {
		scaleColumns(y, l.mul)
	}
	switch {
	case l.add != nil && l.after == activation{relu: true}:
		kernel.AddBiasReLU(y, y, l.add, l.geom.Cout)
	case l.add != nil:
		kernel.AddBias(y, y, l.add, l.geom.Cout)
		l.after.apply(y)
	default:
		l.after.apply(y)
	}
	return l.out.store(l.name, y, w.first)
}

func (l *floatLayer) kernel() string {
	name := "float32 convolution"
	if l.dense {
		name = "float32 matrix product"
	}
	return name + stored(l.out)
}

// scaleColumns writes y = mul*y along the last axis.
func scaleColumns(y, mul []float32) {
	for ; len(y) >= len(mul); y = y[len(mul):] {
		row, m := y[:len(mul)], mul
		for len(row) >= 4 && len(m) >= 4 { // four at a time: batch norm costs as much as a convolution otherwise
			row[0] *= m[0]
			row[1] *= m[1]
			row[2] *= m[2]
			row[3] *= m[3]
			row, m = row[4:], m[4:]
		}
		for c, f := range m {
			row[c] *= f
		}
	}
}
