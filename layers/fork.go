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
	var err error
	e.node, err = gx.Fork(e.node, "fork "+name, func() (gx.Kernel, G.Value) {
		k := &gradSum{st: b.st, row: shape.TotalSize() / shape[0], dx: gx.NewTensor(shape...)}
		k.dxs, k.each = k.dx.Data().([]float32), k.shard
		return k, k.dx
	})
	b.edges[name] = e
	return err
}

// gradPart is a gradient that is added to another one.
type gradPart struct {
	floats []float32
	masked *qat.MaskedGrad // in place of floats
}

// gradParts reads gradients into parts.
func gradParts(parts []gradPart, in []G.Value) ([]gradPart, error) {
	parts = parts[:0]
	for _, v := range in {
		p := gradPart{}
		if m, ok := v.(*qat.MaskedGrad); ok {
			p.masked = m
		} else {
			var err error
			if p.floats, err = gx.Floats(v); err != nil {
				return nil, err
			}
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// add writes dst = a + example i of p; dst may be a.
func (p *gradPart) add(dst, a []float32, i int) {
	if p.masked != nil {
		dy, mask := p.masked.Row(i)
		kernel.AddMasked(dst, a, dy, mask)
		return
	}
	kernel.Add(dst, a, p.floats[i*len(dst):(i+1)*len(dst)])
}

// gradSum is the sum of several readers' gradients, in their order.
type gradSum struct {
	st    *qat.Step
	row   int
	dx    *tensor.Dense
	dxs   []float32
	first []float32
	rest  []gradPart
	each  func(shard, lo, hi int)
}

func (k *gradSum) Run(in []G.Value) (G.Value, error) {
	var err error
	if k.first, err = gx.Floats(in[0]); err != nil {
		return nil, err
	}
	if k.rest, err = gradParts(k.rest, in[1:]); err != nil {
		return nil, err
	}
	return k.dx, k.st.EachRow(k.each)
}

func (k *gradSum) shard(_, lo, hi int) {
	for i := lo; i < hi; i++ {
		sum := k.dxs[i*k.row : (i+1)*k.row]
		a := k.first[i*k.row : (i+1)*k.row]
		for _, p := range k.rest {
			p.add(sum, a, i)
			a = sum
		}
	}
}
