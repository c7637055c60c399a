package infer

import (
	"fmt"
	"slices"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// inputValues turns bytes into the values they stand for.
type inputValues struct {
	out   *tensor
	scale [1]float32
	zero  int32
}

// newInputValues refuses an input of which a byte's value is no 16-bit number.
func newInputValues(in *model.Input, out *tensor) (op, error) {
	o := &inputValues{out: out, scale: [1]float32{in.Scale}, zero: in.Zero}
	var codes [256]uint8
	var values [256]float32
	for p := range codes {
		codes[p] = uint8(p)
	}
	kernel.DequantizeU8(values[:], codes[:], o.scale[:], o.zero)
	return o, quant.Round16(values[:], values[:], storeFormat(out))
}

func (o *inputValues) run(w *worker, n int) error {
	y := w.values(o.out, n)
	kernel.DequantizeU8(y, w.x[:len(y)], o.scale[:], o.zero)
	return o.out.store("input", y, activation{}, w.first)
}

func (o *inputValues) kernel() string { return "scale of the byte" + stored(o.out) }

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
	half     []uint16 // the same in 16 bits, when the model has them
	format   kernel.Rounding
	stored   quant.Format // of weights that were codes; else 0
	mul, add []float32    // y = float32(mul*v) + add; nil where there is neither batch norm nor bias
	after    activation
}

func newFloatLayer(m *model.Model, n *model.Node, in, out *tensor) (op, error) {
	l := &floatLayer{
		in: in, out: out, name: fmt.Sprintf("%s %q", n.Op, n.Layer), dense: n.Op == model.Dense,
		geom: convGeom(n, in), after: activationOf(n),
	}
	w := m.Params[n.Param(model.Weight)]
	l.weight = w.Data
	if w.Codes != nil {
		q := m.Quant[n.Param(model.Weight)]
		l.stored, l.weight = q.Spec.Format, make([]float32, len(w.Codes))
		if err := quant.Dequantize(l.weight, w.Codes, q); err != nil {
			return nil, err
		}
	}
	if w.Half != nil {
		format := m.Quant[n.Param(model.Weight)].Spec.Format
		l.half, l.format = w.Half, rounding16(format)
		l.weight = make([]float32, len(w.Half))
		for i, bits := range w.Half {
			l.weight[i] = quant.Decode16(bits, format)
		}
	}
	switch {
	case n.Attr.Norm:
		l.mul, l.add = m.Params[n.Param(model.NormMul)].Data, m.Params[n.Param(model.NormAdd)].Data
	case n.Attr.Bias:
		l.mul, l.add = slices.Repeat([]float32{1}, n.Attr.Units), m.Params[n.Param(model.Bias)].Data
	}
	l.mul, l.add = severalRows(l.mul), severalRows(l.add)
	return l, l.geom.Check()
}

func (l *floatLayer) run(w *worker, n int) error {
	x, y := w.values(l.in, n), w.values(l.out, n)
	switch c := l.geom.Cout; {
	case l.dense && n == 1:
		kernel.GemmRow(y, x, l.weight, l.half, l.format, c, l.geom.Cin, &w.scratch)
	case l.dense:
		kernel.Gemm(y, c, x, l.geom.Cin, false, l.weight, c, false, n, c, l.geom.Cin, false, &w.scratch)
	default:
		kernel.ConvForward(y, x, l.weight, nil, n, l.geom, &w.scratch)
	}
	return l.out.finish(l.name, y, l.mul, l.add, l.after, w.first)
}

func (l *floatLayer) kernel() string {
	name := "float32 convolution"
	if l.dense {
		name = "float32 matrix product"
	}
	if l.stored != 0 {
		name += ", weights from " + l.stored.String()
	}
	return name + stored(l.out)
}

// severalRows is one number per channel repeated to the length that kernel.ScaleShift likes best, unless that is long.
func severalRows(v []float32) []float32 {
	const best, long = 64, 4096
	n := len(v)
	if n == 0 || n > long {
		return v
	}
	for n%best != 0 {
		n *= 2
	}
	return slices.Repeat(v, n/len(v))
}
