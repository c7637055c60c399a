package layers

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
)

// fork makes the output of n, or of the pooling that came with it, a fork where several layers read it in training.
func (b *builder) fork(n *model.Node) error {
	if !b.o.Train {
		return nil
	}
	name := n.Name
	if pool := b.poolBehind(n); pool != nil && (n.Op == model.Conv || n.Op == model.Dense) {
		name = pool.Name
	}
	e := b.edges[name]
	if !e.grad || len(b.m.Readers(name)) < 2 || b.forked[name] {
		return nil
	}
	b.forked[name] = true
	shape := e.node.Shape()
	k := &gradSum{st: b.st, row: shape.TotalSize() / shape[0], dx: gx.NewTensor(shape...)}
	k.dxs, k.each = k.dx.Data().([]float32), k.shard
	var err error
	e.node, err = gx.Fork(e.node, "fork "+name, k, k.dx)
	b.edges[name] = e
	return err
}

// gradSum is the sum of several readers' gradients, in their order.
type gradSum struct {
	st    *qat.Step
	row   int
	dx    *tensor.Dense
	dxs   []float32
	parts [][]float32
	each  func(shard, lo, hi int)
}

func (k *gradSum) Run(in []G.Value) (G.Value, error) {
	k.parts = k.parts[:0]
	for _, v := range in {
		x, err := gx.Floats(v)
		if err != nil {
			return nil, err
		}
		k.parts = append(k.parts, x)
	}
	return k.dx, k.st.EachRow(k.each)
}

func (k *gradSum) shard(_, lo, hi int) {
	from, to := lo*k.row, hi*k.row
	kernel.Add(k.dxs[from:to], k.parts[0][from:to], k.parts[1][from:to])
	for _, p := range k.parts[2:] {
		kernel.Add(k.dxs[from:to], k.dxs[from:to], p[from:to])
	}
}
