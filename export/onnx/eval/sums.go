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
	cap   float32 // upper limit of the reals, where it is not 0
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
	if p.cap > 0 {
		if top := math.RoundToEven(float64(p.cap / s)); top < float64(hi-z) {
			hi = z + int64(top)
		}
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
	if p.cap > 0 {
		return Tensor{}, refuse("a limit of reals reaches an output without a QuantizeLinear; limit the codes behind one instead")
	}
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

// fit checks that 8-bit products stayed within the int32 accumulator of a real machine; products of 16 bits accumulate in
// 64.
func fit(sum []int64, x, w *dequant, inner, channels int) error {
	if max(x.codes.Type.Bits(), w.codes.Type.Bits()) > 8 {
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
	if err := fit(t.sum, x, w, t.inner, cv.m); err != nil {
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
	if err := fit(t.sum, x, w, 1, m); err != nil {
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
	if err := fit(t.sum, x, w, 1, max(1, shape.m)); err != nil {
		return nil, err
	}
	return &pending{shape: shape.out, terms: []term{t}}, nil
}
