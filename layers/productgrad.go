package layers

import (
	"errors"
	"slices"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/qat"
)

func (k *product) Backward(in G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	b := newProductGrad(k, in[0].Shape(), in[1].Shape())
	args := []*G.Node{in[0], in[1], grad}
	dw, err := gx.Apply(b, "gradient("+b.how()+"weight of "+k.name+")", b.dw, args...)
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
// A convolution's dw is a sum over examples: one part per shard, added in order. A dense layer is cut by its input
// features instead, rows of dw and columns of dx, each a sum over all examples or channels: weights are read once. The
// values of codes, s*(q-z), are made piece by piece, while they are in cache; or the gradient is rounded to integers, too,
// and the codes are multiplied as they are (kernel.Backward16).
type productGrad struct {
	f          *product
	integer    *kernel.Backward16 // nil: float32
	estimates  bool               // the weight's estimator has the rows of a dense dw while they are in cache
	bad        [par.Shards]bool   // the shard has seen a gradient that integer cannot round
	dw, db, dx *tensor.Dense
	dws, dxs   []float32
	pieces     [par.Shards][]float32 // values of a dense layer's piece of weights
	ws         []float32             // values of a convolution's weight codes
	flipped    []float32             // a convolution's w in the order that dx reads it
	parts      [par.Shards][]float32 // of dw
	others     []gradPart            // what is added to dx
	biasParts  []float64
	biasSum    []float64

	x, w, dy                         []float32
	codes, weight                    *qat.Codes
	eachRow, eachWeight, eachFeature func(shard, lo, hi int)
}

// how is for labels.
func (b *productGrad) how() string {
	if b.integer != nil {
		return "int16, "
	}
	return ""
}

func newProductGrad(k *product, in, weight tensor.Shape) *productGrad {
	b := &productGrad{f: k, dw: gx.NewTensor(weight...), integer: k.integer}
	b.dws = b.dw.Data().([]float32)
	b.eachRow, b.eachWeight, b.eachFeature = b.rowShard, b.weightShard, b.featureShard
	values := k.weight != nil && b.integer == nil // codes become values
	if b.integer != nil {
		b.eachFeature = b.integerShard
	}
	if values && !k.dense {
		b.ws = make([]float32, len(b.dws))
	}
	if values && k.dense {
		piece := min(pieceFeatures, (k.in+par.Shards-1)/par.Shards)
		for s := range par.Count(k.in) {
			b.pieces[s] = make([]float32, piece*k.geom.Cout)
		}
	}
	size := len(b.dws) // of a part
	if !k.dense && b.integer == nil {
		size = kernel.FlippedSize(k.geom)
	}
	for s := range par.Count(in[0]) {
		if k.dense {
			break
		}
		b.parts[s] = make([]float32, size)
	}
	if k.bias {
		b.db = gx.NewTensor(k.geom.Cout)
		b.biasParts = make([]float64, par.Shards*k.geom.Cout)
		b.biasSum = make([]float64, k.geom.Cout)
	}
	if k.needDX {
		b.dx = gx.NewTensor(in...)
		b.dxs = b.dx.Data().([]float32)
		if !k.dense && b.integer == nil {
			b.flipped = make([]float32, kernel.FlippedSize(k.geom))
		}
	}
	return b
}

func (b *productGrad) Run(in []G.Value) (G.Value, error) {
	f := b.f
	if err := b.load(in); err != nil {
		return nil, err
	}
	var err error
	if b.dy, err = gx.Floats(in[2]); err != nil {
		return nil, err
	}
	if f.dense {
		err = b.runDense()
	} else if err = f.st.EachRow(b.eachRow); err == nil {
		err = b.join()
	}
	return b.dw, err
}

// load reads the layer's inputs and prepares the weight.
func (b *productGrad) load(in []G.Value) error {
	f := b.f
	var err error
	if f.weight != nil {
		b.codes, b.weight = in[0].(*qat.Codes), in[1].(*qat.Codes)
		if b.integer != nil {
			clear(b.bad[:])
			scale, _ := b.codes.Params.At(0)
			b.integer.Begin(b.weight.S8, b.weight.Params.Scale, scale, f.st.Scratch(0))
			return nil
		}
		b.w = b.ws
		if f.needDX && !f.dense {
			b.weight.Dequantize(b.ws)
		}
	} else if b.x, err = gx.Floats(in[0]); err != nil {
		return err
	} else if b.w, err = gx.Floats(in[1]); err != nil {
		return err
	}
	if b.flipped != nil {
		kernel.FlipWeights(b.flipped, b.w, f.geom, f.st.Scratch(0))
	}
	return nil
}

func (b *productGrad) runDense() error {
	f := b.f
	if b.db != nil {
		kernel.SumColumns(b.biasSum, b.dy[:f.st.Rows*f.geom.Cout], f.geom.Cout)
		kernel.Round32(b.db.Data().([]float32), b.biasSum)
	}
	units := f.in
	if b.integer != nil {
		units = (f.in + kernel.FeatureUnit - 1) / kernel.FeatureUnit
	}
	b.estimates = f.weight != nil && f.weight.BeginRowsGrad(b.dws, units)
	if b.integer == nil {
		return f.st.Each(units, b.eachFeature)
	}
	if b.bad[0] = !b.integer.Rows(b.dy, f.st.Rows); b.bad[0] {
		return b.finite()
	}
	return f.st.Each(units, b.eachFeature)
}

// integerShard is featureShard on integers; a cut is made of units.
func (b *productGrad) integerShard(s, lo, hi int) {
	f := b.f
	_, z := b.codes.Params.At(0)
	lo, hi = lo*kernel.FeatureUnit, min(hi*kernel.FeatureUnit, f.in)
	b.integer.Features(s, b.dws, b.dxs, b.codes.U8, z, b.weight.S8, lo, hi)
	if b.estimates {
		f.weight.RowsGrad(s, lo, hi)
	}
}

// finite is an error where a gradient was NaN or infinite and has no integers.
func (b *productGrad) finite() error {
	if slices.Contains(b.bad[:], true) {
		return errors.New("a gradient is NaN or infinite: lower the learning rate, or find the layer with qat.backward: float")
	}
	return nil
}

// pieceFeatures is how many features of a quantized dense layer have their codes turned into values at a time: few enough
// that the values never leave the second-level cache.
const pieceFeatures = 128

// featureShard makes the rows [lo, hi) of a dense layer's dw and these columns of dx.
func (b *productGrad) featureShard(s, lo, hi int) {
	f := b.f
	c := f.geom.Cout
	if b.codes == nil {
		b.features(s, lo, hi, b.x[lo:], f.in, b.w[lo*c:hi*c])
		return
	}
	scale, z := b.codes.Params.At(0)
	for ; lo < hi; lo += pieceFeatures {
		end := min(hi, lo+pieceFeatures)
		n := end - lo
		x := f.st.Values(s, f.st.Rows*n)
		kernel.DequantizeColumns(x, b.codes.U8[lo:], f.in, n, f.st.Rows, scale, z)
		w := b.pieces[s][:n*c]
		if f.needDX {
			kernel.DequantizeS8(w, b.weight.S8[lo*c:end*c], b.weight.Params.Scale)
		}
		b.features(s, lo, end, x, n, w)
		if b.estimates {
			f.weight.RowsGrad(s, lo, end)
		}
	}
}

// features makes the rows [lo, hi) of dw from these columns of the input, which are stride apart, and the same columns of
// dx from these rows of the weight.
func (b *productGrad) features(s, lo, hi int, x []float32, stride int, w []float32) {
	f := b.f
	rows, c := f.st.Rows, f.geom.Cout
	kernel.Gemm(b.dws[lo*c:hi*c], c, x, stride, true, b.dy, c, false, hi-lo, c, rows, false, f.st.Scratch(s))
	if f.needDX {
		kernel.Gemm(b.dxs[lo:], f.in, b.dy, c, false, w, c, true, rows, hi-lo, c, false, f.st.Scratch(s))
	}
}

// rowShard does the examples [lo, hi) of a convolution.
func (b *productGrad) rowShard(s, lo, hi int) {
	for i := lo; i < hi; i++ {
		b.image(s, i, b.dy[i*b.f.outRow:(i+1)*b.f.outRow], i == lo)
	}
}

// image does example i, whose output's gradient is dy.
func (b *productGrad) image(s, i int, dy []float32, first bool) {
	f := b.f
	if b.db != nil {
		sumExample(b.biasParts, s, dy, f.geom.Cout, first)
	}
	if b.integer != nil {
		var dx []float32
		if f.needDX {
			dx = b.dxs[i*f.in : (i+1)*f.in]
		}
		_, z := b.codes.Params.At(0)
		if !b.integer.Image(s, b.parts[s], dx, b.codes.U8[i*f.in:(i+1)*f.in], z, dy, !first, f.st.Scratch(s)) {
			b.bad[s] = true
		}
		b.addOthers(i)
		return
	}
	if x := b.codes; x != nil {
		scale, z := x.Params.At(0)
		kernel.ConvBackwardWeightCodes(b.parts[s], x.U8[i*f.in:(i+1)*f.in], scale, z, dy, f.geom, !first, f.st.Scratch(s))
	} else {
		kernel.ConvBackwardWeight(b.parts[s], b.x[i*f.in:(i+1)*f.in], dy, 1, f.geom, !first, f.st.Scratch(s))
	}
	if f.needDX {
		kernel.ConvBackwardInputFlipped(b.dxs[i*f.in:(i+1)*f.in], dy, b.flipped, 1, f.geom, f.st.Scratch(s))
	}
	b.addOthers(i)
}

// addOthers adds the gradients that other readers of the input have for example i to this one's.
func (b *productGrad) addOthers(i int) {
	for _, p := range b.others {
		dx := b.dxs[i*b.f.in : (i+1)*b.f.in]
		p.add(dx, dx, i)
	}
}

// join adds the parts of a convolution's shards.
func (b *productGrad) join() error {
	f := b.f
	if err := b.finite(); err != nil {
		return err
	}
	if b.db != nil {
		c := f.geom.Cout
		kernel.Combine(b.biasSum, b.biasParts[:par.Count(f.st.Rows)*c], c)
		kernel.Round32(b.db.Data().([]float32), b.biasSum)
	}
	if b.integer != nil {
		return f.st.Each(len(b.dws), b.eachWeight)
	}
	return f.st.Each(len(b.dws)/(f.geom.KH*f.geom.KW), b.eachWeight)
}

// weightShard makes the elements [lo, hi) of a convolution's dw, of every tap where parts are in an order of their own.
func (b *productGrad) weightShard(s, lo, hi int) {
	f := b.f
	parts := b.parts[:par.Count(f.st.Rows)]
	if b.integer == nil {
		kernel.JoinWeightParts(b.dws, parts, f.geom, lo, hi, f.st.Scratch(s))
		return
	}
	copy(b.dws[lo:hi], parts[0][lo:hi])
	for _, p := range parts[1:] {
		kernel.Add(b.dws[lo:hi], b.dws[lo:hi], p[lo:hi])
	}
}

// sumExample adds the column sums of one example to its shard's part of parts.
func sumExample(parts []float64, s int, x []float32, channels int, first bool) {
	part := parts[s*channels : (s+1)*channels]
	if first {
		kernel.SumColumns(part, x, channels)
		return
	}
	kernel.AddColumns(part, x, channels)
}
