package layers

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
)

// pool is max-pooling of values, codes or accumulators; the first maximum of a window, row by row, gets the gradient.
// The multipliers of accumulators are positive and their offsets are those of a channel, so the greatest accumulator is
// the greatest value.
type pool struct {
	st     *qat.Step
	name   string
	geom   kernel.PoolGeom
	in     int
	out    int
	needDX bool

	codes *qat.Codes // output
	acc   *qat.Acc   // output, where accumulators come in
	raw   []int32
	own   []int32
	sign  kernel.Signs
	from  *qat.Codes
	y     *tensor.Dense
	x, ys []float32
	arg   []uint8
	each  func(shard, lo, hi int)
}

// poolGeometry is the node's pooling over images of the given shape.
func poolGeometry(n *model.Node, in model.Shape) kernel.PoolGeom {
	a := n.Attr
	return kernel.PoolGeom{
		H: in[0], W: in[1], C: in[2], KH: a.Kernel[0], KW: a.Kernel[1], StrideH: a.Stride[0], StrideW: a.Stride[1],
		PadTop: a.Pad[0], PadLeft: a.Pad[1], PadBottom: a.Pad[2], PadRight: a.Pad[3],
	}
}

// newPool adds the node. Accumulators (onAcc) may come in before a quantizer, from a layer whose batch norm may train:
// then the input is values in some steps and accumulators in others.
func newPool(st *qat.Step, n *model.Node, in model.Shape, x *G.Node, kind edgeKind, needDX bool) (*G.Node, error) {
	g := poolGeometry(n, in)
	if err := g.Check(); err != nil {
		return nil, err
	}
	batch := x.Shape()[0]
	shape := tensor.Shape{batch, g.OutH(), g.OutW(), g.C}
	k := &pool{st: st, name: n.Layer, geom: g, in: in.Size(), out: g.OutH() * g.OutW() * g.C, needDX: needDX}
	k.each = k.shard
	if st.Train && needDX {
		k.arg = make([]uint8, shape.TotalSize())
	}
	if kind == onCodes {
		v, ok := gx.Output(x).(*qat.Codes)
		if !ok {
			return nil, fmt.Errorf("needs codes, has %T", gx.Output(x))
		}
		k.codes = qat.NewActCodes(v.Params, shape)
		return gx.Apply(k, "maxpool "+n.Layer, k.codes, x)
	}
	if kind == onAcc {
		k.own = make([]int32, shape.TotalSize())
		k.sign.Set(nil, g.C)
		if _, always := gx.Output(x).(*qat.Acc); always {
			return gx.Apply(k, "maxpool "+n.Layer, qat.NewAccView(shape), x)
		}
	}
	k.y = gx.NewTensor(shape...)
	k.ys = k.y.Data().([]float32)
	return gx.Apply(k, "maxpool "+n.Layer, k.y, x)
}

func (k *pool) Run(in []G.Value) (G.Value, error) {
	if k.codes != nil {
		k.from = in[0].(*qat.Codes)
		return k.codes, k.st.EachRow(k.each)
	}
	k.raw = nil
	if acc, ok := in[0].(*qat.Acc); ok {
		k.raw = acc.Raw
		k.acc = acc.Over(k.own, tensor.Shape{in[0].Shape()[0], k.geom.OutH(), k.geom.OutW(), k.geom.C}, k.acc)
		return k.acc, k.st.EachRow(k.each)
	}
	var err error
	if k.x, err = gx.Floats(in[0]); err != nil {
		return nil, err
	}
	return k.y, k.st.EachRow(k.each)
}

func (k *pool) shard(_, lo, hi int) {
	var arg []uint8
	if k.arg != nil {
		arg = k.arg[lo*k.out : hi*k.out]
	}
	if k.codes != nil {
		kernel.MaxPoolU8(k.codes.U8[lo*k.out:hi*k.out], arg, k.from.U8[lo*k.in:hi*k.in], hi-lo, k.geom)
		return
	}
	if k.raw != nil {
		for i := lo; i < hi; i++ {
			kernel.MaxPoolAcc(k.own[i*k.out:(i+1)*k.out], k.arg[i*k.out:(i+1)*k.out], k.raw[i*k.in:(i+1)*k.in], &k.sign, k.geom)
		}
		return
	}
	kernel.MaxPool(k.ys[lo*k.out:hi*k.out], arg, k.x[lo*k.in:hi*k.in], hi-lo, k.geom)
}

func (k *pool) Needs() []bool { return []bool{k.needDX} }

func (k *pool) Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	b := &poolGrad{f: k, dx: gx.NewTensor(in[0].Shape()...)}
	b.each = b.shard
	n, err := gx.Apply(b, "gradient(maxpool "+k.name+")", b.dx, out, grad)
	return G.Nodes{n}, err
}

type poolGrad struct {
	f    *pool
	dx   *tensor.Dense
	dy   []float32
	each func(shard, lo, hi int)
}

func (b *poolGrad) Run(in []G.Value) (G.Value, error) {
	var err error
	if b.dy, err = gx.Floats(in[1]); err != nil {
		return nil, err
	}
	return b.dx, b.f.st.EachRow(b.each)
}

func (b *poolGrad) shard(_, lo, hi int) {
	k := b.f
	if k.geom.Tiles() {
		dx := b.dx.Data().([]float32)
		for i := lo; i < hi; i++ {
			kernel.PoolScatter(dx[i*k.in:(i+1)*k.in], k.geom.W*k.geom.C, b.dy[i*k.out:(i+1)*k.out], k.arg[i*k.out:(i+1)*k.out], k.geom)
		}
		return
	}
	kernel.MaxPoolGrad(b.dx.Data().([]float32)[lo*k.in:hi*k.in], b.dy[lo*k.out:hi*k.out], k.arg[lo*k.out:hi*k.out], hi-lo, k.geom)
}

// flatten gives the same elements in the shape [N, size]: a view forward and a copy backward, since Gorgonia may add
// into a gradient it was given.
type flatten struct {
	name   string
	st     *qat.Step
	row    int
	needDX bool

	shape tensor.Shape
	from  G.Value
	view  G.Value
}

func newFlatten(st *qat.Step, name string, x *G.Node, kind edgeKind, needDX bool) (*G.Node, error) {
	s := x.Shape()
	k := &flatten{name: name, st: st, row: s.TotalSize() / s[0], needDX: needDX}
	k.shape = tensor.Shape{s[0], k.row}
	if kind == onCodes {
		v, ok := gx.Output(x).(*qat.Codes)
		if !ok {
			return nil, fmt.Errorf("flatten %q: needs codes, has %T", name, gx.Output(x))
		}
		return gx.Apply(k, "flatten "+name, v.View(k.shape), x)
	}
	return gx.Apply(k, "flatten "+name, gx.NewTensor(k.shape...), x)
}

func (k *flatten) Run(in []G.Value) (G.Value, error) {
	if k.view != nil && k.from == in[0] {
		return k.view, nil
	}
	if v, ok := in[0].(*qat.Codes); ok {
		k.view = v.View(k.shape)
	} else {
		x, err := gx.Floats(in[0])
		if err != nil {
			return nil, err
		}
		k.view = gx.Wrap(x, k.shape...)
	}
	k.from = in[0]
	return k.view, nil
}

func (k *flatten) Needs() []bool { return []bool{k.needDX} }

func (k *flatten) Backward(in G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	b := &flattenGrad{f: k, dx: gx.NewTensor(in[0].Shape()...)}
	b.each = b.shard
	n, err := gx.Apply(b, "gradient(flatten "+k.name+")", b.dx, grad)
	return G.Nodes{n}, err
}

type flattenGrad struct {
	f    *flatten
	dx   *tensor.Dense
	dy   []float32
	each func(shard, lo, hi int)
}

func (b *flattenGrad) Run(in []G.Value) (G.Value, error) {
	var err error
	if b.dy, err = gx.Floats(in[0]); err != nil {
		return nil, err
	}
	return b.dx, b.f.st.EachRow(b.each)
}

func (b *flattenGrad) shard(_, lo, hi int) {
	n := b.f.row
	copy(b.dx.Data().([]float32)[lo*n:hi*n], b.dy[lo*n:hi*n])
}

// head turns the accumulators of the last layer into float32 logits: float32(acc)*float32(s_x*S[c]). Where batch norm
// still trains the logits are values already.
type head struct {
	st   *qat.Step
	row  int
	y    *tensor.Dense
	ys   []float32
	acc  *qat.Acc
	mult []float32
	each func(shard, lo, hi int)
}

func newHead(st *qat.Step, name string, x *G.Node) (*G.Node, error) {
	shape := x.Shape()
	k := &head{st: st, row: shape.TotalSize() / shape[0], y: gx.NewTensor(shape...), mult: make([]float32, shape[len(shape)-1])}
	k.ys = k.y.Data().([]float32)
	k.each = k.shard
	return gx.Apply(k, "values("+name+")", k.y, x)
}

func (k *head) Run(in []G.Value) (G.Value, error) {
	acc, ok := in[0].(*qat.Acc)
	if !ok {
		return in[0], nil
	}
	k.acc = acc
	acc.Multipliers(k.mult)
	return k.y, k.st.EachRow(k.each)
}

func (k *head) shard(_, lo, hi int) {
	k.acc.Values(k.ys[lo*k.row:hi*k.row], lo*k.row, k.mult)
}

func (k *head) Needs() []bool { return []bool{true} }

func (k *head) Backward(_ G.Nodes, _, grad *G.Node) (G.Nodes, error) { return G.Nodes{grad}, nil }
