package qat

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/quant"
)

// Act quantizes one activation: accumulators and sums are requantized, float values are divided by the scale and rounded. It
// keeps the straight-through mask of the step and follows the range of what it saw.
type Act struct {
	st       *Step
	name     string
	p        *quant.Params
	observer *quant.Observer // nil for a learned or fixed range
	out      *Codes          // nil with 16 bits, whose codes go out as values:
	y        *tensor.Dense
	ys       []float32
	shape    tensor.Shape
	row      int // elements of an example
	maskRow  int // bytes of an example's mask: examples start at a byte, so shards may too
	mask     []uint8
	learned  []quant.Learned // what the range method trains
	needDX   bool

	wait pending         // the step's input: accumulators or a sum
	x    []float32       // or values,
	norm *kernel.NormAct // before these batch norm and activation where it is not nil
	rq   *quant.Requant
	seen [par.Shards]extremes
	each func(shard, lo, hi int)

	share    int // elements of an example that share what is learned
	together int // examples that are summed together
	dxs, dy  []float32
	up       *MaskedGrad           // whose dy it is; nil: of no mask
	grads    [2][]float32          // of the learned numbers
	t        [par.Shards][]float32 // an example's values, or these in units of the scale
	tmask    [par.Shards][]uint8
	tdy      [par.Shards][]float32 // an example's gradient behind up
	parts    [par.Shards]slopes
}

type extremes struct {
	min, max float32
	seen     bool
	nan      int // index of a NaN, -1 for none
}

// QuantizeAct adds the quantizer of activation name with params p, which must have their scale. learned are the leaves of
// what the range method trains, in the order of [quant.Range.Learned]. needDX says whether x needs a gradient.
func QuantizeAct(st *Step, name string, p *quant.Params, x *G.Node, learned G.Nodes, needDX bool) (*G.Node, *Act, error) {
	a, err := NewAct(st, name, p, x.Shape(), len(learned), needDX)
	if err != nil {
		return nil, nil, err
	}
	node, err := gx.Apply(a, a.Label(), a.result(), append([]*G.Node{x}, learned...)...)
	return node, a, err
}

// NewAct is the quantizer of QuantizeAct without a node of its own, for an op that joins a layer and its quantizer: see
// [Act.Begin]. shape is that of the tensor to quantize, learned the number of leaves that are learned.
func NewAct(st *Step, name string, p *quant.Params, shape tensor.Shape, learned int, needDX bool) (*Act, error) {
	if !p.Ready() {
		return nil, fmt.Errorf("activation %q has no range yet: calibrate first", name)
	}
	if err := p.Validate(1); err != nil {
		return nil, fmt.Errorf("activation %q: %w", name, err)
	}
	kinds := p.Spec.Range.Learned()
	if learned != len(kinds) {
		return nil, fmt.Errorf("activation %q: range method %s learns %v, and there are %d leaves", name, p.Spec.Range, kinds, learned)
	}
	a := &Act{
		st: st, name: name, p: p, shape: shape.Clone(), learned: kinds, needDX: needDX,
		row: shape.TotalSize() / shape[0], grads: [2][]float32{make([]float32, 1), make([]float32, 1)},
	}
	if p.Spec.Format == quant.Int16 {
		a.y = gx.NewTensor(shape...)
		a.ys = a.y.Data().([]float32)
	} else {
		a.out = NewActCodes(p, shape)
	}
	a.share = a.row
	a.together = a.rowsTogether()
	a.each = a.shard
	a.maskRow = kernel.MaskLen(a.row)
	a.mask = make([]uint8, shape[0]*a.maskRow)
	if p.Spec.Range.Observed() {
		var err error
		if a.observer, err = quant.NewObserver(p.Spec, 1); err != nil {
			return nil, fmt.Errorf("activation %q: %w", name, err)
		}
		if err := a.observer.Adopt(p); err != nil {
			return nil, fmt.Errorf("activation %q: %w", name, err)
		}
	}
	return a, nil
}

// Label is the name of the quantizer's node.
func (a *Act) Label() string { return label("act", a.name, a.p.Spec) }

// Share sets how many elements of one example share a learned scale, for LSQ's factor, where that is not the size of
// what is quantized: a pooling before the quantizer leaves it the size of the layer's output.
func (a *Act) Share(n int) { a.share = n }

// Observer follows the activation's range; nil when the range is learned or fixed.
func (a *Act) Observer() *quant.Observer { return a.observer }

// Run quantizes the rows in use.
func (a *Act) Run(in []G.Value) (G.Value, error) {
	if err := a.Begin(in[0]); err != nil {
		return nil, err
	}
	if err := a.st.EachRow(a.each); err != nil {
		return nil, err
	}
	return a.result(), a.End()
}

// result is the output.
func (a *Act) result() G.Value {
	if a.ys != nil {
		return a.y
	}
	return a.out
}

// Begin takes the step's input: accumulators, a sum, or values. An op that joins a layer and its quantizer calls it, then
// [Act.Examples] for examples as their inputs come to be, then [Act.End].
func (a *Act) Begin(in G.Value) error {
	a.begin()
	switch v := in.(type) {
	case pending:
		a.wait, a.rq = v, v.requant(a.p)
	default:
		x, err := gx.Floats(v)
		if err != nil {
			return err
		}
		a.x = x
	}
	return nil
}

func (a *Act) begin() {
	a.wait, a.x, a.norm = nil, nil, nil
	for s := range a.seen {
		a.seen[s] = extremes{nan: -1}
	}
}

// BeginNorm is [Act.Begin] for values of a product that go through n first. The mask is then that of both: what
// passes the quantizer and the activation.
func (a *Act) BeginNorm(v []float32, n *kernel.NormAct) {
	a.begin()
	a.x, a.norm = v, n
}

// End reports a NaN.
func (a *Act) End() error {
	for s := range par.Count(a.st.Rows) {
		if i := a.seen[s].nan; i >= 0 {
			return &quant.NaNError{Index: i}
		}
	}
	return nil
}

// Learned lists what the range method trains.
func (a *Act) Learned() []quant.Learned { return a.learned }

// Sign reports a binary output, which the passes that join batch norm and quantizer do not make.
func (a *Act) Sign() bool { return a.p.Spec.IsSign() }

// Codes is the output, up to 8 bits.
func (a *Act) Codes() *Codes { return a.out }

// Of is the codes that the quantizer gives the first n elements of v, which are what it read in the last run before they
// were pooled: accumulators, by the multipliers of that run, or values.
func (a *Act) Of(v G.Value, n int) ([]uint8, error) {
	codes := make([]uint8, n)
	if w, ok := v.(pending); ok {
		w.round(codes, a.rq, 0, n)
		return codes, nil
	}
	x, err := gx.Floats(v)
	if err != nil {
		return nil, err
	}
	if nan := a.codes(codes, nil, x[:n]); nan >= 0 {
		return nil, &quant.NaNError{Index: nan}
	}
	return codes, nil
}

// codes quantizes values.
func (a *Act) codes(dst, mask []uint8, x []float32) (nan int) {
	scale, z := a.p.At(0)
	if a.p.Spec.IsSign() {
		return kernel.QuantizeSign(dst, mask, x, scale)
	}
	lo, hi := a.p.Spec.Grid()
	return kernel.QuantizeU8(dst, mask, x, scale, z, lo, hi)
}

func (a *Act) shard(s, from, to int) {
	if a.onWide() {
		a.wideExamples(s, from, to)
		return
	}
	if a.wait != nil && !a.st.Train {
		e := a.row
		a.wait.round(a.out.U8[from*e:to*e], a.rq, from*e, to*e)
		return
	}
	a.Examples(s, from, to)
}

// Examples quantizes the examples [from, to) of a shard, in training.
func (a *Act) Examples(s, from, to int) {
	e, m := a.row, a.maskRow
	if a.x != nil {
		a.quantize(s, from, to)
		return
	}
	step := a.step(from, to)
	for i := from; i < to; i += step {
		j := i + step
		st := a.wait.train(a.out.U8[i*e:j*e], a.mask[i*m:j*m], a.rq, i*e, j*e)
		if a.wait.limit().Relu {
			st.Min, st.Max = max(st.Min, 0), max(st.Max, 0)
		}
		a.see(s, st.Min, st.Max)
	}
}

// step is how many of the examples [from, to) are done in one go: all where their masks join without a gap.
func (a *Act) step(from, to int) int {
	if a.row%8 == 0 {
		return to - from
	}
	return 1
}

func (a *Act) quantize(s, from, to int) {
	lo, hi := a.p.Spec.Grid()
	scale, z := a.p.At(0)
	e, m := a.row, a.maskRow
	step := a.step(from, to)
	for i := from; i < to; i += step {
		j := i + step
		x, codes, mask := a.x[i*e:j*e], a.out.U8[i*e:j*e], a.mask[i*m:j*m]
		var st kernel.RequantStats
		nan := -1
		if a.norm != nil {
			st, nan = a.norm.Quantize(codes, mask, x, scale, z, lo, hi)
		} else if a.st.Train && !a.Sign() {
			st, nan = kernel.QuantizeTrain(codes, mask, x, scale, z, lo, hi)
		} else if nan = a.codes(codes, mask, x); nan < 0 && a.st.Train && a.observer != nil {
			st.Min, st.Max, _ = kernel.MinMax(x)
		}
		if nan >= 0 {
			if a.seen[s].nan < 0 {
				a.seen[s].nan = i*e + nan
			}
			return
		}
		if a.st.Train && a.observer != nil {
			a.see(s, st.Min, st.Max)
		}
	}
}

// see joins extremes to the shard's.
func (a *Act) see(s int, lo, hi float32) {
	e := &a.seen[s]
	if !e.seen {
		e.min, e.max, e.seen = lo, hi, true
		return
	}
	e.min, e.max = min(e.min, lo), max(e.max, hi)
}

// Update moves the range by what the step saw and sets scale and zero point of the params, which every reader of this
// tensor shares. It runs after a whole step, never inside one.
func (a *Act) Update() error {
	if a.observer == nil || !a.st.Train || a.st.FreezeRanges || a.st.Rows == 0 {
		return nil
	}
	lo, hi := a.seen[0].min, a.seen[0].max
	for s := 1; s < par.Count(a.st.Rows); s++ {
		lo, hi = min(lo, a.seen[s].min), max(hi, a.seen[s].max)
	}
	if a.wait != nil { // requantization saw values in units of the scale, before the upper limit
		lo, hi = quant.Mul32(lo, a.p.Scale[0]), quant.Mul32(hi, a.p.Scale[0])
		if c := a.wait.limit().Cap; c > 0 {
			lo, hi = min(lo, c), min(hi, c)
		}
	}
	if err := a.observer.ObserveRange(lo, hi); err != nil {
		return fmt.Errorf("activation %q: %w", a.name, err)
	}
	now, err := a.observer.Params()
	if err != nil {
		return fmt.Errorf("activation %q: %w", a.name, err)
	}
	a.p.Scale[0], a.p.Zero[0] = now.Scale[0], now.Zero[0]
	return nil
}
