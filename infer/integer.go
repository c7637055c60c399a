package infer

import (
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// integerLayer is a conv or dense layer on codes (class I of docs/arithmetic.md).
type integerLayer struct {
	in, out *tensor
	dense   bool
	geom    kernel.ConvGeom
	zero    uint8 // z_x
	weight  *kernel.PackedS8
	bias    []int32 // q_b - z_x * sum w
	rq      *quant.Requant
	relu    bool // on float32 logits; codes have it in rq.Lo
}

func newIntegerLayer(m *model.Model, n *model.Node, in, out *tensor) (op, error) {
	l := &integerLayer{in: in, out: out, dense: n.Op == model.Dense, geom: convGeom(n, in), rq: n.Requant, relu: n.Attr.Relu}
	if err := l.geom.Check(); err != nil {
		return nil, err
	}
	z := in.params.Zero[0]
	l.zero = uint8(z)
	l.weight = kernel.PackConvS8(m.Params[n.Param(model.Weight)].Codes, l.geom)
	// Sums over q rather than q-z may leave 32 bits, and so may this difference, but their sum is the accumulator, which
	// model.Validate bounds: two's complement wraps back.
	l.bias = make([]int32, l.geom.Cout)
	for c, b := range m.Params[n.Param(model.Bias)].Int32 {
		l.bias[c] = b - z*l.weight.ColSums[c]
	}
	return l, nil
}

func (l *integerLayer) run(w *worker, n int) error {
	if !l.rq.Float && !l.rq.Sign && fused && !w.trace {
		l.requantize(w.codes(l.out, n), w.codes(l.in, n), n, &w.scratch)
		return nil
	}
	acc := w.accumulators(n * l.out.size)
	l.accumulate(acc, w.codes(l.in, n), n, &w.scratch)
	bias := l.bias
	if w.trace {
		addBias(acc, bias) // so that the visitor sees whole accumulators
		bias = nil
	}
	if l.rq.Sign {
		kernel.RequantSign(w.codes(l.out, n), acc, bias, l.geom.Cout)
		return nil
	}
	if !l.rq.Float {
		requantRows(w.codes(l.out, n), acc, bias, l.rq)
		return nil
	}
	y := w.values(l.out, n)
	kernel.ScaleRows(y, acc, bias, l.rq.M, l.geom.Cout)
	if l.relu {
		kernel.ReLU(y, y)
	}
	return nil
}

// accumulate computes the sums of q*w, without the bias.
func (l *integerLayer) accumulate(acc []int32, x []uint8, n int, s *kernel.Scratch) {
	if l.dense {
		kernel.GemmU8S8(acc, l.geom.Cout, x, l.geom.Cin, l.weight, n, s)
		return
	}
	kernel.ConvU8S8(acc, x, l.zero, l.weight, n, l.geom, s)
}

// requantize is accumulate and requantRows in one.
func (l *integerLayer) requantize(dst, x []uint8, n int, s *kernel.Scratch) {
	r := l.rq
	if l.dense {
		kernel.GemmU8S8Requant(dst, x, l.geom.Cin, l.weight, l.bias, r.M, r.Zero, r.Lo, r.Hi, n, s)
		return
	}
	kernel.ConvU8S8Requant(dst, x, l.zero, l.weight, l.bias, r.M, r.Zero, r.Lo, r.Hi, n, l.geom, s)
}

func (l *integerLayer) kernel() string {
	name := "u8 x s8 convolution"
	if l.dense {
		name = "u8 x s8 matrix product"
	}
	switch {
	case l.rq.Float:
		return name + ", scaled to float32"
	case l.rq.Sign:
		return name + ", signs"
	case fused:
		return name + ", requantized in place"
	}
	return name + ", requantized after"
}

// inputCodes looks up the codes of an input whose quantizer is not the grid of its bytes.
type inputCodes struct {
	out   *tensor
	table *[256]uint8
}

func (o *inputCodes) run(w *worker, n int) error {
	codes := w.codes(o.out, n)
	for i, p := range w.x[:len(codes)] {
		codes[i] = o.table[p]
	}
	return nil
}

func (o *inputCodes) kernel() string { return "codes of bytes, by table" }

func addBias(acc, bias []int32) {
	for ; len(acc) > 0; acc = acc[len(bias):] {
		for c, b := range bias {
			acc[c] += b
		}
	}
}
