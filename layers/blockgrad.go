package layers

import (
	G "gorgonia.org/gorgonia"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/qat"
)

func (k *block) Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	b := &blockGrad{f: k, product: newProductGrad(k.product, in[0].Shape(), in[1].Shape())}
	b.dys = make([]float32, k.shape.TotalSize())
	b.eachFirst, b.eachSecond = b.firstShard, b.secondShard
	if k.norm != nil {
		b.norm = newNormGrad(k.norm)
	}
	args := G.Nodes{in[0], in[1], out, grad}
	if k.product.needDX && !k.product.dense {
		args = append(args, gx.Join(in[0])...)
	}
	dw, err := gx.Apply(b, "gradient("+b.product.how()+k.label+")", b.product.dw, args...)
	if err != nil {
		return nil, err
	}
	grads := G.Nodes{nil, dw}
	side := func(what string, v G.Value) error {
		n, err := gx.Side("gradient("+what+" of "+k.product.name+")", v, dw)
		grads = append(grads, n)
		return err
	}
	if k.product.needDX {
		if grads[0], err = gx.Side("gradient(input of "+k.product.name+")", b.product.dx, dw); err != nil {
			return nil, err
		}
	}
	if k.product.bias {
		if err := side("bias", b.product.db); err != nil {
			return nil, err
		}
	}
	if b.norm != nil {
		sides, err := b.norm.sides(dw)
		if err != nil {
			return nil, err
		}
		grads = append(grads, sides...)
	}
	if k.act == nil {
		return grads, nil
	}
	for i, g := range k.act.LearnedGrads() {
		if err := side(k.act.Learned()[i].String(), gx.Wrap(g, 1)); err != nil {
			return nil, err
		}
	}
	return grads, nil
}

// blockGrad computes all gradients of a block. The first pass brings the gradient through quantizer and ReLU and makes
// batch norm's sums; the second brings it through batch norm and pooling, image by image, straight into the product's
// gradients. Without batch norm the first pass does both.
type blockGrad struct {
	f                     *block
	product               *productGrad
	norm                  *normGrad
	dy, dys               []float32       // of the output, and behind quantizer and ReLU
	masked                *qat.MaskedGrad // whose dy it is; nil: of no mask
	eachFirst, eachSecond func(shard, lo, hi int)
}

func (b *blockGrad) Run(in []G.Value) (G.Value, error) {
	f := b.f
	if err := b.product.load(in[:2]); err != nil {
		return nil, err
	}
	var err error
	if b.product.others, err = gradParts(b.product.others, in[4:]); err != nil {
		return nil, err
	}
	if err := b.begin(in[3]); err != nil {
		return nil, err
	}
	if f.act != nil {
		f.act.BeginGrad(b.dys, b.dy, b.masked)
	}
	if err := f.st.EachRow(b.eachFirst); err != nil {
		return nil, err
	}
	if f.act != nil {
		f.act.EndGrad()
	}
	if b.norm != nil {
		b.norm.join()
		if err := f.st.EachRow(b.eachSecond); err != nil {
			return nil, err
		}
	}
	if f.product.dense {
		b.product.dy = b.dys
		return b.product.dw, b.product.runDense()
	}
	return b.product.dw, b.product.join()
}

// begin takes the gradient of the output, and the mask that is still to be applied to it.
func (b *blockGrad) begin(v G.Value) (err error) {
	if m, ok := v.(*qat.MaskedGrad); ok && (b.f.act == nil || b.f.act.Masks()) {
		b.masked, b.dy = m, m.Whole()
		return nil
	}
	b.masked = nil
	b.dy, err = gx.Floats(v)
	return err
}

// passes are the bits of example i where its gradient passes all that follows the norm, in direct steps; nil: everywhere.
func (b *blockGrad) passes(i int) []uint8 {
	if mask := b.f.passes(i); mask != nil || b.masked == nil {
		return mask
	}
	_, mask := b.masked.Row(i)
	return mask
}

// arrive joins the mask that the gradient of example i came with to the block's own, in direct steps.
func (b *blockGrad) arrive(s, i int) {
	if b.f.act != nil {
		b.f.act.Arrive(s, i, i+1)
	} else if mask := b.f.passes(i); mask != nil && b.masked != nil {
		_, by := b.masked.Row(i)
		for j, bits := range by {
			mask[j] &= bits
		}
	}
}

func (b *blockGrad) firstShard(s, lo, hi int) {
	f := b.f
	step := f.step(lo, hi)
	if b.norm != nil {
		b.norm.clearSums(s)
	}
	for i := lo; i < hi; i += step {
		if f.direct() {
			b.arrive(s, i)
			from, to := i*f.out, (i+1)*f.out
			b.norm.sumGroup(s, b.dy[from:to], b.passes(i), f.v[from:to])
			continue
		}
		b.behind(s, i, i+step)
		switch {
		case b.norm != nil && f.norm.group(lo, hi) == step:
			b.sum(s, i, i+step)
		case b.norm == nil && !f.product.dense:
			b.product.image(s, i, b.unpoolAt(s, i, b.dys[i*f.out:(i+1)*f.out]), i == lo)
		}
	}
	if b.norm != nil && !f.direct() && f.norm.group(lo, hi) != step { // images of one pixel
		b.sum(s, lo, hi)
	}
}

// behind brings the gradient of the examples [i, j) through quantizer and ReLU.
func (b *blockGrad) behind(s, i, j int) {
	f := b.f
	from, to := i*f.out, j*f.out
	dy := b.dys[from:to]
	limit, ys := f.limit, f.ys
	if f.onAcc() {
		limit, ys = qat.Limit{}, nil // the quantizer applied the limits, and masks the gradient
	}
	if !limit.Relu || limit.Cap > 0 {
		ys = nil
	}
	switch {
	case f.act != nil:
		f.act.ReLUExamplesGrad(s, i, j, ys)
	case b.masked != nil:
		b.masked.Write(dy, i, j)
		if ys != nil {
			kernel.ReLUGrad(dy, dy, ys[from:to])
		}
	case ys != nil:
		kernel.ReLUGrad(dy, b.dy[from:to], ys[from:to])
	default:
		copy(dy, b.dy[from:to])
	}
	if limit.Cap > 0 {
		kernel.ReLUCapGrad(dy, dy, f.ys[from:to], limit.Cap)
	}
}

// sum adds the examples [i, j) to batch norm's sums.
func (b *blockGrad) sum(s, i, j int) {
	f := b.f
	from, to := i*f.out, j*f.out
	v := f.v
	if f.pool != nil {
		v = f.win
	}
	if f.onAcc() {
		acc := f.product.acc
		kernel.ScaleRows(v[from:to], f.raw[from:to], acc.Offset, f.norm.mult, f.norm.channels)
	}
	b.norm.sumGroup(s, b.dys[from:to], nil, v[from:to])
}

func (b *blockGrad) secondShard(s, lo, hi int) {
	f := b.f
	step := f.step(lo, hi)
	for i := lo; i < hi; i += step {
		dy := b.dys[i*f.out : (i+step)*f.out]
		switch {
		case f.direct():
			image := b.image(s)
			kernel.NormalizeGrad(image, b.dy[i*f.out:(i+1)*f.out], b.passes(i), f.kept(s, i, i+1), &b.norm.params)
			b.product.image(s, i, image, i == lo)
			continue
		case f.pool == nil:
			b.norm.example(dy, dy, f.kept(s, i, i+step))
		case f.st.NormTrains():
			image := b.image(s)
			kernel.NormPoolGrad(image, f.pool.W*f.pool.C, f.kept(s, i, i+1), dy, f.arg[i*f.out:(i+1)*f.out], &b.norm.params, *f.pool)
			b.product.image(s, i, image, i == lo)
			continue
		default:
			b.norm.example(dy, dy, f.win[i*f.out:(i+step)*f.out])
			dy = b.unpoolAt(s, i, dy)
		}
		if !f.product.dense {
			b.product.image(s, i, dy, i == lo)
		}
	}
}

// image is a shard's memory for the gradient of one example before pooling.
func (b *blockGrad) image(s int) []float32 { return b.f.st.Gradient(s, b.f.full) }

// unpoolAt is the gradient before pooling of example i.
func (b *blockGrad) unpoolAt(s, i int, dy []float32) []float32 {
	g := b.f.pool
	if g == nil {
		return dy
	}
	image := b.image(s)
	kernel.PoolScatter(image, g.W*g.C, dy, b.f.arg[i*b.f.out:(i+1)*b.f.out], *g)
	return image
}
