package infer

import (
	"fmt"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// addition is the sum of two tensors of one shape: of codes by its requantization, of values in float32.
type addition struct {
	a, b, out *tensor
	name      string
	rq        *quant.Requant // nil for values
	after     activation
}

func newAddition(n *model.Node, a, b, out *tensor) op {
	return &addition{a: a, b: b, out: out, name: fmt.Sprintf("%s %q", n.Op, n.Layer), rq: n.Requant, after: activationOf(n)}
}

func (o *addition) run(w *worker, n int) error {
	if r := o.rq; r != nil {
		kernel.AddRequant(w.codes(o.out, n), w.term(o.a, r.M[0], n), w.term(o.b, r.M[1], n), r.Zero, r.Lo, r.Hi)
		return nil
	}
	y := w.values(o.out, n)
	kernel.Add(y, w.values(o.a, n), w.values(o.b, n))
	return o.out.store(o.name, y, o.after, w.first)
}

func (o *addition) kernel() string {
	if o.rq != nil {
		return "u8 + u8, requantized in place"
	}
	return "float32 sum" + stored(o.out)
}

// term is a tensor of codes as one side of a sum.
func (w *worker) term(t *tensor, m float32, n int) kernel.Term {
	return kernel.Term{Q: w.codes(t, n), Zero: t.params.Zero[0], M: m}
}

// globalAvg is the mean of each channel over height and width.
type globalAvg struct {
	in, out         *tensor
	name            string
	cells, channels int
	rq              *quant.Requant // nil for values
}

func newGlobalAvg(n *model.Node, in, out *tensor) op {
	return &globalAvg{in: in, out: out, name: fmt.Sprintf("%s %q", n.Op, n.Layer), cells: in.shape[0] * in.shape[1], channels: in.shape[2], rq: n.Requant}
}

func (o *globalAvg) run(w *worker, n int) error {
	if r := o.rq; r != nil {
		kernel.MeanRequant(w.codes(o.out, n), w.codes(o.in, n), o.in.params.Zero[0], r.M[0], r.Zero, r.Lo, r.Hi, n, o.cells, o.channels, &w.scratch)
		return nil
	}
	y := w.values(o.out, n)
	kernel.GlobalAvg(y, w.values(o.in, n), n, o.cells, o.channels)
	return o.out.store(o.name, y, activation{}, w.first)
}

func (o *globalAvg) kernel() string {
	if o.rq != nil {
		return "u8 mean, requantized in place"
	}
	return "float32 mean" + stored(o.out)
}

// activation is what follows an operation on values: nothing, a ReLU, or a ReLU with an upper limit.
type activation struct {
	relu bool
	cap  float32 // 0: none
}

func activationOf(n *model.Node) activation {
	return activation{relu: n.Attr.Relu || n.Op == model.ReLU, cap: n.Attr.Cap}
}

// store limits and rounds what an operation stores, to the tensor's format; first is the index of the first example in y
// and layer names the operation, for the message.
func (t *tensor) store(layer string, y []float32, a activation, first int) error {
	return t.finish(layer, y, nil, nil, a, first)
}

// finish is store after y = float32(mul*y) + add along the channels.
func (t *tensor) finish(layer string, y, mul, add []float32, a activation, first int) error {
	format := storeFormat(t)
	after := kernel.After{ReLU: a.relu, Limit: a.cap, Round: rounding16(format)}
	if mul == nil && after == (kernel.After{}) {
		return nil
	}
	at := kernel.ScaleShift(y, y, mul, add, t.shape[len(t.shape)-1], after)
	if at < 0 {
		return nil
	}
	err := atIndex(quant.Round16(y[at:at+1], y[at:at+1], format), at%t.size)
	return fmt.Errorf("%s: example %d: %w", layer, first+at/t.size, err)
}

// stored is the end of a kernel's description.
func stored(t *tensor) string {
	if f := storeFormat(t); f != quant.FP32 {
		return ", stored in " + f.String()
	}
	return ""
}
