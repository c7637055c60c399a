package layers

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
)

// product is a convolution or a dense layer, which is a convolution of 1x1 images:
//
//	floats   y = x*w + b
//	codes    acc = sum (q_x - z)*q_w + q_b, exactly
//
// Inputs are x, w and, unless batch norm follows, b. The bias enters accumulators as the integers that the weight's
// quantizer folded; its node is there for the gradient.
type product struct {
	st     *qat.Step
	name   string
	geom   kernel.ConvGeom
	dense  bool
	needDX bool
	bias   bool
	weight *qat.Weight // of a quantized layer
	in     int         // elements of one example
	outRow int

	x, w, b []float32
	codes   *qat.Codes
	y       *tensor.Dense
	ys      []float32
	acc     *qat.Acc
	each    func(shard, lo, hi int)
}

// geometry is the node's convolution over images of the given shape.
func geometry(n *model.Node, in model.Shape) (kernel.ConvGeom, error) {
	a := n.Attr
	g := kernel.ConvGeom{H: 1, W: 1, Cin: in.Channels(), KH: 1, KW: 1, Cout: a.Units, StrideH: 1, StrideW: 1, Groups: 1}
	if n.Op == model.Conv {
		g = kernel.ConvGeom{
			H: in[0], W: in[1], Cin: in[2], KH: a.Kernel[0], KW: a.Kernel[1], Cout: a.Units,
			StrideH: a.Stride[0], StrideW: a.Stride[1],
			PadTop: a.Pad[0], PadLeft: a.Pad[1], PadBottom: a.Pad[2], PadRight: a.Pad[3], Groups: a.Groups,
		}
	}
	return g, g.Check()
}

// newProduct adds the node. weight is nil in float layers; bias may be nil.
func newProduct(st *qat.Step, n *model.Node, in model.Shape, x, w, bias *G.Node, weight *qat.Weight, needDX bool) (*G.Node, error) {
	g, err := geometry(n, in)
	if err != nil {
		return nil, err
	}
	k := &product{
		st: st, name: n.Layer, geom: g, dense: n.Op == model.Dense, needDX: needDX, bias: bias != nil, weight: weight,
		in: in.Size(), outRow: g.OutH() * g.OutW() * g.Cout,
	}
	batch := x.Shape()[0]
	shape := tensor.Shape{batch, g.Cout}
	if !k.dense {
		shape = tensor.Shape{batch, g.OutH(), g.OutW(), g.Cout}
	}
	var out G.Value
	if weight != nil {
		k.acc, k.each = qat.NewAcc(shape), k.shardCodes
		out = k.acc
	} else {
		k.y, k.each = gx.NewTensor(shape...), k.shardFloat
		k.ys, out = k.y.Data().([]float32), k.y
	}
	args := []*G.Node{x, w}
	if bias != nil {
		args = append(args, bias)
	}
	return gx.Apply(k, fmt.Sprintf("%s %s", n.Op, n.Layer), out, args...)
}

func (k *product) Run(in []G.Value) (G.Value, error) {
	if k.weight != nil {
		return k.runCodes(in)
	}
	var err error
	if k.x, err = gx.Floats(in[0]); err != nil {
		return nil, err
	}
	if k.w, err = gx.Floats(in[1]); err != nil {
		return nil, err
	}
	if k.bias {
		if k.b, err = gx.Floats(in[2]); err != nil {
			return nil, err
		}
	}
	return k.y, k.st.EachRow(k.each)
}

func (k *product) shardFloat(s, lo, hi int) {
	kernel.ConvForward(k.ys[lo*k.outRow:hi*k.outRow], k.x[lo*k.in:hi*k.in], k.w, k.b, hi-lo, k.geom, k.st.Scratch(s))
}

func (k *product) runCodes(in []G.Value) (G.Value, error) {
	codes, ok := in[0].(*qat.Codes)
	if !ok {
		return nil, fmt.Errorf("needs codes, has %T", in[0])
	}
	k.codes = codes
	sx, z := codes.Params.At(0)
	a := k.acc
	a.InScale = sx
	copy(a.Scale, in[1].(*qat.Codes).Params.Scale)
	for c, sum := range k.weight.Packed().ColSums {
		a.Offset[c] = -z * sum
	}
	if f := k.weight.Folded(); k.bias && f != nil { // batch norm, where there is one, folds later
		for c, b := range f.Bias {
			a.Offset[c] += b
		}
	}
	return a, k.st.EachRow(k.each)
}

func (k *product) shardCodes(s, lo, hi int) {
	_, z := k.codes.Params.At(0)
	acc, x := k.acc.Raw[lo*k.outRow:hi*k.outRow], k.codes.U8[lo*k.in:hi*k.in]
	kernel.ConvU8S8(acc, x, uint8(z), k.weight.Packed(), hi-lo, k.geom, k.st.Scratch(s))
}

func (k *product) Needs() []bool { return []bool{k.needDX, true, true}[:2+btoi(k.bias)] }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (k *product) Backward(in G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	batch := in[0].Shape()[0]
	b := &productGrad{f: k, dw: gx.NewTensor(in[1].Shape()...)}
	b.dws = b.dw.Data().([]float32)
	b.eachRow, b.eachWeight = b.rowShard, b.weightShard
	if !k.dense {
		for s := range par.Count(batch) {
			b.parts[s] = make([]float32, len(b.dws))
		}
	}
	if k.weight != nil {
		b.xs, b.ws = make([]float32, batch*k.in), make([]float32, len(b.dws))
	}
	if k.bias {
		b.db = gx.NewTensor(k.geom.Cout)
		b.biasParts = make([]float64, par.Shards*k.geom.Cout)
		b.biasSum = make([]float64, k.geom.Cout)
	}
	args := []*G.Node{in[0], in[1], grad}
	if k.needDX {
		b.dx = gx.NewTensor(in[0].Shape()...)
		b.dxs = b.dx.Data().([]float32)
		b.flipped = make([]float32, len(b.dws))
	}
	dw, err := gx.Apply(b, "gradient(weight of "+k.name+")", b.dw, args...)
	if err != nil {
		return nil, err
	}
	grads := make(G.Nodes, len(in))
	grads[1] = dw
	if k.bias {
		if grads[2], err = gx.Side("gradient(bias of "+k.name+")", b.db, dw); err != nil {
			return nil, err
		}
	}
	if k.needDX {
		grads[0], err = gx.Side("gradient(input of "+k.name+")", b.dx, dw)
	}
	return grads, err
}

// productGrad computes all gradients of a product:
//
//	dw = x^T dy      db = sum of dy over rows      dx = dy w^T
//
// A convolution's dw is a sum over examples: one part per shard, added in order. A dense layer's dw is cut into rows of
// the weight instead, each of them a sum over all examples.
type productGrad struct {
	f          *product
	dw, db, dx *tensor.Dense
	dws, dxs   []float32
	xs, ws     []float32 // values of a quantized layer's codes
	flipped    []float32 // w in the order that dx reads it
	parts      [par.Shards][]float32
	biasParts  []float64
	biasSum    []float64

	x, w, dy            []float32
	eachRow, eachWeight func(shard, lo, hi int)
	codes               *qat.Codes
}

func (b *productGrad) Run(in []G.Value) (G.Value, error) {
	f := b.f
	var err error
	if b.dy, err = gx.Floats(in[2]); err != nil {
		return nil, err
	}
	if f.weight != nil {
		b.codes = in[0].(*qat.Codes)
		in[1].(*qat.Codes).Dequantize(b.ws)
		b.x, b.w = b.xs, b.ws
	} else if b.x, err = gx.Floats(in[0]); err != nil {
		return nil, err
	} else if b.w, err = gx.Floats(in[1]); err != nil {
		return nil, err
	}
	if f.needDX {
		kernel.FlipWeights(b.flipped, b.w, f.geom)
	}
	if err := f.st.EachRow(b.eachRow); err != nil {
		return nil, err
	}
	n := len(b.dws)
	if f.dense {
		n = f.in
	}
	if err := f.st.Each(n, b.eachWeight); err != nil {
		return nil, err
	}
	if b.db != nil {
		c := f.geom.Cout
		kernel.Combine(b.biasSum, b.biasParts[:par.Count(f.st.Rows)*c], c)
		kernel.Round32(b.db.Data().([]float32), b.biasSum)
	}
	return b.dw, nil
}

// rowShard does what a shard of examples can.
func (b *productGrad) rowShard(s, lo, hi int) {
	f := b.f
	x, dy := b.x[lo*f.in:hi*f.in], b.dy[lo*f.outRow:hi*f.outRow]
	if b.codes != nil {
		scale, z := b.codes.Params.At(0)
		dequantize(x, b.codes.U8[lo*f.in:hi*f.in], scale, z)
	}
	if !f.dense {
		kernel.ConvBackwardWeight(b.parts[s], x, dy, hi-lo, f.geom, false, f.st.Scratch(s))
	}
	if b.db != nil {
		c := f.geom.Cout
		kernel.SumColumns(b.biasParts[s*c:(s+1)*c], dy, c)
	}
	if f.needDX {
		kernel.ConvBackwardInputFlipped(b.dxs[lo*f.in:hi*f.in], dy, b.flipped, hi-lo, f.geom, f.st.Scratch(s))
	}
}

// weightShard makes the elements, or a dense layer's rows, [lo, hi) of dw.
func (b *productGrad) weightShard(s, lo, hi int) {
	f := b.f
	if f.dense {
		c := f.geom.Cout
		kernel.Gemm(b.dws[lo*c:hi*c], c, b.x[lo:], f.in, true, b.dy, c, false, hi-lo, c, f.st.Rows, false, f.st.Scratch(s))
		return
	}
	copy(b.dws[lo:hi], b.parts[0][lo:hi])
	for p := 1; p < par.Count(f.st.Rows); p++ {
		kernel.Add(b.dws[lo:hi], b.dws[lo:hi], b.parts[p][lo:hi])
	}
}

// dequantize writes s*(q-z).
func dequantize(dst []float32, q []uint8, s float32, z int32) {
	dst = dst[:len(q)]
	for i, v := range q {
		dst[i] = s * float32(int32(v)-z)
	}
}
