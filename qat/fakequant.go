package qat

import (
	"errors"
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/narrow-ml/narrow/internal/gx"
	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/quant"
)

// Config says how [FakeQuant] quantizes a node.
type Config struct {
	Name string // in errors and drawings; default the node's name
	Spec quant.Spec
	Axis int // the channels' axis, where Spec.Per is PerChannel; negative counts from the last

	// Weight tells a weight from an activation: the range of a weight is that of its current value, the range of an
	// activation follows the batches with a delay of one, and its first axis is the batch.
	Weight bool

	// Params is a calibrated start. Without it a weight starts from its value, and an activation from the first batch.
	Params *quant.Params

	// Eval makes the node one of an evaluation graph: it quantizes as the given quantizer of the training graph does now,
	// and changes nothing. Spec and Params are then left empty.
	Eval *Quantizer
}

// Quantizer is the state of a node that [FakeQuant] made.
type Quantizer struct {
	name     string
	spec     quant.Spec
	weight   bool
	p        *quant.Params
	observer *quant.Observer
	frozen   bool
	learned  G.Nodes // in the order of quant.Range.Learned
}

// Params are the current scales and zero points, copied; not [quant.Params.Ready] before the first run unless the
// quantizer was given a start.
func (q *Quantizer) Params() *quant.Params { return q.p.Clone() }

// Freeze stops or releases an activation's range.
func (q *Quantizer) Freeze(on bool) { q.frozen = on }

// Learned are the leaves of what the range method learns (a scale; with lsq+ also the offset; with tqt the threshold), to be
// given to gorgonia.Grad and to the solver with the weights; none for methods that learn nothing.
func (q *Quantizer) Learned() G.Nodes { return q.learned }

// FakeQuant is quantization-aware training in one line for a model written by hand with Gorgonia's ops: it returns a
// float32 node with the values of x on the grid of cfg.Spec, s*(q-z), or x rounded to fp16 or bf16. The gradient is the
// straight-through estimator; a learned scale has its own (see the package comment). Weights and activations are wrapped
// alike:
//
//	wq, _, err := qat.FakeQuant(w, qat.Config{Spec: quant.WeightSpec(quant.Int8), Axis: 1, Weight: true})
//	hq, _, err := qat.FakeQuant(h, qat.Config{Spec: quant.ActSpec(quant.Int8)})
//
// What it does not do: it takes float32 only; it must be called before gorgonia.Grad; a weight used in several places is
// to be quantized once and the result shared; evaluation needs a graph of its own, built with Config.Eval; only tape
// machines run it. The surrounding ops compute in float32, so it simulates integer arithmetic and does not equal it, and
// the model cannot be exported: that is what package layers is for.
func FakeQuant(x *G.Node, cfg Config) (*G.Node, *Quantizer, error) {
	if x == nil {
		return nil, nil, errors.New("fake-quantize: the node is nil")
	}
	if cfg.Name == "" {
		cfg.Name = gx.Name(x)
	}
	y, q, err := fakeQuantize(x, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("fake-quantize %q: %w", cfg.Name, err)
	}
	return y, q, nil
}

func fakeQuantize(x *G.Node, cfg Config) (*G.Node, *Quantizer, error) {
	switch {
	case x.Dtype() != tensor.Float32:
		return nil, nil, fmt.Errorf("needs a float32 node, has %v", x.Dtype())
	case x.Shape().Dims() == 0:
		return nil, nil, errors.New("needs a tensor, has a scalar")
	case x.Deriv() != nil:
		return nil, nil, errors.New("the node already has its gradient: call FakeQuant before gorgonia.Grad")
	}
	q := cfg.Eval
	if q == nil {
		var err error
		if q, err = newQuantizer(x, cfg); err != nil {
			return nil, nil, err
		}
	} else if cfg.Spec != (quant.Spec{}) || cfg.Params != nil {
		return nil, nil, errors.New("an evaluation node takes spec and params from its quantizer: leave them empty")
	}
	k := &fakeQuant{q: q, eval: cfg.Eval != nil, name: cfg.Name, out: gx.NewTensor(x.Shape()...)}
	if err := k.layout(x.Shape(), cfg.Axis); err != nil {
		return nil, nil, err
	}
	what := "act"
	if q.weight {
		what = "weight"
	}
	in := []*G.Node{x}
	if !k.eval {
		in = append(in, q.learned...)
	}
	y, err := gx.Apply(k, label(what, cfg.Name, q.spec), k.out, in...)
	return y, q, err
}

func newQuantizer(x *G.Node, cfg Config) (*Quantizer, error) {
	if err := cfg.Spec.Validate(); err != nil {
		return nil, err
	}
	q := &Quantizer{name: cfg.Name, spec: cfg.Spec, weight: cfg.Weight, p: &quant.Params{Spec: cfg.Spec}}
	if !cfg.Spec.Format.IsInteger() {
		return q, nil
	}
	switch s := cfg.Spec; {
	case s.Rounding == quant.Stochastic:
		return nil, errors.New("stochastic rounding draws by the step of a training run, which only package layers knows: use half-even")
	case s.Range == quant.DoReFa:
		return nil, errors.New("range method dorefa codes tanh(w), not w, and knows its gradient in the networks of a config only: use minmax or lsq")
	case s.Rounding != quant.HalfEven && s.Range.Learns():
		return nil, fmt.Errorf("rounding %s with the learned range %s: here gradients are those of half-even", s.Rounding, s.Range)
	}
	channels, err := channelCount(x.Shape(), cfg.Spec, cfg.Axis)
	if err != nil {
		return nil, err
	}
	if cfg.Params != nil {
		if cfg.Params.Spec != cfg.Spec {
			return nil, fmt.Errorf("params are of spec %s, not %s", cfg.Params.Spec, cfg.Spec)
		}
		if err := cfg.Params.Validate(channels); err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
		q.p = cfg.Params.Clone()
	}
	switch r := cfg.Spec.Range; {
	case r.Learns():
		if q.p.Scale == nil { // found at the first run, in the leaves' own memory
			q.p.Scale, q.p.Zero = make([]float32, channels), make([]int32, channels)
		}
		q.p.Start()
		for _, kind := range r.Learned() {
			leaf, err := gx.Leaf(x.Graph(), cfg.Name+"."+kind.String(), gx.Wrap(q.p.Numbers(kind), channels))
			if err != nil {
				return nil, err
			}
			q.learned = append(q.learned, leaf)
		}
		return q, nil
	case r == quant.Constant:
		if q.p.Scale == nil {
			q.p.Scale, q.p.Zero = make([]float32, channels), make([]int32, channels)
			for c := range q.p.Scale {
				q.p.Scale[c], q.p.Zero[c] = cfg.Spec.ConstantScale()
			}
		}
	case r.Calibrated():
		if cfg.Params == nil {
			return nil, fmt.Errorf("range method %s is a calibration's: give its params", r)
		}
	case cfg.Weight && r != quant.MinMax && r != quant.Mean:
		return nil, fmt.Errorf("weight range %s follows batches, and weights have none; use minmax or lsq", r)
	case !cfg.Weight:
		if q.observer, err = quant.NewObserver(cfg.Spec, channels); err != nil {
			return nil, err
		}
		if cfg.Params != nil {
			return q, q.observer.Adopt(q.p)
		}
	}
	return q, nil
}

// channelCount is the number of scales of a tensor.
func channelCount(shape tensor.Shape, s quant.Spec, axis int) (int, error) {
	switch s.Per {
	case quant.PerTensor:
		return 1, nil
	case quant.PerGroup:
		return 0, fmt.Errorf("%s: a scale per group needs a weight of known layout, as the networks of a config have them; use per channel here", s)
	}
	if axis < 0 {
		axis += len(shape)
	}
	if axis < 0 || axis >= len(shape) {
		return 0, fmt.Errorf("channel axis %d of a tensor of shape %v", axis, shape)
	}
	return shape[axis], nil
}

// fakeQuant is the op. The elements of one channel lie in outer runs of inner elements, channels runs apart.
type fakeQuant struct {
	q               *Quantizer
	name            string
	eval            bool
	channels, inner int
	share           int // elements that share a scale, for LSQ's factor

	x     []float32
	out   *tensor.Dense
	pass  []bool
	used  *quant.Params // of the last run: an activation's range moves on right after it
	dx    *tensor.Dense
	grads [][]float32 // of what is learned
	parts []float64
}

func (k *fakeQuant) layout(shape tensor.Shape, axis int) error {
	n, err := channelCount(shape, k.q.spec, axis)
	if err != nil {
		return err
	}
	if k.q.spec.Format.IsInteger() && len(k.q.p.Scale) > 0 && len(k.q.p.Scale) != n {
		return fmt.Errorf("%d scales for %d channels", len(k.q.p.Scale), n)
	}
	k.channels, k.inner = n, shape.TotalSize()
	if k.q.spec.Per == quant.PerChannel {
		k.inner = 1
		if axis < 0 {
			axis += len(shape)
		}
		for _, d := range shape[axis+1:] {
			k.inner *= d
		}
	}
	k.share = shape.TotalSize() / n
	if !k.q.weight {
		k.share = max(1, k.share/shape[0])
	}
	k.pass = make([]bool, shape.TotalSize())
	k.used = &quant.Params{Spec: k.q.spec, Scale: make([]float32, n), Zero: make([]int32, n)}
	return nil
}

// each calls f for every run of elements of one channel, in memory order.
func (k *fakeQuant) each(f func(c, lo, hi int) error) error {
	for i := 0; i*k.inner < len(k.pass); i++ {
		if err := f(i%k.channels, i*k.inner, (i+1)*k.inner); err != nil {
			return offset(err, i*k.inner)
		}
	}
	return nil
}

func (k *fakeQuant) Run(in []G.Value) (G.Value, error) {
	if d, ok := in[0].(*tensor.Dense); ok && d.RequiresIterator() {
		return nil, errors.New("the tensor is a view that is not contiguous: materialize it first")
	}
	x, err := gx.Floats(in[0])
	if err != nil {
		return nil, err
	}
	if len(x) != len(k.pass) {
		return nil, fmt.Errorf("%d values for a node of %d", len(x), len(k.pass))
	}
	k.x = x
	y := k.out.Data().([]float32)
	if !k.q.spec.Format.IsInteger() {
		return k.out, quant.FakeQuantize(y, x, k.q.p, k.pass)
	}
	observed, err := k.prepare()
	if err != nil {
		return nil, err
	}
	if k.inner == 1 { // channels are the last axis, as everywhere else
		err = quant.FakeQuantize(y, x, k.used, k.pass)
	} else {
		err = k.each(func(c, lo, hi int) error {
			one := quant.Params{Spec: k.q.spec, Scale: k.used.Scale[c : c+1], Zero: k.used.Zero[c : c+1]}
			return quant.FakeQuantize(y[lo:hi], x[lo:hi], &one, k.pass[lo:hi])
		})
	}
	if err == nil && k.q.observer != nil && !k.eval && !k.q.frozen && !observed {
		err = k.observe()
	}
	return k.out, err
}

// prepare sets the scales of this run. observed says that the observer has seen this batch already, since it was the
// first one.
func (k *fakeQuant) prepare() (observed bool, err error) {
	q := k.q
	switch {
	case q.weight && (q.spec.Range == quant.MinMax || q.spec.Range == quant.Mean):
		if err := k.weightRange(); err != nil || k.eval {
			return false, err
		}
		q.p = k.used.Clone()
		return false, nil
	case k.eval:
		if len(q.p.Scale) == 0 || q.p.Scale[0] == 0 {
			return false, errors.New("the quantizer has no range yet: run the training graph first")
		}
	case q.spec.Range.Learns():
		if q.p.Scale[0] == 0 {
			err = k.firstScale()
		}
		q.p.Settle() // a solver may have stepped over zero
	case q.observer != nil && !q.observer.Seen():
		observed, err = true, k.observe()
	}
	copy(k.used.Scale, q.p.Scale)
	copy(k.used.Zero, q.p.Zero)
	return observed, err
}

func (k *fakeQuant) observe() error {
	if k.channels == 1 || k.inner == 1 {
		if err := k.q.observer.Observe(k.x); err != nil {
			return err
		}
	} else if err := k.q.observer.Observe(k.channelsLast()); err != nil {
		return err
	}
	p, err := k.q.observer.Params()
	if err == nil {
		k.q.p = p
	}
	return err
}

// channelsLast is x in the order that an observer reads.
func (k *fakeQuant) channelsLast() []float32 {
	out := make([]float32, 0, len(k.x))
	block := k.channels * k.inner
	for o := 0; o < len(k.x); o += block {
		for i := range k.inner {
			for c := range k.channels {
				out = append(out, k.x[o+c*k.inner+i])
			}
		}
	}
	return out
}

// weightRange sets the scales of this run by the range of each channel, as it is now.
func (k *fakeQuant) weightRange() error {
	lo, hi := make([]float32, k.channels), make([]float32, k.channels)
	err := k.each(func(c, from, to int) error {
		for i, v := range k.x[from:to] {
			switch {
			case v != v:
				return &quant.NaNError{Index: i}
			case math.IsInf(float64(v), 0):
				return fmt.Errorf("channel %d has an infinite weight", c)
			}
			lo[c], hi[c] = min(lo[c], v), max(hi[c], v)
		}
		return nil
	})
	for c := range lo {
		k.used.Scale[c], k.used.Zero[c] = k.q.spec.Choose(lo[c], hi[c])
	}
	if err == nil && k.q.spec.Range == quant.Mean {
		for c, mean := range k.means() {
			k.used.Scale[c] = max(float32(mean), quant.MinScale)
		}
	}
	return err
}

// means are the mean magnitudes of the channels.
func (k *fakeQuant) means() []float64 {
	sums := make([]float64, k.channels)
	for i := 0; i*k.inner < len(k.x); i++ {
		for _, v := range k.x[i*k.inner : (i+1)*k.inner] {
			sums[i%k.channels] += math.Abs(float64(v))
		}
	}
	for c := range sums {
		sums[c] /= float64(len(k.x) / k.channels)
	}
	return sums
}

// firstScale is the start of what is learned: LSQ's 2*mean|x|/sqrt(hi) with the zero point of the range, and for methods
// whose range begins at 0 or ends at a power of two the range itself.
func (k *fakeQuant) firstScale() error {
	q := k.q
	if err := k.weightRange(); err != nil {
		return err
	}
	copy(q.p.Zero, k.used.Zero)
	copy(q.p.Scale, k.used.Scale)
	if q.spec.Range == quant.PACT {
		_, most, _ := kernel.MinMax(k.x)
		q.p.Scale[0], q.p.Zero[0] = q.spec.Choose(0, most)
	}
	defer func() {
		start := quant.Params{Spec: q.spec, Scale: q.p.Scale, Zero: q.p.Zero}
		start.Start()
		copy(q.p.Learned, start.Learned)
	}()
	if q.spec.Range != quant.LSQ && q.spec.Range != quant.LSQPlus {
		return nil
	}
	_, top := q.spec.Grid()
	for c, mean := range k.means() {
		q.p.Scale[c] = max(float32(firstStep(q.spec)*mean/math.Sqrt(float64(top))), quant.MinScale)
	}
	return nil
}

func (k *fakeQuant) learns() bool { return len(k.q.learned) > 0 && !k.eval }

func (k *fakeQuant) Needs() []bool {
	if !k.learns() {
		return []bool{true}
	}
	return []bool{true, true, true}[:1+len(k.q.learned)]
}

func (k *fakeQuant) Backward(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	k.dx = gx.NewTensor(in[0].Shape()...)
	// The edge from x keeps Gorgonia from reusing its memory before the gradient has read it.
	dx, err := gx.Apply(fakeQuantGrad{k}, "gradient("+k.name+")", k.dx, in[0], out, grad)
	if err != nil || !k.learns() {
		return G.Nodes{dx}, err
	}
	k.parts = make([]float64, k.channels)
	grads := G.Nodes{dx}
	for _, kind := range k.q.spec.Range.Learned() {
		g := make([]float32, k.channels)
		node, err := gx.Side(fmt.Sprintf("gradient(%s %s)", kind, k.name), gx.Wrap(g, k.channels), dx)
		if err != nil {
			return nil, err
		}
		k.grads, grads = append(k.grads, g), append(grads, node)
	}
	return grads, nil
}

type fakeQuantGrad struct{ f *fakeQuant }

func (b fakeQuantGrad) Run(in []G.Value) (G.Value, error) {
	k := b.f
	x, err := gx.Floats(in[0])
	if err != nil {
		return nil, err
	}
	dy, err := gx.Floats(in[2])
	if err != nil {
		return nil, err
	}
	if len(x) != len(k.pass) || len(dy) != len(k.pass) {
		return nil, fmt.Errorf("%d gradients and %d values for %d elements", len(dy), len(x), len(k.pass))
	}
	dx := k.dx.Data().([]float32)
	if slope := signSlope(k.q.spec.Estimator); slope != nil {
		err = k.each(func(c, from, to int) error {
			kernel.SlopeGrad(dx[from:to], dy[from:to], x[from:to], k.used.Scale[c:c+1], slope)
			return nil
		})
		if err != nil {
			return nil, err
		}
		return k.dx, k.learnedGrads(dy, x)
	}
	for i, p := range k.pass {
		dx[i] = 0
		if p {
			dx[i] = dy[i]
		}
	}
	return k.dx, k.learnedGrads(dy, x)
}

// learnedGrads computes the gradients of what is learned, if anything.
func (k *fakeQuant) learnedGrads(dy, x []float32) error {
	if !k.learns() {
		return nil
	}
	method := k.q.spec.Range
	lo, hi := k.q.spec.Grid()
	z := k.used.Zero[0] // channels differ in scale alone
	sums := make([]slopes, k.channels)
	var err error
	if k.q.spec.Even {
		part := make([]float64, 1)
		err = k.each(func(c, from, to int) error {
			kernel.ScaleGradEven(part, dy[from:to], x[from:to], k.used.Scale[c:c+1], hi-z)
			sums[c].Scale += part[0]
			return nil
		})
	} else if k.inner == 1 {
		kernel.ScaleGradChannels(k.parts, dy, x, k.used.Scale, lo-z, hi-z)
		for c, v := range k.parts {
			sums[c].Scale = v
		}
	} else {
		err = k.each(func(c, from, to int) error {
			sums[c].add(method, dy[from:to], x[from:to], k.used.Scale[c], lo-z, hi-z)
			return nil
		})
	}
	for c, sum := range sums {
		first, second := gradients(method, sum, k.used.Scale[c], hi-z, quant.FactorLSQ.Of(k.share, hi), 0)
		k.grads[0][c] = first
		if len(k.grads) > 1 {
			k.grads[1][c] = second
		}
	}
	return err
}
