package infer

import (
	"fmt"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Codes of 16 bits live in the buffers of float32, which holds each of them exactly: pools, flatten and ReLU are those of
// values. The operations here read codes of either width as q - z and write either.

// wide reports whether the tensor holds 16-bit codes.
func (t *tensor) wide() bool { return t.params != nil && t.params.Spec.Format == quant.Int16 }

// centred is q - z of n examples.
func (w *worker) centred(t *tensor, n int) []int16 {
	if cap(w.wide) < n*t.size {
		w.wide = make([]int16, n*t.size)
	}
	out := w.wide[:n*t.size]
	if t.wide() {
		for i, q := range w.values(t, n) {
			out[i] = int16(q)
		}
		return out
	}
	z := int16(t.params.Zero[0])
	for i, q := range w.codes(t, n) {
		out[i] = int16(q) - z
	}
	return out
}

// writer stores codes of n examples of a tensor.
func (w *worker) writer(t *tensor, n int) func(i int, q int32) {
	if t.wide() {
		y := w.values(t, n)
		return func(i int, q int32) { y[i] = float32(q) }
	}
	y := w.codes(t, n)
	return func(i int, q int32) { y[i] = uint8(q) }
}

// wideLayer is a conv or dense layer with 64-bit accumulators.
type wideLayer struct {
	in, out *tensor
	dense   bool
	geom    kernel.ConvGeom
	weight  []int16
	bias    []int32
	rq      *quant.Requant
	relu    bool // on float32 logits
}

func newWideLayer(m *model.Model, n *model.Node, in, out *tensor) (op, error) {
	l := &wideLayer{
		in: in, out: out, dense: n.Op == model.Dense, geom: convGeom(n, in), weight: m.Params[n.Param(model.Weight)].Wide(),
		bias: m.Params[n.Param(model.Bias)].Int32, rq: n.Requant, relu: n.Attr.Relu,
	}
	return l, l.geom.Check()
}

func (l *wideLayer) run(w *worker, n int) error {
	if cap(w.acc64) < n*l.out.size {
		w.acc64 = make([]int64, n*l.out.size)
	}
	acc := w.acc64[:n*l.out.size]
	kernel.ConvWide(acc, w.centred(l.in, n), l.weight, n, l.geom)
	c := len(l.bias)
	if l.rq.Float {
		y := w.values(l.out, n)
		for i, a := range acc {
			y[i] = quant.Mul32(float32(a+int64(l.bias[i%c])), l.rq.M[i%c])
		}
		if l.relu {
			kernel.ReLU(y, y)
		}
		return nil
	}
	write := w.writer(l.out, n)
	for i, a := range acc {
		write(i, l.rq.Round(quant.Mul32(float32(a+int64(l.bias[i%c])), l.rq.M[i%c])))
	}
	return nil
}

func (l *wideLayer) kernel() string {
	name := "16-bit convolution"
	if l.dense {
		name = "16-bit matrix product"
	}
	if l.rq.Float {
		return name + " in 64 bits, scaled to float32"
	}
	return name + " in 64 bits, requantized after"
}

// wideAddition is a sum of codes of which some have 16 bits.
type wideAddition struct {
	a, b, out *tensor
	rq        *quant.Requant
}

func (o *wideAddition) run(w *worker, n int) error {
	t := make([]float32, n*o.out.size)
	for i, q := range w.centred(o.a, n) {
		t[i] = quant.Mul32(float32(q), o.rq.M[0])
	}
	write := w.writer(o.out, n)
	for i, q := range w.centred(o.b, n) {
		write(i, o.rq.Round(t[i]+quant.Mul32(float32(q), o.rq.M[1])))
	}
	return nil
}

func (o *wideAddition) kernel() string { return "sum of 16-bit codes, requantized" }

// wideAvg is a mean over height and width where codes have 16 bits.
type wideAvg struct {
	in, out         *tensor
	cells, channels int
	rq              *quant.Requant
}

func (o *wideAvg) run(w *worker, n int) error {
	x, write := w.centred(o.in, n), w.writer(o.out, n)
	sums := make([]int64, n*o.channels)
	for i, q := range x {
		sums[i/(o.cells*o.channels)*o.channels+i%o.channels] += int64(q)
	}
	for i, s := range sums {
		write(i, o.rq.Round(quant.Mul32(float32(s), o.rq.M[0])))
	}
	return nil
}

func (o *wideAvg) kernel() string { return "mean of 16-bit codes, requantized" }

// newWide chooses the operation of a node that reads or writes 16-bit codes and computes on them; nil for the others.
func newWide(m *model.Model, n *model.Node, in, other, out *tensor) (op, error) {
	if !m.Wide(n) || n.Requant == nil {
		return nil, nil
	}
	switch n.Op {
	case model.Conv, model.Dense:
		return newWideLayer(m, n, in, out)
	case model.Add:
		return &wideAddition{a: in, b: other, out: out, rq: n.Requant}, nil
	case model.GlobalAvgPool:
		return &wideAvg{in: in, out: out, cells: in.shape[0] * in.shape[1], channels: in.shape[2], rq: n.Requant}, nil
	}
	return nil, fmt.Errorf("%s has no 16-bit form", n.Op)
}
