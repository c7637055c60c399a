package ptq

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/model"
)

// Equalization is what happened between one layer and the next: every channel of From was divided by a factor, and what
// To multiplies it by was multiplied with the same.
type Equalization struct {
	From, To      string
	Least, Most   float64 // smallest and largest factor of a channel
	Before, After float64 // largest over smallest range of the channels of From that are not zero
}

// maxSweeps and settled end the iteration over pairs: a net of two pairs needs about ten sweeps.
const (
	maxSweeps = 500
	settled   = 1e-4
)

// Equalize makes the channels of neighbouring layers alike without changing what the network computes, so that one scale
// for a tensor wastes less of its grid (cross-layer equalization, arXiv:1906.04721, section 4.1; D20). Where the output of
// one conv or dense layer reaches exactly one other, through ReLU, pooling or flatten, channel i is divided by s_i on its
// way out and multiplied by s_i on its way in,
//
//	s_i = sqrt(r1_i*r2_i) / r2_i      r1_i = max |F_i*w1[.., i]|      r2_i = max_o |F_o*w2[.., i, .., o]|
//
// with F the factor of batch norm, pair after pair until no s_i differs from 1: depthwise convolutions between two others
// then have the ranges of both. The division goes into weight and bias, or into gamma and beta where the layer has batch
// norm. There the columns of the weight itself are made equally large too, which its batch norm undoes exactly.
//
// The result is a Float model, fused, with parameters of its own. A model without such a pair, and one with a capped ReLU
// between the two, is an error: min(max(x, 0), 6) of a scaled x is another function.
func Equalize(m *model.Model) (*model.Model, []Equalization, error) {
	fail := func(err error) (*model.Model, []Equalization, error) {
		return nil, nil, fmt.Errorf("equalize %q: %w", m.Name, err)
	}
	if m.Stage != model.Float {
		return fail(fmt.Errorf("the model is %s; equalization comes before quantization and starts from a float model", m.Stage))
	}
	out, err := model.Fuse(m)
	if err != nil {
		return fail(err)
	}
	out = out.Clone()
	pairs, layers, err := findPairs(out)
	if err != nil {
		return fail(err)
	}
	if len(pairs) == 0 {
		return fail(errNoPair)
	}
	report := make([]Equalization, len(pairs))
	for i, p := range pairs {
		report[i] = Equalization{From: p.from.node.Layer, To: p.to.node.Layer, Before: spread(p.from.outRanges())}
	}
	for range maxSweeps {
		worst := 0.0
		for _, p := range pairs {
			worst = max(worst, p.balance())
		}
		if worst < settled {
			break
		}
	}
	for i, p := range pairs {
		report[i].After = spread(p.from.outRanges())
		report[i].Least, report[i].Most = slices.Min(p.from.out), slices.Max(p.from.out)
	}
	for _, l := range layers {
		l.store(out)
	}
	return out, report, nil
}

// eqLayer is a layer while its channels move, in float64 so that the float32 parameters are rounded once.
type eqLayer struct {
	window
	node *model.Node
	w    []float64 // [depth, units]
	gain []float64 // |F|, divided by out where there is batch norm; else nil
	out  []float64 // what the output channels were divided by so far
}

// pair is a layer and the only reader of its output.
type pair struct{ from, to *eqLayer }

// errNoPair is what a model without anything to equalize gets.
var errNoPair = errors.New("equalization finds no layer whose output reaches exactly one other conv or dense layer through ReLU, pooling or flatten alone: set equalize: false")

// pairable lists the pairs of a fused model by the indices of their nodes.
func pairable(m *model.Model) (pairs [][2]int, err error) {
	index := map[string]int{}
	for i := range m.Nodes {
		index[m.Nodes[i].Name] = i
	}
	for _, i := range weighted(m) {
		n := &m.Nodes[i]
		to, capped := reader(m, n)
		if to == nil || n.Attr.Whole { // norm over the whole tensor has no gamma of a channel to divide
			continue
		}
		if capped {
			return nil, fmt.Errorf("%s %q: its ReLU has an upper limit, which equalized channels would meet elsewhere: use act: relu, or equalize: false", n.Op, n.Layer)
		}
		pairs = append(pairs, [2]int{i, index[to.Name]})
	}
	return pairs, nil
}

func findPairs(m *model.Model) ([]pair, []*eqLayer, error) {
	found, err := pairable(m)
	if err != nil {
		return nil, nil, err
	}
	layers := map[int]*eqLayer{}
	var order []*eqLayer
	for _, i := range weighted(m) {
		l, err := newEqLayer(m, &m.Nodes[i])
		if err != nil {
			return nil, nil, err
		}
		layers[i] = l
		order = append(order, l)
	}
	var pairs []pair
	for _, p := range found {
		pairs = append(pairs, pair{layers[p[0]], layers[p[1]]})
	}
	return pairs, order, nil
}

// reader is the layer with weights that alone reads n's output, through operations that commute with a positive factor per
// channel; nil if there is none. capped reports a ReLU with an upper limit on the way.
func reader(m *model.Model, n *model.Node) (to *model.Node, capped bool) {
	capped = n.Attr.Relu && n.Attr.Cap > 0
	for name := n.Name; ; {
		readers := m.Readers(name)
		if len(readers) != 1 || m.IsOutput(name) {
			return nil, capped
		}
		next := readers[0]
		switch next.Op {
		case model.Conv, model.Dense:
			return next, capped
		case model.ReLU:
			capped = capped || next.Attr.Cap > 0
		case model.MaxPool, model.Flatten, model.GlobalAvgPool:
		default:
			return nil, capped
		}
		name = next.Name
	}
}

func newEqLayer(m *model.Model, n *model.Node) (*eqLayer, error) {
	in, ok := m.ShapeOf(n.In[0])
	if !ok {
		return nil, fmt.Errorf("%s %q: input %q has no shape", n.Op, n.Layer, n.In[0])
	}
	l := &eqLayer{window: newWindow(n, in), node: n}
	affine, err := m.Affine(n)
	if err != nil {
		return nil, err
	}
	master := m.Params[n.Param(model.Weight)].Data
	l.w = make([]float64, len(master))
	for i, v := range master {
		if v != v || math.IsInf(float64(v), 0) {
			return nil, fmt.Errorf("%s %q: weight: %w", n.Op, n.Layer, &valueError{i, v})
		}
		l.w[i] = float64(v)
	}
	l.out = slices.Repeat([]float64{1}, l.units)
	for _, f := range affine.F {
		l.gain = append(l.gain, math.Abs(f))
	}
	return l, nil
}

func (l *eqLayer) magnitude(i int) float64 {
	v := math.Abs(l.w[i])
	if l.gain != nil {
		v *= l.gain[i%l.units]
	}
	return v
}

// outRanges is r1: the largest magnitude of each output channel's weights.
func (l *eqLayer) outRanges() []float64 {
	r := make([]float64, l.units)
	for i := range l.w {
		r[i%l.units] = max(r[i%l.units], l.magnitude(i))
	}
	return r
}

// input is which of the given number of channels before any flatten weight i multiplies.
func (l *eqLayer) input(i, channels int) int {
	k, o := i/l.units, i%l.units
	return (o/(l.units/l.groups)*l.perGroup + k%l.perGroup) % channels
}

// balance takes one step of a pair and returns how far its factors were from 1.
func (p pair) balance() float64 {
	c := p.from.units
	r1, r2 := p.from.outRanges(), make([]float64, c)
	for i := range p.to.w {
		ch := p.to.input(i, c)
		r2[ch] = max(r2[ch], p.to.magnitude(i))
	}
	s, worst := r1, 0.0
	for ch := range s {
		if r1[ch] > 0 && r2[ch] > 0 {
			s[ch] = math.Sqrt(r1[ch] / r2[ch])
		} else {
			s[ch] = 1 // a dead channel has no range to share
		}
		worst = max(worst, math.Abs(s[ch]-1))
		p.from.out[ch] *= s[ch]
	}
	if p.from.gain != nil {
		for ch := range s {
			p.from.gain[ch] /= s[ch]
		}
	} else {
		for i := range p.from.w {
			p.from.w[i] /= s[i%c]
		}
	}
	for i := range p.to.w {
		p.to.w[i] *= s[p.to.input(i, c)]
	}
	return worst
}

// spread is the ratio of the largest to the smallest range that is not zero.
func spread(r []float64) float64 {
	least, most := math.Inf(1), 0.0
	for _, v := range r {
		if v > 0 {
			least, most = min(least, v), max(most, v)
		}
	}
	if most == 0 {
		return 1
	}
	return most / least
}

// store writes the layer's parameters back to m.
func (l *eqLayer) store(m *model.Model) {
	data := func(role string) []float32 {
		if p := m.Params[l.node.Param(role)]; p != nil {
			return p.Data
		}
		return nil
	}
	divide := func(role string) {
		for c, v := range data(role) {
			data(role)[c] = float32(float64(v) / l.out[c])
		}
	}
	if l.gain != nil {
		divide(model.Gamma)
		divide(model.Beta)
		l.level(data)
	} else {
		divide(model.Bias)
	}
	for i, v := range l.w {
		data(model.Weight)[i] = float32(v)
	}
}

// leastColumn bounds how much a column of a normalised layer is enlarged.
const leastColumn = 1.0 / (1 << 12)

// level divides each column of a weight that batch norm follows by t[c], so that all have the same largest magnitude, and
// changes batch norm to match: with u = sqrt(var + eps),
//
//	bias/t   mean/t   var' = var/t^2   gamma' = gamma*t*sqrt(var' + eps)/u
func (l *eqLayer) level(data func(role string) []float32) {
	columns := make([]float64, l.units)
	for i, v := range l.w {
		columns[i%l.units] = max(columns[i%l.units], math.Abs(v))
	}
	most, eps := slices.Max(columns), float64(l.node.Attr.Eps)
	t := slices.Repeat([]float64{1}, l.units)
	for c, v := range columns {
		if v > 0 {
			t[c] = max(v/most, leastColumn)
		}
	}
	for i := range l.w {
		l.w[i] /= t[i%l.units]
	}
	if l.node.Attr.Bias {
		for c, b := range data(model.Bias) {
			data(model.Bias)[c] = float32(float64(b) / t[c])
		}
	}
	gamma, mean, variance := data(model.Gamma), data(model.Mean), data(model.Var)
	for c, tc := range t {
		before := float64(variance[c])
		mean[c] = float32(float64(mean[c]) / tc)
		variance[c] = float32(before / tc / tc)
		gamma[c] = float32(float64(gamma[c]) * tc * math.Sqrt((float64(variance[c])+eps)/(before+eps)))
	}
}
