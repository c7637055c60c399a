package eval

import (
	"fmt"
	"math"

	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// pending holds the integer sums of a layer. Element i of the layer's result is the sum over terms, in order, of
//
//	f32(f32(sum[i]) * multiplier)
//
// with a term's multiplier depending on the output scale: f32(unit / s_y), where unit = f32(s_x * s_w[c]) is the real
// value of one step of the sum. A mean over n cells has f32(s_x / f32(n * s_y)) instead.
type pending struct {
	shape []int
	terms []term
	relu  bool
}

type term struct {
	sum   []int64
	unit  []float32 // one, or one per channel
	inner int       // the channel of element i is i / inner % len(unit)
	cells []int     // of a mean: the number of cells per position, i % len(cells)
	owner []int64   // of a concatenation: which unit element i has
	minus bool
}

// multiplier gives M for element i.
func (t *term) multiplier(sy float32) func(i int) float32 {
	m := make([]float32, max(len(t.unit), len(t.cells)))
	if t.cells != nil {
		for k, n := range t.cells {
			m[k] = t.unit[0] / float32(float32(n)*sy)
		}
		return func(i int) float32 { return m[i%len(m)] }
	}
	for k, u := range t.unit {
		m[k] = u / sy
	}
	if t.owner != nil {
		return func(i int) float32 { return m[t.owner[i]] }
	}
	if len(m) == 1 {
		one := m[0]
		return func(int) float32 { return one }
	}
	inner := t.inner
	return func(i int) float32 { return m[i/inner%len(m)] }
}

// requantize brings the sums to codes of a grid.
func (p *pending) requantize(typ onnxpb.DataType, s float32, z, lo, hi int64) (Tensor, error) {
	out, err := newTensor(typ, p.shape)
	if err != nil {
		return Tensor{}, err
	}
	if p.relu {
		lo = max(lo, z)
	}
	low, high := float32(lo-z), float32(hi-z)
	type scaled struct {
		term
		at func(i int) float32
	}
	var terms []scaled
	for _, t := range p.terms {
		terms = append(terms, scaled{t, t.multiplier(s)})
	}
	for i := range out.Ints {
		t := float32(float32(terms[0].sum[i]) * terms[0].at(i))
		for k := 1; k < len(terms); k++ {
			v := float32(float32(terms[k].sum[i]) * terms[k].at(i))
			if terms[k].minus {
				v = -v
			}
			t += v
		}
		if t != t {
			return Tensor{}, refuse("element %d is NaN before rounding", i)
		}
		out.Ints[i] = int64(math.RoundToEven(float64(min(max(t, low), high)))) + z
	}
	return out, nil
}

// real is the value without a QuantizeLinear: f32(acc) * f32(s_x * s_w[c]), for one term.
func (p *pending) real() (Tensor, error) {
	if len(p.terms) != 1 || p.terms[0].cells != nil || p.terms[0].owner != nil {
		return Tensor{}, refuse("a sum of terms or a mean reaches an output without a QuantizeLinear")
	}
	out, err := newTensor(onnxpb.Float, p.shape)
	if err != nil {
		return Tensor{}, err
	}
	t := p.terms[0]
	for i, v := range t.sum {
		r := float64(float32(float32(v) * t.unit[i/t.inner%len(t.unit)]))
		if p.relu {
			r = max(0, r)
		}
		out.Reals[i] = r
	}
	return out, nil
}

// rescaled is a tensor of codes on its way to another grid: the sum is q - z.
func rescaled(d *dequant) (*pending, error) {
	if len(d.scale) != 1 {
		return nil, refuse("codes with a scale per channel")
	}
	return &pending{shape: d.codes.Shape, terms: []term{{sum: d.centred(), unit: d.scale, inner: 1}}}, nil
}

// centred is q - z.
func (d *dequant) centred() []int64 {
	out := append([]int64{}, d.codes.Ints...)
	if len(d.zero) == 1 {
		if z := d.zero[0]; z != 0 {
			for i := range out {
				out[i] -= z
			}
		}
		return out
	}
	inner := count(d.codes.Shape[d.axis+1:])
	for i := range out {
		out[i] -= d.zero[i/inner%len(d.zero)]
	}
	return out
}

// operand is a dequantized argument with one scale.
func operand(args []meaning, i int, perChannel bool) (*dequant, error) {
	if i >= len(args) || args[i] == nil {
		return nil, fmt.Errorf("%w: input %d is missing", ErrModel, i)
	}
	d, is := args[i].(*dequant)
	switch {
	case !is:
		if t, plain := args[i].(plain); plain {
			return nil, refuse("input %d is a %v tensor that is not quantized", i, t.t.Type)
		}
		return nil, refuse("input %d is a sum that no QuantizeLinear has rounded", i)
	case len(d.scale) != 1 && !perChannel:
		return nil, refuse("input %d has a scale per channel", i)
	}
	return d, nil
}

// factor is an operand of a product: at most 16 bits, so that no sum can leave 64 bits.
func factor(args []meaning, i int, perChannel bool) (*dequant, error) {
	d, err := operand(args, i, perChannel)
	if err == nil && d.codes.Type.Bits() > 16 {
		return nil, refuse("input %d has codes of type %v", i, d.codes.Type)
	}
	return d, err
}

// units is f32(s_x * s_w[c]).
func units(x, w *dequant) []float32 {
	out := make([]float32, len(w.scale))
	for k, s := range w.scale {
		out[k] = float32(x.scale[0] * s)
	}
	return out
}

// biasSums checks that a bias is int32 codes in units of the accumulator, and returns one value per channel.
func biasSums(args []meaning, i, channels int, unit []float32) ([]int64, error) {
	if i >= len(args) || args[i] == nil {
		return nil, nil
	}
	b, err := operand(args, i, true)
	if err != nil {
		return nil, err
	}
	if b.codes.Len() != channels {
		return nil, fmt.Errorf("%w: bias of shape %v for %d channels", ErrModel, b.codes.Shape, channels)
	}
	for k := range channels {
		s, u := b.scale[k%len(b.scale)], unit[k%len(unit)]
		if s != u || b.zero[k%len(b.zero)] != 0 {
			return nil, refuse("bias[%d] has scale %v and zero point %d, the accumulator has %v and 0", k, s, b.zero[k%len(b.zero)], u)
		}
	}
	return b.codes.Ints, nil
}

// fit checks that 8-bit products stayed within the int32 accumulator of a real machine; 16-bit activations accumulate
// in 64 bits.
func fit(sum []int64, x *dequant, inner, channels int) error {
	if x.codes.Type == onnxpb.Int16 || x.codes.Type == onnxpb.Uint16 {
		return nil
	}
	for i, v := range sum {
		if v < math.MinInt32 || v > math.MaxInt32 {
			return refuse("the sum %d of channel %d leaves int32", v, i/inner%channels)
		}
	}
	return nil
}

func convSums(c *call, args []meaning) (meaning, error) {
	x, err := factor(args, 0, false)
	if err != nil {
		return nil, err
	}
	w, err := factor(args, 1, true)
	if err != nil {
		return nil, err
	}
	if len(w.scale) > 1 && w.axis != 0 {
		return nil, refuse("weight scales along axis %d, want 0", w.axis)
	}
	cv, err := newConvolution(c, x.codes.Shape, w.codes.Shape)
	if err != nil {
		return nil, err
	}
	shape := cv.outShape(x.codes.Shape)
	if err := checkSize(shape); err != nil {
		return nil, err
	}
	unit := units(x, w)
	bias, err := biasSums(args, 2, cv.m, unit)
	if err != nil {
		return nil, err
	}
	t := term{sum: convolve(cv, x.centred(), w.centred(), bias), unit: unit, inner: count(shape[2:])}
	if err := fit(t.sum, x, t.inner, cv.m); err != nil {
		return nil, err
	}
	return &pending{shape: shape, terms: []term{t}}, nil
}

func gemmSums(c *call, args []meaning) (meaning, error) {
	x, err := factor(args, 0, false)
	if err != nil {
		return nil, err
	}
	w, err := factor(args, 1, true)
	if err != nil {
		return nil, err
	}
	if c.float("alpha", 1) != 1 || c.float("beta", 1) != 1 || c.int("transA", 0) != 0 {
		return nil, refuse("alpha, beta or transA is not the default")
	}
	if len(x.codes.Shape) != 2 || len(w.codes.Shape) != 2 {
		return nil, fmt.Errorf("%w: Gemm of %v and %v", ErrModel, x.codes.Shape, w.codes.Shape)
	}
	rows := Tensor{Type: w.codes.Type, Shape: w.codes.Shape, Ints: w.centred()}
	outAxis := 1
	if c.int("transB", 0) != 0 {
		rows, outAxis = permute(rows, []int{1, 0}), 0
	}
	if len(w.scale) > 1 && w.axis != outAxis {
		return nil, refuse("weight scales along axis %d, want %d", w.axis, outAxis)
	}
	n, k, m := x.codes.Shape[0], x.codes.Shape[1], rows.Shape[1]
	if rows.Shape[0] != k {
		return nil, fmt.Errorf("%w: Gemm of %v and %v", ErrModel, x.codes.Shape, w.codes.Shape)
	}
	if err := checkSize([]int{n, m}); err != nil {
		return nil, err
	}
	unit := units(x, w)
	bias, err := biasSums(args, 2, m, unit)
	if err != nil {
		return nil, err
	}
	t := term{sum: multiply(x.centred(), rows.Ints, n, k, m), unit: unit, inner: 1}
	for i := range t.sum {
		if bias != nil {
			t.sum[i] += bias[i%m]
		}
	}
	if err := fit(t.sum, x, 1, m); err != nil {
		return nil, err
	}
	return &pending{shape: []int{n, m}, terms: []term{t}}, nil
}

// matMulSums multiplies activations by weights or by activations.
func matMulSums(_ *call, args []meaning) (meaning, error) {
	x, err := factor(args, 0, false)
	if err != nil {
		return nil, err
	}
	w, err := factor(args, 1, true)
	if err != nil {
		return nil, err
	}
	if len(w.scale) > 1 && w.axis != len(w.codes.Shape)-1 {
		return nil, refuse("weight scales along axis %d of %v, want the last", w.axis, w.codes.Shape)
	}
	shape, err := newMatmul(x.codes.Shape, w.codes.Shape)
	if err != nil {
		return nil, err
	}
	if err := checkSize(shape.out); err != nil {
		return nil, err
	}
	t := term{sum: matmul(shape, x.centred(), w.centred()), unit: units(x, w), inner: 1}
	if err := fit(t.sum, x, 1, max(1, shape.m)); err != nil {
		return nil, err
	}
	return &pending{shape: shape.out, terms: []term{t}}, nil
}

// addSums adds a bias to the sums of a matrix product, or two quantized tensors.
func addSums(c *call, args []meaning) (meaning, error) {
	if len(args) != 2 {
		return nil, fmt.Errorf("%w: %d inputs", ErrModel, len(args))
	}
	for i, a := range args {
		if p, is := a.(*pending); is {
			if c.node.Op != "Add" || p.relu || len(p.terms) != 1 || len(p.shape) == 0 {
				return nil, refuse("input %d is a sum that no QuantizeLinear has rounded", i)
			}
			channels := p.shape[len(p.shape)-1]
			bias, err := biasSums(args, 1-i, channels, p.terms[0].unit)
			if err != nil {
				return nil, err
			}
			t := p.terms[0]
			if t.inner != 1 || t.cells != nil || t.owner != nil || bias == nil {
				return nil, refuse("a bias along the last axis for channels along another")
			}
			t.sum = append([]int64{}, t.sum...)
			for k := range t.sum {
				t.sum[k] += bias[k%channels]
				if t.sum[k] < math.MinInt32 || t.sum[k] > math.MaxInt32 {
					return nil, refuse("the sum %d of channel %d leaves int32", t.sum[k], k%channels)
				}
			}
			return &pending{shape: p.shape, terms: []term{t}}, nil
		}
	}
	a, err := operand(args, 0, false)
	if err != nil {
		return nil, err
	}
	b, err := operand(args, 1, false)
	if err != nil {
		return nil, err
	}
	shape, sa, sb, err := aligned(a, b)
	if err != nil {
		return nil, err
	}
	return &pending{shape: shape, terms: []term{
		{sum: sa, unit: a.scale, inner: 1},
		{sum: sb, unit: b.scale, inner: 1, minus: c.node.Op == "Sub"},
	}}, nil
}

// aligned broadcasts two tensors of codes, centred.
func aligned(a, b *dequant) (shape []int, sa, sb []int64, err error) {
	if shape, err = broadcast(a.codes.Shape, b.codes.Shape); err != nil {
		return nil, nil, nil, err
	}
	if err = checkSize(shape); err != nil {
		return nil, nil, nil, err
	}
	spread := func(d *dequant) []int64 {
		from := d.centred()
		if len(from) == count(shape) {
			return from
		}
		out := make([]int64, count(shape))
		walk(shape, d.codes.Shape, func(i, j int) { out[i] = from[j] })
		return out
	}
	return shape, spread(a), spread(b), nil
}

// mulSums is the product of two quantized tensors: one sum in units of f32(s_a * s_b).
func mulSums(args []meaning) (meaning, error) {
	a, err := factor(args, 0, false)
	if err != nil {
		return nil, err
	}
	b, err := factor(args, 1, false)
	if err != nil {
		return nil, err
	}
	shape, sa, sb, err := aligned(a, b)
	if err != nil {
		return nil, err
	}
	for i := range sa {
		sa[i] *= sb[i]
	}
	return &pending{shape: shape, terms: []term{{sum: sa, unit: units(a, b), inner: 1}}}, nil
}

// meanSums adds up the real cells of each window.
func meanSums(c *call, args []meaning) (meaning, error) {
	x, err := factor(args, 0, false)
	if err != nil {
		return nil, err
	}
	q := x.centred()
	if c.node.Op == "GlobalAveragePool" {
		if len(x.codes.Shape) < 3 || count(x.codes.Shape[2:]) == 0 {
			return nil, fmt.Errorf("%w: a pool over %v", ErrModel, x.codes.Shape)
		}
		shape, n := globalShape(x.codes.Shape), count(x.codes.Shape[2:])
		sum := make([]int64, count(shape))
		for i, v := range q {
			sum[i/n] += v
		}
		return &pending{shape: shape, terms: []term{{sum: sum, unit: x.scale, inner: 1, cells: []int{n}}}}, nil
	}
	if c.int("count_include_pad", 0) != 0 {
		return nil, refuse("count_include_pad: the mean is over real cells")
	}
	s, n, err := poolSums(c, x.codes.Shape, func(plane, i int) int64 { return q[plane+i] })
	if err != nil {
		return nil, err
	}
	return &pending{shape: s.shape, terms: []term{{sum: s.at, unit: x.scale, inner: 1, cells: n}}}, nil
}

// concatSums joins quantized tensors; each keeps the scale it comes with until the common QuantizeLinear.
func concatSums(c *call, args []meaning) (meaning, error) {
	var unit []float32
	var codes []*Tensor
	var at []*Tensor
	for i := range args {
		d, err := operand(args, i, false)
		if err != nil {
			return nil, err
		}
		t := Tensor{Type: onnxpb.Int64, Shape: d.codes.Shape, Ints: d.centred()}
		from := Tensor{Type: onnxpb.Int64, Shape: d.codes.Shape, Ints: make([]int64, t.Len())}
		for k := range from.Ints {
			from.Ints[k] = int64(i)
		}
		codes, at, unit = append(codes, &t), append(at, &from), append(unit, d.scale[0])
	}
	joined, err := concat(&call{node: c.node, opset: c.opset, in: codes})
	if err != nil {
		return nil, err
	}
	owner, err := concat(&call{node: c.node, opset: c.opset, in: at})
	if err != nil {
		return nil, err
	}
	return &pending{shape: joined[0].Shape, terms: []term{{sum: joined[0].Ints, unit: unit, owner: owner[0].Ints, inner: 1}}}, nil
}
