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

// norm is the batch norm after a product. Inputs are the product v, without its bias, then gamma, beta and, if the layer
// has one, the bias.
//
//	training         y = (v - mean)*gamma/sqrt(var + eps) + beta, statistics of the batch
//	frozen, floats   y = float32(mul*v) + add                     model.Affine.Float32
//	frozen, codes    acc' = sign*acc + q_b, at scale sx*S[c]      model.Affine.Fold
//
// Accumulators enter training as the values float32(acc)*float32(sx*s_w[c]).
type norm struct {
	st       *qat.Step
	m        *model.Model
	node     *model.Node
	weight   *qat.Weight
	channels int
	row      int // elements of an example
	bias     bool

	gamma, beta, b []float32
	mean, invStd   []float32 // of the step: the batch's, or the running ones less the bias
	variance       []float32
	ones, zeros    []float32
	mul, add       []float32
	f              []float64 // the frozen affine map's factor
	batchMean      []float32 // with the bias, for the running mean

	v, ys    []float32
	y        *tensor.Dense
	acc      *qat.Acc // the input of a quantized layer
	mult     []float32
	vs       []float32 // its values
	folded   *qat.Acc  // the output of a frozen quantized layer
	own      []int32   // sign*acc where a sign is not 1
	parts    []float64
	sums     []float64
	eachMean func(shard, lo, hi int)
	eachVar  func(shard, lo, hi int)
	eachNorm func(shard, lo, hi int)
	eachFold func(shard, lo, hi int)
	eachVals func(shard, lo, hi int)
	signs    []int8
}

func newNorm(st *qat.Step, m *model.Model, n *model.Node, v, gamma, beta, bias *G.Node, weight *qat.Weight) (*G.Node, error) {
	shape := v.Shape()
	c := n.Attr.Units
	k := &norm{st: st, m: m, node: n, weight: weight, channels: c, row: shape.TotalSize() / shape[0], bias: bias != nil}
	for _, p := range []*[]float32{&k.mean, &k.invStd, &k.variance, &k.ones, &k.zeros, &k.batchMean, &k.mult} {
		*p = make([]float32, c)
	}
	for i := range k.ones {
		k.ones[i] = 1
	}
	k.parts, k.sums = make([]float64, 2*par.Shards*c), make([]float64, 2*c)
	var out G.Value
	if weight != nil {
		k.folded = qat.NewAccView(shape)
		out = k.folded
	}
	if weight == nil || st.Train {
		k.y = gx.NewTensor(shape...)
		k.ys, out = k.y.Data().([]float32), k.y
	}
	if weight != nil && st.Train {
		k.vs = make([]float32, shape.TotalSize())
	}
	k.eachMean, k.eachVar, k.eachNorm, k.eachFold, k.eachVals = k.meanShard, k.varShard, k.normShard, k.foldShard, k.valueShard
	args := []*G.Node{v, gamma, beta}
	if bias != nil {
		args = append(args, bias)
	}
	return gx.Apply(k, "batchnorm "+n.Layer, out, args...)
}

func (k *norm) Run(in []G.Value) (G.Value, error) {
	var err error
	if k.gamma, err = gx.Floats(in[1]); err != nil {
		return nil, err
	}
	if k.beta, err = gx.Floats(in[2]); err != nil {
		return nil, err
	}
	if k.bias {
		if k.b, err = gx.Floats(in[3]); err != nil {
			return nil, err
		}
	}
	k.acc, _ = in[0].(*qat.Acc)
	if k.acc == nil {
		if k.v, err = gx.Floats(in[0]); err != nil {
			return nil, err
		}
	} else if k.st.Train {
		k.acc.Multipliers(k.mult)
		k.v = k.vs
	}
	switch {
	case k.st.NormTrains():
		return k.y, k.runBatch()
	case k.acc != nil:
		return k.folded, k.runFolded()
	default:
		return k.y, k.runFrozen()
	}
}

// valueShard turns accumulators into float32, for the statistics and the gradient.
func (k *norm) valueShard(_, lo, hi int) {
	k.acc.Values(k.vs[lo*k.row:hi*k.row], lo*k.row, k.mult)
}

func (k *norm) runBatch() error {
	c, rows := k.channels, k.st.Rows
	n := rows * k.row / c
	if n == 0 {
		return nil
	}
	parts, sums := k.parts[:par.Count(rows)*c], k.sums[:c]
	if err := k.st.EachRow(k.eachMean); err != nil {
		return err
	}
	kernel.Combine(sums, parts, c)
	kernel.BatchMean(k.mean, sums, n)
	if err := k.st.EachRow(k.eachVar); err != nil {
		return err
	}
	kernel.Combine(sums, parts, c)
	kernel.BatchInvStd(k.invStd, k.variance, sums, n, float64(k.node.Attr.Eps))
	if err := k.st.EachRow(k.eachNorm); err != nil {
		return err
	}
	copy(k.batchMean, k.mean)
	if k.bias {
		kernel.Add(k.batchMean, k.batchMean, k.b)
	}
	run := k.running()
	kernel.UpdateRunning(run[0], run[1], k.batchMean, k.variance, n, float64(k.node.Attr.Momentum))
	return nil
}

// running are the running mean and variance.
func (k *norm) running() [2][]float32 {
	return [2][]float32{k.m.Params[k.node.Param(model.Mean)].Data, k.m.Params[k.node.Param(model.Var)].Data}
}

func (k *norm) meanShard(s, lo, hi int) {
	if k.acc != nil {
		k.valueShard(s, lo, hi)
	}
	kernel.SumColumns(k.parts[s*k.channels:(s+1)*k.channels], k.v[lo*k.row:hi*k.row], k.channels)
}

func (k *norm) varShard(s, lo, hi int) {
	kernel.SumSquaredDeviations(k.parts[s*k.channels:(s+1)*k.channels], k.v[lo*k.row:hi*k.row], k.mean, k.channels)
}

func (k *norm) normShard(_, lo, hi int) {
	y, v := k.ys[lo*k.row:hi*k.row], k.v[lo*k.row:hi*k.row]
	if k.st.NormTrains() {
		kernel.Normalize(y, v, k.mean, k.invStd, k.gamma, k.beta, k.channels)
		return
	}
	kernel.Normalize(y, v, k.zeros, k.ones, k.mul, k.add, k.channels) // (v-0)*(mul*1) + add: the affine map, exactly
}

// freeze reads the affine map and, for the gradient, the statistics it is made of.
func (k *norm) freeze() error {
	a, err := k.m.Affine(k.node)
	if err != nil {
		return err
	}
	k.f = a.F
	k.mul, k.add = a.Float32()
	run := k.running()
	kernel.InvStd(k.invStd, run[1], float64(k.node.Attr.Eps))
	copy(k.mean, run[0])
	if k.bias {
		for c, b := range k.b {
			k.mean[c] -= b
		}
	}
	return nil
}

func (k *norm) runFrozen() error {
	if err := k.freeze(); err != nil {
		return err
	}
	return k.st.EachRow(k.eachNorm)
}

func (k *norm) runFolded() error {
	if k.st.Train { // the gradient needs values and statistics
		if err := k.freeze(); err != nil {
			return err
		}
		if err := k.st.EachRow(k.eachVals); err != nil {
			return err
		}
	}
	f := k.weight.Folded()
	if f == nil {
		return fmt.Errorf("batch norm is not folded")
	}
	out := k.folded
	out.InScale, k.signs = k.acc.InScale, f.Sign
	copy(out.Scale, f.Scale)
	same := true
	for c, sign := range f.Sign {
		out.Offset[c] = int32(sign)*k.acc.Offset[c] + f.Bias[c]
		same = same && sign == 1
	}
	if same {
		out.Raw = k.acc.Raw
		return nil
	}
	if k.own == nil {
		k.own = make([]int32, len(k.acc.Raw))
	}
	out.Raw = k.own
	return k.st.EachRow(k.eachFold)
}

func (k *norm) foldShard(_, lo, hi int) {
	from := k.acc.Raw[lo*k.row : hi*k.row]
	to := k.own[lo*k.row : hi*k.row]
	for i := 0; i < len(from); i += k.channels {
		for c, sign := range k.signs {
			to[i+c] = int32(sign) * from[i+c]
		}
	}
}

func (k *norm) Needs() []bool { return []bool{true, true, true, true}[:3+btoi(k.bias)] }

func (k *norm) Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	c := k.channels
	b := &normGrad{f: k, dv: gx.NewTensor(in[0].Shape()...), dgamma: gx.NewTensor(c), dbeta: gx.NewTensor(c), mul: make([]float32, c)}
	b.eachSum, b.eachDV = b.sumShard, b.dvShard
	dv, err := gx.Apply(b, "gradient(batchnorm "+k.node.Layer+")", b.dv, out, grad)
	if err != nil {
		return nil, err
	}
	grads := G.Nodes{dv}
	sides := []*tensor.Dense{b.dgamma, b.dbeta}
	if k.bias {
		b.dbias = gx.NewTensor(c)
		sides = append(sides, b.dbias)
	}
	for i, v := range sides {
		n, err := gx.Side(fmt.Sprintf("gradient(%s of %s)", []string{"gamma", "beta", "bias"}[i], k.node.Layer), v, dv)
		if err != nil {
			return nil, err
		}
		grads = append(grads, n)
	}
	return grads, nil
}

// normGrad computes the gradients of a norm. Frozen, the map is affine: dv = F*dy, and the bias gets F*sum(dy); while
// training, the bias cancels and gets nothing.
type normGrad struct {
	f                        *norm
	dv, dgamma, dbeta, dbias *tensor.Dense
	dy                       []float32
	mul                      []float32
	eachSum, eachDV          func(shard, lo, hi int)
}

func (b *normGrad) Run(in []G.Value) (G.Value, error) {
	k := b.f
	var err error
	if b.dy, err = gx.Floats(in[1]); err != nil {
		return nil, err
	}
	c := k.channels
	if err := k.st.EachRow(b.eachSum); err != nil {
		return nil, err
	}
	shards := par.Count(k.st.Rows)
	half := par.Shards * c
	kernel.Combine(k.sums[:c], k.parts[:shards*c], c)
	kernel.Combine(k.sums[c:], k.parts[half:half+shards*c], c)
	kernel.Round32(b.dgamma.Data().([]float32), k.sums[:c])
	kernel.Round32(b.dbeta.Data().([]float32), k.sums[c:])
	if b.dbias != nil {
		dbias := b.dbias.Data().([]float32)
		clear(dbias)
		if !k.st.NormTrains() {
			for i, v := range k.sums[c:] {
				dbias[i] = float32(v * k.f[i])
			}
		}
	}
	if !k.st.NormTrains() {
		for i, f := range k.f {
			b.mul[i] = float32(f)
		}
	}
	return b.dv, k.st.EachRow(b.eachDV)
}

func (b *normGrad) sumShard(s, lo, hi int) {
	k := b.f
	c, half := k.channels, par.Shards*k.channels
	from, to := lo*k.row, hi*k.row
	kernel.NormalizeGradSums(k.parts[s*c:(s+1)*c], k.parts[half+s*c:half+(s+1)*c], b.dy[from:to], k.v[from:to], k.mean, k.invStd, c)
}

func (b *normGrad) dvShard(_, lo, hi int) {
	k := b.f
	c, from, to := k.channels, lo*k.row, hi*k.row
	dv := b.dv.Data().([]float32)[from:to]
	if k.st.NormTrains() {
		n := k.st.Rows * k.row / c
		kernel.NormalizeGrad(dv, b.dy[from:to], k.v[from:to], k.mean, k.invStd, k.gamma, k.sums[:c], k.sums[c:], n, c)
		return
	}
	kernel.Normalize(dv, b.dy[from:to], k.zeros, k.ones, b.mul, k.zeros, c)
}
