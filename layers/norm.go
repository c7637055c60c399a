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
	channels int // statistics: one for each unit, or one in all
	units    int
	row      int              // elements of an example
	pool     *kernel.PoolGeom // of the pooling behind the layer, in training: see sumGroup
	bias     bool

	gamma, beta, b []float32
	mean, invStd   []float32 // of the step: the batch's, or the running ones less the bias
	variance       []float32
	ones, zeros    []float32
	mul, add       []float32
	f              []float64 // the frozen affine map's factor
	batchMean      []float32 // with the bias, for the running mean
	moments        [par.Shards]kernel.Moments
	parts, sums    []float64 // of gamma's and beta's gradients

	v, ys     []float32
	y         *tensor.Dense
	acc       *qat.Acc // the input of a quantized layer
	mult      []float32
	vs        []float32 // its values
	folded    *qat.Acc  // the output of a frozen quantized layer
	ownWide   []int64   // the same in 64 bits
	own       []int32   // sign*acc where a sign is not 1
	signs     []int8
	eachStats func(shard, lo, hi int)
	eachNorm  func(shard, lo, hi int)
	eachFold  func(shard, lo, hi int)
	eachVals  func(shard, lo, hi int)
}

// makeNorm is a norm without a node and without memory for its values.
func makeNorm(st *qat.Step, m *model.Model, n *model.Node, shape tensor.Shape, bias bool, weight *qat.Weight, pool *kernel.PoolGeom) *norm {
	c := n.Attr.Units
	k := &norm{st: st, m: m, node: n, weight: weight, channels: c, units: c, row: shape.TotalSize() / shape[0], pool: pool, bias: bias}
	if n.Attr.Whole {
		k.channels = 1
	}
	for _, p := range []*[]float32{&k.ones, &k.zeros, &k.mult} {
		*p = make([]float32, c)
	}
	c = k.channels
	for _, p := range []*[]float32{&k.mean, &k.invStd, &k.variance, &k.batchMean} {
		*p = make([]float32, c)
	}
	for i := range k.ones {
		k.ones[i] = 1
	}
	k.parts, k.sums = make([]float64, 2*par.Shards*c), make([]float64, 2*c)
	if weight != nil {
		k.folded = qat.NewAccView(shape)
	}
	return k
}

func newNorm(st *qat.Step, m *model.Model, n *model.Node, v, gamma, beta, bias *G.Node, weight *qat.Weight, pool *kernel.PoolGeom) (*G.Node, error) {
	shape := v.Shape()
	k := makeNorm(st, m, n, shape, bias != nil, weight, pool)
	var out G.Value
	if weight != nil {
		out = k.folded
	}
	if weight == nil || st.Train {
		k.y = gx.NewTensor(shape...)
		k.ys, out = k.y.Data().([]float32), k.y
	}
	if weight != nil && st.Train {
		k.vs = make([]float32, shape.TotalSize())
	}
	k.eachStats, k.eachNorm, k.eachFold, k.eachVals = k.statsShard, k.normShard, k.foldShard, k.valueShard
	args := []*G.Node{v, gamma, beta}
	if bias != nil {
		args = append(args, bias)
	}
	return gx.Apply(k, "batchnorm "+n.Layer, out, args...)
}

func (k *norm) Run(in []G.Value) (G.Value, error) {
	err := k.load(in[1:])
	if err != nil {
		return nil, err
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

// load reads gamma, beta and the bias.
func (k *norm) load(in []G.Value) error {
	var err error
	if k.gamma, err = gx.Floats(in[0]); err != nil {
		return err
	}
	if k.beta, err = gx.Floats(in[1]); err != nil {
		return err
	}
	if k.bias {
		k.b, err = gx.Floats(in[2])
	}
	return err
}

// valueShard turns accumulators into float32, for the statistics and the gradient.
func (k *norm) valueShard(_, lo, hi int) {
	k.acc.Values(k.vs[lo*k.row:hi*k.row], lo*k.row, k.mult)
}

func (k *norm) runBatch() error {
	if err := k.st.EachRow(k.eachStats); err != nil {
		return err
	}
	k.joinStats()
	return k.st.EachRow(k.eachNorm)
}

// group is how many examples at a time sums over rows are made of: one image, or all of a shard where an example is one
// row. Where a sum is cut is part of its value.
func (k *norm) group(lo, hi int) int {
	if k.row == k.units {
		return hi - lo
	}
	return 1
}

// statsShard gathers the statistics of a shard.
func (k *norm) statsShard(s, lo, hi int) {
	if k.acc != nil {
		k.valueShard(s, lo, hi)
	}
	k.moments[s].Reset(k.channels)
	step := k.group(lo, hi)
	for i := lo; i < hi; i += step {
		k.moments[s].Add(k.v[i*k.row : (i+step)*k.row])
	}
}

// joinStats makes the batch's statistics of the shards' and moves the running ones.
func (k *norm) joinStats() {
	all := &k.moments[0]
	for s := 1; s < par.Count(k.st.Rows); s++ {
		all.Join(&k.moments[s])
	}
	all.Stats(k.mean, k.variance, k.invStd, float64(k.node.Attr.Eps))
	copy(k.batchMean, k.mean)
	if k.bias {
		kernel.Add(k.batchMean, k.batchMean, k.b)
	}
	run := k.running()
	weight := float64(k.node.Attr.Momentum)
	if k.st.NormWeight > 0 {
		weight = k.st.NormWeight
	}
	kernel.UpdateRunning(run[0], run[1], k.batchMean, k.variance, k.st.Rows*k.row/k.channels, weight)
}

// running are the running mean and variance.
func (k *norm) running() [2][]float32 {
	return [2][]float32{k.m.Params[k.node.Param(model.Mean)].Data, k.m.Params[k.node.Param(model.Var)].Data}
}

func (k *norm) normShard(_, lo, hi int) {
	y, v := k.ys[lo*k.row:hi*k.row], k.v[lo*k.row:hi*k.row]
	if k.st.NormTrains() {
		kernel.Normalize(y, v, k.mean, k.invStd, k.gamma, k.beta, k.channels)
		return
	}
	kernel.Normalize(y, v, k.zeros, k.ones, k.mul, k.add, k.units) // (v-0)*(mul*1) + add: the affine map, exactly
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
	same, err := k.fold()
	if err != nil {
		return err
	}
	out := k.folded
	if same {
		out.Raw, out.Wide = k.acc.Raw, k.acc.Wide
		return nil
	}
	if k.acc.Wide != nil {
		return k.foldWide()
	}
	if k.own == nil {
		k.own = make([]int32, len(k.acc.Raw))
	}
	out.Raw = k.own
	return k.st.EachRow(k.eachFold)
}

// fold reads the integers that the weight's quantizer folded into signs and the accumulators behind batch norm, but for
// their Raw. It reports whether all signs are 1.
func (k *norm) fold() (same bool, err error) {
	f := k.weight.Folded()
	if f == nil {
		return false, fmt.Errorf("batch norm is not folded")
	}
	out := k.folded
	out.InScale, k.signs = k.acc.InScale, f.Sign
	copy(out.Scale, f.Scale)
	same = true
	for c, sign := range f.Sign {
		out.Offset[c] = int32(sign)*k.acc.Offset[c] + f.Bias[c]
		same = same && sign == 1
	}
	return same, nil
}

func (k *norm) foldShard(_, lo, hi int) {
	k.foldInto(k.own[lo*k.row:hi*k.row], k.acc.Raw[lo*k.row:hi*k.row])
}

// foldInto writes sign*acc.
func (k *norm) foldInto(to, from []int32) {
	for i := 0; i < len(from); i += k.units {
		row := to[i : i+k.units]
		for c, v := range from[i : i+k.units] {
			row[c] = int32(k.signs[c]) * v
		}
	}
}

func (k *norm) Needs() []bool { return []bool{true, true, true, true}[:3+btoi(k.bias)] }
