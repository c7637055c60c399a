package layers

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

// relu is max(x, 0), or min(max(x, 0), cap), of values, of codes (the limits of model.Node.Limits), or of accumulators and
// sums, where it is a limit that the quantizer behind it applies, forward and in its mask.
type relu struct {
	st     *qat.Step
	node   *model.Node
	limit  qat.Limit
	row    int
	needDX bool

	in    G.Value
	x, ys []float32
	y     *tensor.Dense
	acc   *qat.Acc
	sum   *qat.Sum

	wide    *quant.Params
	wideSum *qat.WideSum

	codes  *qat.Codes
	lo, hi uint8 // of codes
	each   func(shard, lo, hi int)
}

// newRelu adds the node. wide is the quantizer of a tensor of the values of 16-bit codes, whose upper limit is a code; else nil.
func newRelu(st *qat.Step, n *model.Node, x *G.Node, kind edgeKind, wide *quant.Params, needDX bool) (*G.Node, error) {
	shape := x.Shape()
	k := &relu{st: st, node: n, wide: wide, limit: qat.Limit{Relu: true, Cap: n.Attr.Cap}, row: shape.TotalSize() / shape[0], needDX: needDX}
	k.each = k.shard
	name := "relu " + n.Layer
	if n.Attr.Cap > 0 {
		name = fmt.Sprintf("relu(max %v) %s", n.Attr.Cap, n.Layer)
	}
	if kind == onCodes {
		v, ok := gx.Output(x).(*qat.Codes)
		if !ok {
			return nil, fmt.Errorf("%s: needs codes, has %T", name, gx.Output(x))
		}
		k.codes = qat.NewActCodes(v.Params, shape)
		return gx.Apply(k, name, k.codes, x)
	}
	if kind == onAcc {
		return gx.Apply(k, name, gx.Output(x), x)
	}
	k.y = gx.NewTensor(shape...)
	k.ys = k.y.Data().([]float32)
	return gx.Apply(k, name, k.y, x)
}

func (k *relu) Run(in []G.Value) (G.Value, error) {
	k.in = in[0]
	switch v := in[0].(type) {
	case *qat.Acc:
		if k.acc == nil {
			k.acc = new(qat.Acc)
		}
		*k.acc = *v // shares the accumulators
		k.acc.Limit = k.limit
		return k.acc, nil
	case *qat.Sum:
		if k.sum == nil {
			k.sum = new(qat.Sum)
		}
		*k.sum = *v // shares the codes
		k.sum.Limit = k.limit
		return k.sum, nil
	case *qat.WideSum:
		if k.wideSum == nil {
			k.wideSum = new(qat.WideSum)
		}
		*k.wideSum = *v
		k.wideSum.Limit = k.limit
		return k.wideSum, nil
	case *qat.Codes:
		_, lo, hi := k.node.Limits(v.Params)
		k.lo, k.hi = uint8(lo), uint8(hi)
		return k.codes, k.st.EachRow(k.each)
	}
	var err error
	if k.x, err = gx.Floats(in[0]); err != nil {
		return nil, err
	}
	if k.wide != nil && k.node.Attr.Cap > 0 {
		_, _, hi := k.node.Limits(k.wide)
		k.limit.Cap = quant.Mul32(k.wide.Scale[0], float32(hi))
	}
	return k.y, k.st.EachRow(k.each)
}

func (k *relu) shard(_, lo, hi int) {
	from, to := lo*k.row, hi*k.row
	if v, ok := k.in.(*qat.Codes); ok {
		kernel.ClampU8(k.codes.U8[from:to], v.U8[from:to], k.lo, k.hi)
		return
	}
	if k.limit.Cap > 0 {
		kernel.ReLUCap(k.ys[from:to], k.x[from:to], k.limit.Cap)
		return
	}
	kernel.ReLU(k.ys[from:to], k.x[from:to])
}

func (k *relu) Needs() []bool { return []bool{k.needDX} }

func (k *relu) Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	if !k.needDX {
		return G.Nodes{nil}, nil
	}
	b := &reluGrad{f: k, dx: gx.NewTensor(in[0].Shape()...)}
	b.each = b.shard
	n, err := gx.Apply(b, "gradient(relu "+k.node.Layer+")", b.dx, out, grad)
	return G.Nodes{n}, err
}

type reluGrad struct {
	f    *relu
	dx   *tensor.Dense
	dy   []float32
	each func(shard, lo, hi int)
}

func (b *reluGrad) Run(in []G.Value) (G.Value, error) {
	switch b.f.in.(type) {
	case *qat.Acc, *qat.Sum, *qat.WideSum:
		return in[1], nil // the quantizer that applied the limits has masked the gradient
	}
	var err error
	if b.dy, err = gx.Floats(in[1]); err != nil {
		return nil, err
	}
	return b.dx, b.f.st.EachRow(b.each)
}

func (b *reluGrad) shard(_, lo, hi int) {
	k := b.f
	from, to := lo*k.row, hi*k.row
	dx, dy := b.dx.Data().([]float32)[from:to], b.dy[from:to]
	v, codes := k.in.(*qat.Codes)
	switch {
	case codes:
		kernel.ClampU8Grad(dx, dy, v.U8[from:to], k.lo, k.hi)
	case k.limit.Cap > 0:
		kernel.ReLUCapGrad(dx, dy, k.ys[from:to], k.limit.Cap)
	default:
		kernel.ReLUGrad(dx, dy, k.ys[from:to])
	}
}
