package layers

import (
	"fmt"

	G "gorgonia.org/gorgonia"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

// values is an edge as float values: 16-bit codes are on them already, bytes are dequantized.
func (b *builder) values(name string, e edge) (edge, error) {
	if e.kind != onCodes {
		return e, nil
	}
	var err error
	e.kind = onFloats
	e.node, err = qat.Values(b.st, name, e.node, e.grad)
	return e, err
}

// wideProduct is a product of codes of which some have 16 bits: x and w come in as the values of codes, the accumulators are
// 64 bits, exact. The gradients are those of the values.
type wideProduct struct {
	*product
	sx     *quant.Params // of x
	weight *qat.Weight
	acc    *qat.Acc
	codes  [par.Shards][]int16
	each   func(shard, lo, hi int)
}

func newWideProduct(st *qat.Step, m *model.Model, l *weighted, bias *G.Node) (*G.Node, error) {
	n, x, floats := l.Node, l.x.node, *l
	floats.weight, floats.integer = nil, nil // the gradients' view of it
	p, err := makeProduct(st, &floats, bias != nil)
	if err != nil {
		return nil, err
	}
	k := &wideProduct{product: p, sx: m.Quant[n.In[0]], weight: l.weight, acc: qat.NewWideAcc(p.shape(x.Shape()[0]))}
	k.each = k.shard
	args := []*G.Node{x, l.w}
	if bias != nil {
		args = append(args, bias)
	}
	return gx.Apply(k, fmt.Sprintf("%s %s", n.Op, n.Layer), k.acc, args...)
}

func (k *wideProduct) Run(in []G.Value) (G.Value, error) {
	if err := k.load(in); err != nil {
		return nil, err
	}
	a := k.acc
	a.InScale = k.sx.Scale[0]
	copy(a.Scale, k.weight.Codes().Params.Scale)
	clear(a.Offset)
	if f := k.weight.Folded(); k.bias && f != nil { // batch norm, where there is one, folds later
		copy(a.Offset, f.Bias)
	}
	return a, k.st.EachRow(k.each)
}

func (k *wideProduct) shard(s, lo, hi int) {
	if k.codes[s] == nil {
		k.codes[s] = make([]int16, k.in)
	}
	g := k.geom
	if k.dense {
		g.Cin = k.in
	}
	for i := lo; i < hi; i++ {
		qat.Centred(k.codes[s], k.x[i*k.in:(i+1)*k.in], k.sx.Scale[0])
		kernel.ConvWide(k.acc.Wide[i*k.outRow:(i+1)*k.outRow], k.codes[s], k.weight.Wide(), 1, g)
	}
}

// foldWide is foldShard with 64-bit accumulators.
func (k *norm) foldWide() error {
	if k.ownWide == nil {
		k.ownWide = make([]int64, len(k.acc.Wide))
	}
	k.folded.Wide = k.ownWide
	return k.st.EachRow(func(_, lo, hi int) {
		for i := lo * k.row; i < hi*k.row; i++ {
			k.ownWide[i] = int64(k.signs[i%k.channels]) * k.acc.Wide[i]
		}
	})
}

// wideParams is the quantizer of a tensor with 16-bit codes; nil for other tensors.
func (b *builder) wideParams(name string) *quant.Params {
	if q := b.m.Quant[name]; q != nil && q.Spec.Format == quant.Int16 {
		return q
	}
	return nil
}

// wideMean is the sums of a global average of 16-bit codes, which come in as values.
func (k *globalAvg) wideMean(lo, hi int) {
	c, row := k.channels, k.cells*k.channels
	codes := make([]int16, row)
	for i := lo; i < hi; i++ {
		qat.Centred(codes, k.x[i*row:(i+1)*row], k.acc.InScale)
		sums := k.acc.Wide[i*c : (i+1)*c]
		clear(sums)
		for at, q := range codes {
			sums[at%c] += int64(q)
		}
	}
}

// widePlain adds an addition or a global average of which an input or the output has 16 bits.
func (b *builder) widePlain(n *model.Node, in model.Shape) (*G.Node, bool, error) {
	x, err := b.values(n.In[0], b.edges[n.In[0]])
	if err != nil {
		return nil, false, err
	}
	if n.Op == model.GlobalAvgPool {
		y, err := newGlobalAvg(b.st, n, in, x, b.m.Quant[n.In[0]])
		return y, x.grad, err
	}
	other, err := b.values(n.In[1], b.edges[n.In[1]])
	if err != nil {
		return nil, false, err
	}
	shape := x.node.Shape()
	k := &addition{st: b.st, name: n.Layer, row: shape.TotalSize() / shape[0], needs: [2]bool{x.grad, other.grad}}
	k.wide = qat.NewWideSum(b.m.Quant[n.In[0]], b.m.Quant[n.In[1]], shape)
	y, err := gx.Apply(k, "add "+n.Layer, k.wide, x.node, other.node)
	return y, x.grad || other.grad, err
}

// WideCodes are the 16-bit codes that the last run computed for a tensor; nil for other tensors.
func (n *Net) WideCodes(name string) []int16 {
	p := n.wide[name]
	if p == nil {
		return nil
	}
	_, values, ok := n.Tensor(name)
	if !ok {
		return nil
	}
	codes := make([]int16, len(values))
	qat.Centred(codes, values, p.Scale[0])
	return codes
}
