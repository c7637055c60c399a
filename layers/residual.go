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

// addition is a + b of values, and the ReLU that was fused into it; of codes it is a [qat.Sum], which the quantizer behind
// it adds up.
type addition struct {
	st    *qat.Step
	name  string
	row   int
	needs [2]bool

	sum  *qat.Sum
	wide *qat.WideSum // of codes of which some have 16 bits
	a, b []float32
	y    *tensor.Dense
	ys   []float32
	mask []uint8 // where the gradient passes the ReLU; nil: there is none
	each func(shard, lo, hi int)
}

// newAddition adds the node; relu asks for a ReLU of values.
func newAddition(st *qat.Step, n *model.Node, a, b edge, relu bool) (*G.Node, error) {
	shape := a.node.Shape()
	k := &addition{st: st, name: n.Layer, row: shape.TotalSize() / shape[0], needs: [2]bool{a.grad, b.grad}}
	if a.kind == onCodes {
		x, ok := gx.Output(a.node).(*qat.Codes)
		y, both := gx.Output(b.node).(*qat.Codes)
		if !ok || !both {
			return nil, fmt.Errorf("needs codes, has %T and %T", gx.Output(a.node), gx.Output(b.node))
		}
		k.sum = &qat.Sum{A: x, B: y}
		return gx.Apply(k, "add "+n.Layer, k.sum, a.node, b.node)
	}
	k.y = gx.NewTensor(shape...)
	k.ys = k.y.Data().([]float32)
	name := "add " + n.Layer
	if k.each = k.sumShard; relu {
		k.each = k.reluShard
		k.mask = make([]uint8, shape[0]*kernel.MaskLen(k.row))
		name = "add+relu " + n.Layer
	}
	return gx.Apply(k, name, k.y, a.node, b.node)
}

func (k *addition) sumShard(_, lo, hi int) {
	from, to := lo*k.row, hi*k.row
	kernel.Add(k.ys[from:to], k.a[from:to], k.b[from:to])
}

func (k *addition) reluShard(_, lo, hi int) {
	m := kernel.MaskLen(k.row)
	for i := lo; i < hi; i++ {
		from, to := i*k.row, (i+1)*k.row
		kernel.AddReLU(k.ys[from:to], k.mask[i*m:(i+1)*m], k.a[from:to], k.b[from:to])
	}
}

func (k *addition) Run(in []G.Value) (G.Value, error) {
	if k.sum != nil {
		k.sum.A, k.sum.B = in[0].(*qat.Codes), in[1].(*qat.Codes)
		return k.sum, nil
	}
	var err error
	if k.wide != nil {
		for i := range k.wide.Values {
			if k.wide.Values[i], err = gx.Floats(in[i]); err != nil {
				return nil, err
			}
		}
		return k.wide, nil
	}
	if k.a, err = gx.Floats(in[0]); err != nil {
		return nil, err
	}
	if k.b, err = gx.Floats(in[1]); err != nil {
		return nil, err
	}
	return k.y, k.st.EachRow(k.each)
}

func (k *addition) Needs() []bool { return k.needs[:] }

// Backward hands the gradient to both sides, in memory of its own where Gorgonia may add to it: that of a tensor whose
// several readers are no fork's.
func (k *addition) Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	if k.mask != nil {
		masked, err := maskGrad(k.st, "gradient(relu "+k.name+")", k.mask, out, grad)
		if err != nil {
			return nil, err
		}
		grad = masked
	}
	grads := make(G.Nodes, 2)
	for i, need := range k.needs {
		switch {
		case !need:
			continue
		case in[0] != in[1] && !gx.Summed(in[i]):
			grads[i] = grad
			continue
		}
		b := &copyGrad{st: k.st, row: k.row, dx: gx.NewTensor(in[i].Shape()...)}
		b.dxs = b.dx.Data().([]float32)
		b.each = b.shard
		n, err := gx.Apply(b, fmt.Sprintf("gradient(side %d of add %s)", i, k.name), b.dx, grad)
		if err != nil {
			return nil, err
		}
		grads[i] = n
	}
	return grads, nil
}

// reluMask is the gradient behind the mask of a ReLU, which is left to its readers to apply; or that they find written,
// where the memory of the gradient before it may change before they read it.
type reluMask struct {
	masked *qat.MaskedGrad
	whole  *tensor.Dense // written; else nil
}

func maskGrad(st *qat.Step, name string, mask []uint8, out, grad *G.Node) (*G.Node, error) {
	k := &reluMask{masked: qat.NewMaskedGrad(st, out.Shape().Clone(), mask)}
	if gx.Foreign(grad) {
		k.whole = gx.NewTensor(out.Shape()...)
		return gx.Apply(k, name, k.whole, out, grad)
	}
	return gx.Apply(k, name, k.masked, out, grad)
}

func (k *reluMask) Run(in []G.Value) (G.Value, error) {
	dy, err := gx.Floats(in[1])
	if err != nil {
		return nil, err
	}
	k.masked.Set(dy)
	if k.whole == nil {
		return k.masked, nil
	}
	whole, err := gx.Floats(k.whole)
	copy(whole, k.masked.Data().([]float32))
	return k.whole, err
}

type copyGrad struct {
	st      *qat.Step
	row     int
	dx      *tensor.Dense
	dxs, dy []float32
	each    func(shard, lo, hi int)
}

func (b *copyGrad) Run(in []G.Value) (G.Value, error) {
	var err error
	if b.dy, err = gx.Floats(in[0]); err != nil {
		return nil, err
	}
	return b.dx, b.st.EachRow(b.each)
}

func (b *copyGrad) shard(_, lo, hi int) { copy(b.dxs[lo*b.row:hi*b.row], b.dy[lo*b.row:hi*b.row]) }

// globalAvg is the mean of each channel over height and width; of codes it is their sums, exactly.
type globalAvg struct {
	st              *qat.Step
	name            string
	cells, channels int
	needDX          bool
	wide            *quant.Params

	codes *qat.Codes
	acc   *qat.Acc
	x, ys []float32
	y     *tensor.Dense
	each  func(shard, lo, hi int)
}

// newGlobalAvg adds the node. wide is the quantizer of an input of which the values of 16-bit codes come in; else nil.
func newGlobalAvg(st *qat.Step, n *model.Node, in model.Shape, x edge, wide *quant.Params) (*G.Node, error) {
	k := &globalAvg{st: st, name: n.Layer, cells: in[0] * in[1], channels: in[2], needDX: x.grad}
	k.each = k.shard
	shape := tensor.Shape{x.node.Shape()[0], k.channels}
	if k.wide = wide; x.kind == onCodes || wide != nil {
		k.acc = qat.NewAcc(shape)
		if wide != nil {
			k.acc = qat.NewWideAcc(shape)
		}
		k.acc.Cells = k.cells
		for c := range k.acc.Scale {
			k.acc.Scale[c] = 1
		}
		return gx.Apply(k, "gap "+n.Layer, k.acc, x.node)
	}
	k.y = gx.NewTensor(shape...)
	k.ys = k.y.Data().([]float32)
	return gx.Apply(k, "gap "+n.Layer, k.y, x.node)
}

func (k *globalAvg) Run(in []G.Value) (G.Value, error) {
	if k.wide != nil {
		var err error
		k.acc.InScale = k.wide.Scale[0]
		if k.x, err = gx.Floats(in[0]); err != nil {
			return nil, err
		}
		return k.acc, k.st.EachRow(k.each)
	}
	if k.acc != nil {
		codes, ok := in[0].(*qat.Codes)
		if !ok {
			return nil, fmt.Errorf("needs codes, has %T", in[0])
		}
		k.codes = codes
		k.acc.InScale, _ = codes.Params.At(0)
		return k.acc, k.st.EachRow(k.each)
	}
	var err error
	if k.x, err = gx.Floats(in[0]); err != nil {
		return nil, err
	}
	return k.y, k.st.EachRow(k.each)
}

func (k *globalAvg) shard(_, lo, hi int) {
	c, row := k.channels, k.cells*k.channels
	if k.wide != nil {
		k.wideMean(lo, hi)
		return
	}
	if k.acc != nil {
		_, z := k.codes.Params.At(0)
		kernel.MeanSums(k.acc.Raw[lo*c:hi*c], k.codes.U8[lo*row:hi*row], z, hi-lo, k.cells, c)
		return
	}
	kernel.GlobalAvg(k.ys[lo*c:hi*c], k.x[lo*row:hi*row], hi-lo, k.cells, c)
}

func (k *globalAvg) Needs() []bool { return []bool{k.needDX} }

func (k *globalAvg) Backward(in G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	if !k.needDX {
		return G.Nodes{nil}, nil
	}
	b := &globalAvgGrad{f: k, dx: gx.NewTensor(in[0].Shape()...)}
	b.dxs = b.dx.Data().([]float32)
	b.each = b.shard
	n, err := gx.Apply(b, "gradient(gap "+k.name+")", b.dx, grad)
	return G.Nodes{n}, err
}

type globalAvgGrad struct {
	f       *globalAvg
	dx      *tensor.Dense
	dxs, dy []float32
	each    func(shard, lo, hi int)
}

func (b *globalAvgGrad) Run(in []G.Value) (G.Value, error) {
	var err error
	if b.dy, err = gx.Floats(in[0]); err != nil {
		return nil, err
	}
	return b.dx, b.f.st.EachRow(b.each)
}

func (b *globalAvgGrad) shard(_, lo, hi int) {
	c, row := b.f.channels, b.f.cells*b.f.channels
	kernel.GlobalAvgGrad(b.dxs[lo*row:hi*row], b.dy[lo*c:hi*c], hi-lo, b.f.cells, c)
}
