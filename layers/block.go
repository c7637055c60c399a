package layers

import (
	"fmt"
	"strings"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

// block is a conv or dense layer of a training graph with all that follows it as one op: product, batch norm, ReLU, the
// pooling that alone reads it, and the quantizer of its output. It drives the same parts that nodes of their own would be,
// an image at a time while the image is in cache, so the results are the same to the bit.
//
// Inputs are x, w, then bias, or gamma, beta and the bias, and last what the quantizer learns. A step works on
//
//	accumulators    codes come in, and batch norm is frozen or absent:    acc -> greatest of a window -> fold -> codes
//	values          otherwise:        v -> normalized, greatest of a window -> ReLU -> output or codes
//
// Normalization and pooling are one pass. Behind a pooling only the winners are kept, with what the gradient needs of them.
// While batch norm trains, all that follows an image's values is one pass, if no pooling does: see direct.
type block struct {
	st      *qat.Step
	label   string
	product *product
	norm    *norm // nil: none
	limit   qat.Limit
	pool    *kernel.PoolGeom // nil: none
	act     *qat.Act         // nil: the output is float32
	shape   tensor.Shape     // of the output
	full    int              // elements of an example before pooling
	out     int              // and after

	y      *tensor.Dense
	ys     []float32 // output: after norm, pooling and ReLU
	v      []float32 // values before norm, where they are kept
	arg    []uint8   // places of a window's winners
	win    []float32 // v of the winners
	raw    []int32   // accumulators of the winners
	folded []int32   // sign*raw, where a sign is not 1
	acc    *qat.Acc  // what the quantizer reads
	same   bool      // all signs are 1

	forward   kernel.NormParams
	after     kernel.NormAct // norm and ReLU, in direct steps
	pass      []uint8        // where the gradient passes the ReLU of a float32 output, in direct steps
	passRow   int
	signs     kernel.Signs
	eachValue func(shard, lo, hi int)
	eachEnd   func(shard, lo, hi int)
	eachAcc   func(shard, lo, hi int)
}

// block adds the layer.
func (b *builder) block(l *weighted) error {
	n, batch := l.Node, b.o.Batch
	p, err := makeProduct(b.st, l, l.bias != nil && !n.Attr.Norm)
	if err != nil {
		return err
	}
	k := &block{
		st: b.st, product: p, limit: qat.Limit{Relu: n.Attr.Relu, Cap: n.Attr.Cap}, pool: l.geom,
		shape: p.shape(batch), full: p.outRow, out: p.outRow,
	}
	parts := []string{n.Op.String()}
	args := []*G.Node{l.x.node, l.w}
	if n.Attr.Norm {
		k.norm = makeNorm(b.st, b.m, n, k.shape, l.bias != nil, l.weight, l.geom)
		args = append(args, l.gamma, l.beta)
		parts = append(parts, "batchnorm")
	}
	if l.bias != nil {
		args = append(args, l.bias)
	}
	if n.Attr.Relu {
		parts = append(parts, "relu")
	}
	if k.pool != nil {
		k.shape = tensor.Shape{batch, k.pool.OutH(), k.pool.OutW(), k.pool.C}
		k.out = k.pool.OutH() * k.pool.OutW() * k.pool.C
		parts = append(parts, "maxpool")
	}
	q := b.m.Quant[n.Name]
	if l.weight != nil {
		learned, err := b.quantizer(k, n, q)
		if err != nil {
			return err
		}
		args = append(args, learned...)
		parts = append(parts, k.act.Label())
	}
	k.label = fmt.Sprintf("%s %s", strings.Join(parts, "+"), n.Layer)
	k.allot(batch)
	var out G.Value = k.y
	if k.act != nil {
		out = k.act.Codes()
	}
	e := edge{kind: onFloats, grad: true}
	if e.node, err = gx.Apply(k, k.label, out, args...); err != nil {
		return err
	}
	switch {
	case k.act != nil:
		e.kind = onCodes
	case q != nil && q.Spec.Format != quant.FP32:
		if e, err = b.store(n, e.node, true); err != nil {
			return err
		}
	}
	if l.pool != nil {
		b.edges[l.pool.Name] = e
	} else {
		b.edges[n.Name] = e
	}
	return nil
}

// quantizer makes the quantizer of the block's output and the leaves of what it learns.
func (b *builder) quantizer(k *block, n *model.Node, q *quant.Params) (learned G.Nodes, err error) {
	if !q.Ready() {
		return nil, notCalibrated(n.Name)
	}
	if learned, err = b.learn(n.Name, q); err != nil {
		return nil, err
	}
	if k.act, err = qat.NewAct(b.st, n.Name, q, k.shape, len(learned), true); err != nil {
		return nil, err
	}
	k.act.Share(k.full)
	b.acts[n.Name] = &act{k.act, q}
	return learned, nil
}

// allot makes the memory of a batch.
func (k *block) allot(batch int) {
	p := k.product
	integer := k.act != nil
	if p.dense {
		p.allot(batch)
	} else if integer {
		p.acc = qat.NewAccView(p.shape(batch))
	}
	values := !integer || k.norm != nil && !k.onePass() // some step may store values after norm
	if values {
		k.y = gx.NewTensor(k.shape...)
		k.ys = k.y.Data().([]float32)
	}
	switch {
	case k.norm != nil && !integer && p.dense:
		k.v = p.ys
	case k.norm != nil && !k.cheap():
		k.v = make([]float32, batch*k.full)
	case !integer && p.dense:
		p.ys, k.v = k.ys, k.ys
	case !integer && k.pool == nil:
		k.v = k.ys
	}
	if k.pool != nil {
		k.arg = make([]uint8, batch*k.out)
		if k.norm != nil {
			k.win = make([]float32, batch*k.out)
		}
	}
	if integer && !(p.dense && k.pool == nil) {
		k.raw = make([]int32, batch*k.out)
	}
	if integer && p.dense {
		k.raw = p.acc.Raw
	}
	k.after = kernel.NormAct{Norm: &k.forward, ReLU: k.limit.Relu, Cap: k.limit.Cap}
	if !integer && k.limit.Relu {
		k.passRow = kernel.MaskLen(k.out)
		k.pass = make([]uint8, batch*k.passRow)
	}
	k.signs.Set(nil, p.geom.Cout)
	k.eachValue, k.eachEnd, k.eachAcc = k.valueShard, k.endShard, k.accShard
}

// image is a shard's memory for one example's values, accumulators that for its accumulators.
func (k *block) image(s int) []float32 { return k.st.Values(s, k.full) }

func (k *block) accumulators(s int) []int32 { return k.st.Sums(s, k.full) }

// onAcc reports a step that works on accumulators.
func (k *block) onAcc() bool { return k.act != nil && (k.norm == nil || !k.st.NormTrains()) }

// direct reports a step that takes images of values to the output in one pass, and its gradient back in one.
func (k *block) direct() bool { return k.onePass() && k.st.NormTrains() }

// onePass reports a layer of images whose steps are direct while batch norm trains.
func (k *block) onePass() bool {
	return k.norm != nil && k.pool == nil && k.norm.row != k.norm.channels && !(k.act != nil && k.act.Sign())
}

// passes are the bits of example i where the gradient passes quantizer and ReLU, in direct steps; nil: everywhere.
func (k *block) passes(i int) []uint8 {
	switch {
	case k.act != nil:
		return k.act.Mask(i)
	case k.pass != nil:
		return k.pass[i*k.passRow : (i+1)*k.passRow]
	}
	return nil
}

func (k *block) Run(in []G.Value) (G.Value, error) {
	if err := k.load(in); err != nil {
		return nil, err
	}
	var err error
	switch {
	case k.onAcc():
		err = k.runAcc()
	default:
		err = k.runValues()
	}
	if err != nil || k.act == nil {
		return k.y, err
	}
	return k.act.Codes(), k.act.End()
}

// load reads the step's inputs and, for a dense layer, computes the product.
func (k *block) load(in []G.Value) error {
	p, n := k.product, 2+btoi(k.product.bias)
	if err := p.load(in[:n]); err != nil {
		return err
	}
	if k.norm != nil {
		if err := k.norm.load(in[2:]); err != nil {
			return err
		}
		k.norm.acc = p.acc
		if p.acc != nil {
			p.acc.Multipliers(k.norm.mult)
		}
	}
	if p.dense {
		return p.run()
	}
	return nil
}

func (k *block) runValues() error {
	n := k.norm
	switch {
	case k.act == nil:
	case k.direct():
		k.act.BeginNorm(k.v, &k.after)
	default:
		if err := k.act.Begin(k.y); err != nil {
			return err
		}
	}
	switch {
	case n == nil:
		return k.st.EachRow(k.eachValue)
	case !k.st.NormTrains():
		if err := n.freeze(); err != nil {
			return err
		}
		k.forward.Forward(n.zeros, n.mul, n.add)
		return k.st.EachRow(k.eachValue)
	}
	if err := k.st.EachRow(k.eachValue); err != nil {
		return err
	}
	n.joinStats()
	k.forward.Set(n.mean, n.invStd, n.gamma, n.beta)
	return k.st.EachRow(k.eachEnd)
}

// step is how many of the examples [lo, hi) are done at a time: an image, or all rows of a dense layer.
func (k *block) step(lo, hi int) int {
	if k.product.dense {
		return hi - lo
	}
	return 1
}

// valueShard makes the values of the product and, where batch norm trains, its statistics; else it goes on to the end.
func (k *block) valueShard(s, lo, hi int) {
	trains := k.norm != nil && k.st.NormTrains()
	if trains {
		k.norm.moments[s].Reset(k.norm.channels)
	}
	step, group := k.step(lo, hi), 1
	if trains {
		group = k.norm.group(lo, hi)
	}
	for i := lo; i < hi; i += step {
		v := k.values(s, i, i+step)
		if !trains {
			k.end(s, i, i+step, v)
		} else if group == step {
			k.norm.moments[s].Add(v)
		}
	}
	if trains && group != step { // images of one pixel
		k.norm.moments[s].Add(k.v[lo*k.full : hi*k.full])
	}
}

// values computes the values of the examples [i, j) before norm.
func (k *block) values(s, i, j int) []float32 {
	p := k.product
	from, to := i*k.full, j*k.full
	var v []float32
	if k.v == nil {
		v = k.image(s)
	} else {
		v = k.v[from:to]
	}
	switch {
	case k.act == nil && !p.dense:
		p.imagesFloat(v, s, i, j)
	case k.act != nil && p.dense:
		kernel.ScaleRows(v, p.acc.Raw[from:to], p.acc.Offset, k.norm.mult, p.geom.Cout)
	case k.act != nil:
		p.imagesValues(v, s, i, j, k.norm.mult)
	}
	return v
}

// cheap reports values that are rather computed again than kept: those of a convolution of codes with so few terms that
// to read them back from memory takes longer. First layers are so.
func (k *block) cheap() bool {
	return k.act != nil && k.pool != nil && k.product.geom.Depth() <= 16
}

// kept are the values of the examples [i, j) before norm, once they have been computed.
func (k *block) kept(s, i, j int) []float32 {
	if k.v == nil {
		return k.values(s, i, j)
	}
	return k.v[i*k.full : j*k.full]
}

func (k *block) endShard(s, lo, hi int) {
	step := k.step(lo, hi)
	for i := lo; i < hi; i += step {
		k.end(s, i, i+step, k.kept(s, i, i+step))
	}
}

// end does what follows the product to the examples [i, j), whose values are v.
func (k *block) end(s, i, j int, v []float32) {
	from, to := i*k.out, j*k.out
	switch direct := k.direct(); {
	case direct && k.act != nil:
		k.act.Examples(s, i, j)
		return
	case direct && k.limit.Relu:
		k.after.Values(k.ys[from:to], k.passes(i), v)
		return
	}
	y := k.ys[from:to]
	switch n := k.norm; {
	case k.pool != nil && n != nil:
		kernel.NormPool(y, k.arg[from:to], k.win[from:to], v, &k.forward, *k.pool)
	case k.pool != nil:
		kernel.MaxPool(y, k.arg[from:to], v, 1, *k.pool)
	case n != nil && k.st.NormTrains():
		kernel.Normalize(y, v, n.mean, n.invStd, n.gamma, n.beta, n.channels)
	case n != nil:
		kernel.Normalize(y, v, n.zeros, n.ones, n.mul, n.add, n.channels)
	}
	switch {
	case k.limit.Cap > 0:
		kernel.ReLUCap(y, y, k.limit.Cap)
	case k.limit.Relu:
		kernel.ReLU(y, y)
	}
	if k.act != nil {
		k.act.Examples(s, i, j)
	}
}

func (k *block) runAcc() error {
	from := k.product.acc
	k.same = true
	if n := k.norm; n != nil {
		if err := n.freeze(); err != nil {
			return err
		}
		var err error
		if k.same, err = n.fold(); err != nil {
			return err
		}
		k.signs.Set(n.signs, n.channels)
		from = n.folded
	}
	raw := k.raw
	if !k.same {
		if k.folded == nil {
			k.folded = make([]int32, len(k.raw))
		}
		raw = k.folded
	}
	k.acc = from.Over(raw, k.shape, k.acc)
	k.acc.Limit = k.limit
	if err := k.act.Begin(k.acc); err != nil {
		return err
	}
	return k.st.EachRow(k.eachAcc)
}

func (k *block) accShard(s, lo, hi int) {
	p := k.product
	step := k.step(lo, hi)
	for i := lo; i < hi; i += step {
		from, to := i*k.out, (i+step)*k.out
		raw := k.raw[from:to]
		switch {
		case k.pool != nil:
			acc := k.accumulators(s)
			p.imagesCodes(acc, s, i, i+1)
			kernel.MaxPoolAcc(raw, k.arg[from:to], acc, &k.signs, *k.pool)
		case !p.dense:
			p.imagesCodes(raw, s, i, i+1)
		}
		if !k.same {
			k.norm.foldInto(k.folded[from:to], raw)
		}
		k.act.Examples(s, i, i+step)
	}
}

func (k *block) Needs() []bool {
	needs := []bool{k.product.needDX, true}
	n := btoi(k.product.bias)
	if k.norm != nil {
		n = 2 + btoi(k.norm.bias)
	}
	if k.act != nil {
		n += len(k.act.Learned())
	}
	for range n {
		needs = append(needs, true)
	}
	return needs
}
