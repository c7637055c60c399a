package layers

import (
	"errors"
	"fmt"

	G "gorgonia.org/gorgonia"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
)

// weighted is a conv or dense layer with what was fused into it: its leaves, and how it goes on.
type weighted struct {
	*model.Node
	in                model.Shape
	x                 edge
	w                 *G.Node
	weight            *qat.Weight // of a quantized layer
	integer           *kernel.Backward16
	bias, gamma, beta *G.Node
	pool              *model.Node // the max-pooling that alone reads the layer, in a training graph
	geom              *kernel.PoolGeom
}

// weighted adds a conv or dense layer. In a training graph the pooling behind it comes before its quantizer: so the
// gradient goes to the greatest value and not to the first of those that share a code. The codes are the same either way.
func (b *builder) weighted(n *model.Node, in model.Shape, x edge) error {
	w, weight, err := b.weight(n)
	if err != nil {
		return err
	}
	wide := b.m.Wide(n)
	if wide {
		if x, err = b.values(n.In[0], x); err != nil {
			return err
		}
	}
	if n.Attr.Dropout > 0 && b.o.Train {
		if x, err = b.dropout(n, x, weight); err != nil {
			return err
		}
	}
	if n.Attr.Whole && n.Attr.Bias {
		return errors.New("a bias before norm over the whole tensor is not supported: leave it out, beta has its place")
	}
	if integer := weight != nil && !wide; integer != (x.kind == onCodes) {
		return fmt.Errorf("weight and input %q are not both integers", n.In[0])
	}
	l := &weighted{Node: n, in: in, x: x, w: w, weight: weight}
	if weight != nil && !wide && b.o.Train && b.o.Backward == BackwardInt16 {
		g, err := geometry(n, in)
		if err != nil {
			return err
		}
		if p, err := planBackward(b.m, n, g, b.o.Batch, x.grad); err == nil { // else on float32: IntegerBackward says why
			l.integer = p
		}
	}
	for _, p := range []struct {
		role string
		has  bool
		node **G.Node
	}{{model.Bias, n.Attr.Bias, &l.bias}, {model.Gamma, n.Attr.Norm, &l.gamma}, {model.Beta, n.Attr.Norm, &l.beta}} {
		if !p.has {
			continue
		}
		if *p.node, err = b.param(n, p.role); err != nil {
			return err
		}
	}
	if l.pool = b.poolBehind(n); l.pool != nil {
		g := poolGeometry(l.pool, n.Shape)
		l.geom = &g
		b.pooled[l.pool.Name] = true
	}
	if b.o.Fuse && b.o.Train && !wide && !n.Attr.Whole && (weight == nil || b.m.Quant[n.Name] != nil) {
		return b.block(l)
	}
	return b.separate(l)
}

// poolBehind is the max-pooling that a training graph does before the quantizer of n: the only reader of n, with windows
// that tile the image.
func (b *builder) poolBehind(n *model.Node) *model.Node {
	if !b.o.Train || b.m.Wide(n) || len(n.Shape) != 3 || n.Shape[0]*n.Shape[1] == 1 || b.m.Outputs[0] == n.Name {
		return nil
	}
	var pool *model.Node
	for i := range b.m.Nodes {
		for _, name := range b.m.Nodes[i].In {
			if name != n.Name {
				continue
			}
			if pool != nil {
				return nil
			}
			pool = &b.m.Nodes[i]
		}
	}
	if pool == nil || pool.Op != model.MaxPool || !poolGeometry(pool, n.Shape).Tiles() {
		return nil
	}
	return pool
}

// separate gives each part of the layer a node of its own.
func (b *builder) separate(l *weighted) error {
	n := l.Node
	productBias := l.bias
	if n.Attr.Norm {
		productBias = nil
	}
	var y *G.Node
	var err error
	if b.m.Wide(n) {
		y, err = newWideProduct(b.st, b.m, l, productBias)
	} else {
		y, err = newProduct(b.st, l, productBias)
	}
	if err == nil && n.Attr.Norm {
		y, err = newNorm(b.st, b.m, n, y, l.gamma, l.beta, l.bias, l.weight, l.geom)
	}
	if err == nil && n.Attr.Relu {
		kind := onFloats
		if l.weight != nil && !(n.Attr.Norm && b.o.Train) {
			kind = onAcc
		}
		y, err = newRelu(b.st, n, y, kind, nil, true)
	}
	if err != nil {
		return err
	}
	if b.m.Quant[n.Name] == nil && l.weight != nil {
		if n.Attr.Relu {
			return errors.New("a quantized model must end in a layer without activation: its logits are float32(acc)*M")
		}
		y, err = newHead(b.st, n.Layer, y)
		b.edges[n.Name] = edge{node: y, kind: onFloats, grad: true}
		return err
	}
	if l.pool == nil {
		b.edges[n.Name], err = b.store(n, y, true)
		return err
	}
	inner := edge{node: y}
	kind := onFloats
	if l.weight != nil {
		kind = onAcc
	}
	if y, err = newPool(b.st, l.pool, n.Shape, y, kind, true); err != nil {
		return err
	}
	if b.edges[l.pool.Name], err = b.store(n, y, true); err != nil {
		return err
	}
	if a := b.acts[n.Name]; a != nil {
		a.Share(n.Shape.Size())
		inner.hidden = a.Act
	} else if q := b.m.Quant[n.Name]; q != nil {
		inner.round = q.Spec.Format
	}
	b.edges[n.Name] = inner
	return nil
}
