package ptq

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// Rounding names how weights are put on their grid; see the package comment.
type Rounding uint8

// The roundings. The zero value stands for Nearest in [Options].
const (
	Nearest Rounding = iota + 1
	AdaRound
	GPTQ
)

var roundingNames = [...]string{Nearest: "nearest", AdaRound: "adaround", GPTQ: "gptq"}

func (r Rounding) String() string {
	if int(r) < len(roundingNames) && roundingNames[r] != "" {
		return roundingNames[r]
	}
	return fmt.Sprintf("Rounding(%d)", uint8(r))
}

// ParseRounding reads "nearest", "adaround" or "gptq".
func ParseRounding(s string) (Rounding, error) {
	for r, name := range roundingNames {
		if name == s && s != "" {
			return Rounding(r), nil
		}
	}
	return 0, fmt.Errorf("unknown rounding %q (allowed: %s)", s, strings.Join(roundingNames[1:], ", "))
}

// LayerRounding is what a rounding did to one layer. The errors are mean squares over rows and channels of the layer's
// output, its input coming from the quantized layers before it, against the float model's output of the same layer.
type LayerRounding struct {
	Layer   string
	Nearest float64 // error of rounding to nearest
	Error   float64 // error of the codes that were chosen; never above Nearest
	Moved   int     // weights whose code is not the nearest one
	Kept    int     // output channels that stay at nearest: nothing found was better, or their scale was raised against overflow
}

// RoundWeights chooses the weight codes of the quantized model q, which [Calibrate] made from the float model m, so that
// each layer's output on the calibration examples stays close to that of m, rather than each weight close to its master.
// Layers are taken in order, each with the inputs that the rounded layers before it give.
//
// Scales have to stay where they are, so absmax weight scales become mse scales, as in method mse, and learned scales start
// there. The result has
// parameters of its own: the masters of a rounded weight lie on the grid, w = s*q, from which model.CodeWeights, and so
// model.Freeze, gives q again.
func RoundWeights(ctx context.Context, m, q *model.Model, set *datasets.Set, r Rounding, o Options) (*model.Model, []LayerRounding, error) {
	fail := func(err error) (*model.Model, []LayerRounding, error) {
		return nil, nil, fmt.Errorf("round the weights of %q by %s: %w", q.Name, r, err)
	}
	if r != AdaRound && r != GPTQ {
		return fail(fmt.Errorf("it is no learned rounding (allowed: adaround, gptq)"))
	}
	o, float, sampled, err := passes(m, q, set, o)
	if err != nil {
		return fail(err)
	}
	pool := par.New(o.Workers)
	defer pool.Close()
	out := q.Clone()
	var report []LayerRounding
	layers := weighted(out)
	for done, i := range layers {
		n := &out.Nodes[i]
		o.progress(Step{Pass: r.String(), Layer: n.Layer, Done: done, Total: len(layers)})
		l, err := roundLayer(ctx, float, out, i, sampled, r, o, pool)
		if err != nil {
			return fail(fmt.Errorf("%s %q: %w", n.Op, n.Layer, err))
		}
		report = append(report, l)
	}
	o.progress(Step{Pass: r.String(), Done: len(layers), Total: len(layers)})
	return out, report, nil
}

// weighted lists the indices of the nodes that multiply by a weight.
func weighted(m *model.Model) (nodes []int) {
	for i := range m.Nodes {
		if m.Nodes[i].Op.HasWeight() {
			nodes = append(nodes, i)
		}
	}
	return nodes
}

// passes checks the arguments of a pass over a quantized model and returns the settings with their defaults, the fused
// float model and the calibration sample.
func passes(m, q *model.Model, set *datasets.Set, o Options) (Options, *model.Model, *datasets.Set, error) {
	o, err := o.resolve()
	if err != nil {
		return o, nil, nil, err
	}
	if m.Stage != model.Float {
		return o, nil, nil, fmt.Errorf("the reference model %q is %s; it must be the float model", m.Name, m.Stage)
	}
	if q.Stage != model.Quantized {
		return o, nil, nil, fmt.Errorf("the model is %s; calibrate it first", q.Stage)
	}
	if !chooses(q.Precision) {
		return o, nil, nil, fmt.Errorf("its precision %s has no integer grid: this pass is for integer weights; leave it out, or quantize to int8 or below", q.Precision)
	}
	float, err := model.Fuse(m)
	if err != nil {
		return o, nil, nil, err
	}
	if !slices.EqualFunc(float.Nodes, q.Nodes, func(a, b model.Node) bool { return a.Name == b.Name && slices.Equal(a.Shape, b.Shape) }) {
		return o, nil, nil, fmt.Errorf("its layers are not those of the float model %q", m.Name)
	}
	if err := checkSet(float, set, "calibration"); err != nil {
		return o, nil, nil, err
	}
	set, err = sample(set, o)
	return o, float, set, err
}

// grid is a weight on its way to codes.
type grid struct {
	coding           // rounded to nearest
	w      []float32 // masters [depth, units]
	fixed  []bool    // channels whose scale was raised against overflow: they stay as they are
	lo, hi int32
}

// newGrid fixes the scales of a layer's weight.
func newGrid(m *model.Model, n *model.Node, o Options) (*grid, error) {
	p, w := m.Quant[n.Param(model.Weight)], m.Params[n.Param(model.Weight)]
	if !p.Spec.Rounding.Nearest() {
		return nil, fmt.Errorf("weight %s: learned rounding stores the chosen codes as masters, and rounding %s would not give them back; use half-even", p.Spec, p.Spec.Rounding)
	}
	if p.Spec.Even {
		return nil, fmt.Errorf("weight %s: learned rounding chooses between neighbouring integers, and even levels are two apart; use rounding nearest", p.Spec)
	}
	if p.Spec.Range == quant.DoReFa {
		return nil, fmt.Errorf("weight %s: learned rounding stores the chosen codes as masters, and tanh would not give them back; use rounding nearest", p.Spec)
	}
	if p.Spec.Range == quant.Constant {
		s, z := p.Spec.ConstantScale()
		p.Scale, p.Zero = []float32{s}, []int32{z}
	}
	if p.Spec.Range == quant.MinMax || p.Spec.Range.Learns() {
		if err := fillWeight(p, w, MSE, o.Percentile); err != nil {
			return nil, err
		}
	}
	g := &grid{w: w.Data, fixed: make([]bool, n.Attr.Units)}
	g.lo, g.hi = p.Spec.Grid()
	var err error
	if g.coding, err = coded(m, n); err != nil {
		return nil, err
	}
	for i, s := range g.scale {
		c := i % g.units
		g.fixed[c] = g.fixed[c] || s != p.Scale[i%len(p.Scale)]
	}
	return g, nil
}

// coding is a layer's weight as codes.
type coding struct {
	codes []int8
	scale []float32 // per channel, with groups one for each of its groups
	p     *quant.Params
	units int
}

// at is the scale of weight i.
func (c *coding) at(i int) float32 {
	if c.p.Spec.Per == quant.PerGroup {
		return c.scale[c.p.Index(i)]
	}
	return c.scale[i%c.units]
}

// coded is what model.Freeze will make of a layer's weight, before signs of batch norm.
func coded(m *model.Model, n *model.Node) (coding, error) {
	affine, err := m.Affine(n)
	if err != nil {
		return coding{}, err
	}
	w := m.Params[n.Param(model.Weight)]
	p := m.Quant[n.Param(model.Weight)]
	if m.Wide(n) {
		return coding{}, fmt.Errorf("it computes on 16-bit codes, whose rounding leaves nothing to learn: leave this pass out")
	}
	c := coding{codes: make([]int8, len(w.Data)), scale: make([]float32, max(n.Attr.Units, p.Spec.Scales(len(w.Data), n.Attr.Units))), p: p, units: n.Attr.Units}
	_, err = model.CodeWeights(c.codes, c.scale, w.Data, p, m.Quant[n.In[0]], &affine)
	return c, err
}

// settle moves the masters onto the chosen codes and makes sure that Freeze will find these codes.
func (g *grid) settle(m *model.Model, n *model.Node, codes []int8) error {
	for i, q := range codes {
		if !g.fixed[i%g.units] {
			g.w[i] = quant.Mul32(g.at(i), float32(q))
		}
	}
	got, err := coded(m, n)
	if err != nil {
		return err
	}
	for i, q := range got.codes {
		if q != codes[i] {
			return fmt.Errorf("weight[%d]: code %d was chosen and %d would be frozen: the rounded weights leave no room for the bias in 32 bits; use rounding nearest for this model", i, codes[i], q)
		}
	}
	return nil
}

// values writes the float32 weights s*q of codes.
func (g *grid) values(dst []float32, codes []int8) {
	for i, q := range codes {
		dst[i] = quant.Mul32(g.at(i), float32(q))
	}
}

// roundLayer rounds one layer of out in place.
func roundLayer(ctx context.Context, float, out *model.Model, i int, set *datasets.Set, r Rounding, o Options, pool *par.Pool) (LayerRounding, error) {
	n := &out.Nodes[i]
	report := LayerRounding{Layer: n.Layer}
	g, err := newGrid(out, n, o)
	if err != nil {
		return report, err
	}
	rows, err := fitRows(ctx, float, out, i, set, o)
	if err != nil {
		return report, err
	}
	affine, err := out.Affine(n)
	if err != nil {
		return report, err
	}
	fit := newFit(rows, affine, n.Attr, pool)
	var codes []int8
	if r == AdaRound {
		codes, err = adaRound(ctx, g, fit, o)
	} else {
		codes, err = feedBack(ctx, g, fit)
	}
	if err != nil {
		return report, err
	}
	if err := choose(g, fit, codes, &report); err != nil {
		return report, err
	}
	return report, g.settle(out, n, codes)
}

// choose keeps, channel by channel, whichever of codes and the nearest ones has the smaller error, and reports.
func choose(g *grid, fit *fit, codes []int8, report *LayerRounding) error {
	c := g.units
	w := make([]float32, len(codes))
	g.values(w, g.codes)
	near, err := fit.errors(w)
	if err != nil {
		return err
	}
	g.values(w, codes)
	own, err := fit.errors(w)
	if err != nil {
		return err
	}
	for ch := range c {
		keep := g.fixed[ch] || !(own[ch] <= near[ch]) // also when the error is NaN
		if keep {
			own[ch] = near[ch]
			report.Kept++
		}
		for i := ch; i < len(codes); i += c {
			if keep {
				codes[i] = g.codes[i]
			} else if codes[i] != g.codes[i] {
				report.Moved++
			}
		}
		report.Nearest += near[ch] / float64(c)
		report.Error += own[ch] / float64(c)
	}
	if math.IsNaN(report.Error) || math.IsInf(report.Error, 0) {
		return fmt.Errorf("the error of its output is %v: the float model diverged or its weights are damaged", report.Error)
	}
	return nil
}
