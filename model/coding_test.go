package model_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// normed is a fused dense layer of one input with the given batch norm per channel.
func normed(t testing.TB, withBias bool, gamma, beta, mean, variance, bias []float32, eps float32) (*model.Model, *model.Node) {
	n := dense("fc", len(gamma))
	n.Name, n.Attr.Bias = "fc.dense", withBias
	b := norm("fc", "fc")
	b.Attr.Eps = eps
	m := must(t)(model.Fuse(must(t)(model.Shapes(chain(model.Shape{1}, n, b)))))
	copy(m.Params["fc.gamma"].Data, gamma)
	copy(m.Params["fc.beta"].Data, beta)
	copy(m.Params["fc.mean"].Data, mean)
	copy(m.Params["fc.var"].Data, variance)
	if withBias {
		copy(m.Params["fc.bias"].Data, bias)
	}
	return m, m.Node("fc")
}

func TestAffine(t *testing.T) {
	// var + eps is 4, 1, 0.25 and 1: exact square roots.
	gamma, beta := []float32{2, -3, 0, 1}, []float32{10, 20, 30, 40}
	mean, variance := []float32{5, -1, 7, 0.5}, []float32{3.75, 0.75, 0, 0.75}
	m, n := normed(t, true, gamma, beta, mean, variance, []float32{1, 2, 3, 0.5}, 0.25)
	a, err := m.Affine(n)
	if err != nil {
		t.Fatal(err)
	}
	if want := []float64{1, -3, 0, 1}; !slices.Equal(a.F, want) {
		t.Errorf("F = %v, want %v", a.F, want)
	}
	if want := []float64{10 + (1 - 5), 20 - 3*(2+1), 30, 40}; !slices.Equal(a.B, want) {
		t.Errorf("B = %v, want %v", a.B, want)
	}
	mul, add := a.Float32()
	if !slices.Equal(mul, []float32{1, -3, 0, 1}) || !slices.Equal(add, []float32{6, 11, 30, 40}) {
		t.Errorf("float32: %v, %v", mul, add)
	}
	m, n = normed(t, false, gamma, beta, mean, variance, nil, 0.25)
	if a, err = m.Affine(n); err != nil || !slices.Equal(a.B, []float64{5, 17, 30, 39.5}) {
		t.Errorf("without a bias B = %v, %v", a.B, err)
	}
	// No batch norm: F is nil and B is the bias, or zeros.
	plain := must(t)(model.Shapes(chain(model.Shape{1}, dense("fc", 2))))
	plain.Params["fc.bias"].Data[1] = -4
	if a, err = plain.Affine(&plain.Nodes[0]); err != nil || a.F != nil || !slices.Equal(a.B, []float64{0, -4}) {
		t.Errorf("plain: %+v, %v", a, err)
	}
	if mul, add = a.Float32(); mul != nil || !slices.Equal(add, []float32{0, -4}) {
		t.Errorf("plain in float32: %v, %v", mul, add)
	}
}

func TestAffineRefuses(t *testing.T) {
	nan := float32(math.NaN())
	one := []float32{1}
	rows := []struct {
		gamma, beta, mean, variance float32
		want                        string
	}{
		{1, nan, 0, 1, `net.yaml:3: dense "fc": bias or batch norm of channel 0 is NaN`},
		{nan, 0, 0, 1, `net.yaml:3: dense "fc": bias or batch norm of channel 0 is NaN`},
		{1, 0, 0, -2, `net.yaml:3: dense "fc": bias or batch norm of channel 0 is NaN`},
		{math.MaxFloat32, 0, 0, 0, `net.yaml:3: dense "fc": batch norm factor of channel 0 is 6.805646932770577e+38 (gamma / sqrt(var+eps))`},
		{1, 0, math.MaxFloat32, 0.75, ""},
		{1, 0, math.MaxFloat32, 0, `net.yaml:3: dense "fc": bias or batch norm of channel 0 is -6.805646932770577e+38`},
	}
	for _, r := range rows {
		m, n := normed(t, true, []float32{r.gamma}, []float32{r.beta}, []float32{r.mean}, []float32{r.variance}, []float32{0}, 0.25)
		if _, err := m.Affine(n); text(err) != r.want {
			t.Errorf("%v, want %s", err, r.want)
		}
	}
	m, n := normed(t, true, one, one, one, one, one, 1)
	delete(m.Params, "fc.var")
	if _, err := m.Affine(n); text(err) != `net.yaml:3: dense "fc": batch norm parameter "fc.var" is missing` {
		t.Error(err)
	}
	delete(m.Params, "fc.bias")
	if _, err := m.Affine(n); text(err) != `net.yaml:3: dense "fc": bias is missing` {
		t.Error(err)
	}
}

func TestFold(t *testing.T) {
	const floor = model.NormFloor
	a := model.Affine{F: []float64{2, -0.5, 0, floor / 2, -floor / 2, floor, -floor}, B: []float64{1, -1, 0.25, 0, 0, 0, 0}}
	scale := []float32{0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25}
	f, bad := a.Fold(scale, 0.5)
	if bad != -1 {
		t.Fatalf("channel %d does not fit", bad)
	}
	tiny := float32(0.25 * floor)
	if want := []int8{1, -1, 0, 0, 0, 1, -1}; !slices.Equal(f.Sign, want) {
		t.Errorf("signs %v, want %v", f.Sign, want)
	}
	if want := []float32{0.5, 0.125, tiny, tiny, tiny, tiny, tiny}; !slices.Equal(f.Scale, want) {
		t.Errorf("scales %v, want %v", f.Scale, want)
	}
	if want := []int32{4, -16, 2 << 20, 0, 0, 0, 0}; !slices.Equal(f.Bias, want) { // 0.25 / (0.5*0.25*2^-20) = 2^21
		t.Errorf("biases %v, want %v", f.Bias, want)
	}
	if _, bad := (model.Affine{B: []float64{0, 1e30}}).Fold([]float32{1, 1}, 1); bad != 1 {
		t.Errorf("a bias of 1e30 fits, says channel %d", bad)
	}
	f, bad = model.Affine{B: []float64{0.75}}.Fold([]float32{0.5}, 0.5)
	if bad != -1 || f.Sign[0] != 1 || f.Scale[0] != 0.5 || f.Bias[0] != 3 {
		t.Errorf("without batch norm: %+v, %d", f, bad)
	}
}

func codes(z int32, f quant.Format, scale float32) *quant.Params {
	return &quant.Params{Spec: quant.ActSpec(f), Scale: []float32{scale}, Zero: []int32{z}}
}

func TestCodeWeightsScales(t *testing.T) {
	w := []float32{ // 3 rows of 2 channels
		0.6, -2,
		-1.1, 1.2,
		0.25, 0,
	}
	channel, tensor := quant.WeightSpec(quant.Int4), quant.WeightSpec(quant.Int4)
	tensor.Per = quant.PerTensor
	given := channel
	given.Range = quant.LSQ
	pow2 := channel
	pow2.Scheme = quant.PowerOfTwo
	rows := []struct {
		name  string
		p     quant.Params
		scale []float32
		codes []int8
	}{
		{"absmax per channel", quant.Params{Spec: channel}, []float32{1.1 / 7, 2.0 / 7}, []int8{4, -7, -7, 4, 2, 0}},
		{"absmax per tensor", quant.Params{Spec: tensor}, []float32{2.0 / 7, 2.0 / 7}, []int8{2, -7, -4, 4, 1, 0}},
		{"learned", quant.Params{Spec: given, Scale: []float32{0.25, 1}}, []float32{0.25, 1}, []int8{2, -2, -4, 1, 1, 0}},
		{"learned, one scale", quant.Params{Spec: given, Scale: []float32{0.25}}, []float32{0.25, 0.25}, []int8{2, -7, -4, 5, 1, 0}}, // -8 saturates
		{"power of two", quant.Params{Spec: pow2}, []float32{0.25, 0.5}, []int8{2, -4, -4, 2, 1, 0}},
	}
	for _, r := range rows {
		got, scale := make([]int8, 6), make([]float32, 2)
		raised, err := model.CodeWeights(got, scale, w, &r.p, codes(3, quant.Int8, 0.1), nil)
		if err != nil || raised != 0 || !slices.Equal(scale, r.scale) || !slices.Equal(got, r.codes) {
			t.Errorf("%s: codes %v, scales %v, %d raised, %v; want %v, %v", r.name, got, scale, raised, err, r.codes, r.scale)
		}
	}
	// A channel of zeros has the smallest scale, not a division by zero.
	got, scale := make([]int8, 2), make([]float32, 2)
	if _, err := model.CodeWeights(got, scale, []float32{0, 1}, &quant.Params{Spec: channel}, codes(0, quant.Int8, 1), nil); err != nil || scale[0] != quant.MinScale || got[0] != 0 || got[1] != 7 {
		t.Errorf("zero channel: %v, %v, %v", got, scale, err)
	}
}

// worst is the largest magnitude an accumulator can reach over all inputs, in exact integers.
func worst(codes []int8, bias []int32, sign []int8, in *quant.Params) int64 {
	lo, hi := in.Spec.Grid()
	z := in.Zero[0]
	most := int64(0)
	for ch := range bias {
		top, bottom := int64(bias[ch]), int64(bias[ch])
		for i := ch; i < len(codes); i += len(bias) {
			w := int64(codes[i]) * int64(sign[ch])
			top += max(w*int64(lo-z), w*int64(hi-z))
			bottom += min(w*int64(lo-z), w*int64(hi-z))
		}
		most = max(most, top, -bottom)
	}
	return most
}

// TestCodeWeightsNeverOverflow is the property of the raise rule: whatever the weights, biases and zero points, the worst
// accumulator stays within 32 bits; and a scale that was doubled was doubled no more than needed.
func TestCodeWeightsNeverOverflow(t *testing.T) {
	r := rand.New(rand.NewPCG(32, 1))
	raisedOnce := 0
	for trial := range 60 {
		c, k := 1+r.IntN(3), 1+r.IntN(2000)
		if trial%6 == 0 {
			k = 60_000 + r.IntN(140_000) // long enough for 127*255*k to pass 2^31
		}
		w := make([]float32, c*k)
		amplitude := math.Ldexp(1, r.IntN(20)-12)
		for i := range w {
			w[i] = float32(amplitude * (2*r.Float64() - 1))
			if trial%2 == 0 { // adversarial: every weight at the end of the range
				w[i] = float32(math.Copysign(amplitude, r.Float64()-0.3))
			}
		}
		in := codes(r.Int32N(256), quant.Int8, float32(math.Ldexp(1+r.Float64(), r.IntN(12)-10)))
		a := &model.Affine{B: make([]float64, c)}
		if trial%3 != 0 {
			a.F = make([]float64, c)
		}
		for ch := range c {
			a.B[ch] = r.NormFloat64() * math.Pow(10, float64(r.IntN(9)-2))
			if a.F != nil {
				a.F[ch] = r.NormFloat64() * math.Pow(10, float64(r.IntN(8)-7))
			}
		}
		p := &quant.Params{Spec: quant.WeightSpec([]quant.Format{quant.Int2, quant.Int4, quant.Int8, quant.Int8}[r.IntN(4)])}
		got, scale := make([]int8, len(w)), make([]float32, c)
		raised, err := model.CodeWeights(got, scale, w, p, in, a)
		if err != nil {
			t.Fatal(err)
		}
		f, bad := a.Fold(scale, in.Scale[0])
		if bad >= 0 {
			t.Fatalf("trial %d: the bias of channel %d does not fit after CodeWeights", trial, bad)
		}
		if m := worst(got, f.Bias, f.Sign, in); m > math.MaxInt32 {
			t.Fatalf("trial %d: an accumulator reaches %d", trial, m)
		}
		plain := make([]float32, c)
		if _, err := model.CodeWeights(make([]int8, len(w)), plain, w, p, codes(0, quant.Int2, 1), nil); err != nil {
			t.Fatal(err)
		}
		changed := 0
		for ch := range c {
			if scale[ch] == plain[ch] {
				continue
			}
			changed++
			if frac, _ := math.Frexp(float64(scale[ch] / plain[ch])); frac != 0.5 || scale[ch] < plain[ch] {
				t.Fatalf("trial %d: scale %v became %v", trial, plain[ch], scale[ch])
			}
			if fitsWith(w, ch, c, scale[ch]/2, p, in, a) {
				t.Fatalf("trial %d: scale %v of channel %d was raised to %v, but half of that fits", trial, plain[ch], ch, scale[ch])
			}
		}
		if changed != raised {
			t.Fatalf("trial %d: %d channels raised, reported %d", trial, changed, raised)
		}
		raisedOnce += raised
	}
	if raisedOnce < 20 {
		t.Errorf("only %d channels were raised: the trials do not reach the rule", raisedOnce)
	}
}

// fitsWith is the bound of the rule for one channel at one scale, computed apart from the code under test.
func fitsWith(w []float32, ch, c int, scale float32, p, in *quant.Params, a *model.Affine) bool {
	lo, hi := p.Spec.Grid()
	xlo, xhi := in.Spec.Grid()
	sum := int64(0)
	for i := ch; i < len(w); i += c {
		q := int64(quant.One(w[i], scale, 0, lo, hi))
		sum += max(q, -q)
	}
	s := float64(scale)
	if a.F != nil {
		s = float64(float32(s * max(math.Abs(a.F[ch]), model.NormFloor)))
	}
	bias := math.RoundToEven(math.Abs(a.B[ch]) / float64(in.Scale[0]*float32(s)))
	return bias+float64(sum*int64(max(in.Zero[0]-xlo, xhi-in.Zero[0]))) <= math.MaxInt32
}

// TestCodeWeightsAtTheLimit: a bound of exactly 2^31-1 fits, one more does not; bias and products count together, by
// magnitude, at the farther end of the input's grid.
func TestCodeWeightsAtTheLimit(t *testing.T) {
	spec := quant.WeightSpec(quant.Int8)
	spec.Range = quant.LSQ
	for _, c := range []struct {
		w     []float32
		z     int32
		reach float64 // sum |q_w| * max(z, 255-z)
	}{
		{[]float32{1}, 0, 255}, {[]float32{-1}, 0, 255}, {[]float32{1}, 255, 255}, {[]float32{1}, 100, 155}, {[]float32{1}, 200, 200},
		{[]float32{3, -3}, 0, 6 * 255}, {[]float32{5, -4, 0}, 127, 9 * 128},
	} {
		for _, sign := range []float64{1, -1} {
			for over := range 2 {
				bias := sign * (math.MaxInt32 - c.reach + float64(over))
				got, scale := make([]int8, len(c.w)), make([]float32, 1)
				raised, err := model.CodeWeights(got, scale, c.w, &quant.Params{Spec: spec, Scale: []float32{1}}, codes(c.z, quant.Int8, 1), &model.Affine{B: []float64{bias}})
				if err != nil || raised != over || scale[0] != float32(1+over) {
					t.Errorf("weights %v, zero point %d, bias %v: %d raised to %v, %v; want %d", c.w, c.z, bias, raised, scale[0], err, over)
				}
			}
		}
	}
}

// TestCodeWeightsHugeBias: the scale grows until the bias fits, and the bias keeps its value to half a step.
func TestCodeWeightsHugeBias(t *testing.T) {
	w := []float32{1e-3, 1, -1e-3, -1}
	in := codes(0, quant.Int8, 1e-3)
	a := &model.Affine{B: []float64{1e6, 0.5}}
	got, scale := make([]int8, 4), make([]float32, 2)
	raised, err := model.CodeWeights(got, scale, w, &quant.Params{Spec: quant.WeightSpec(quant.Int8)}, in, a)
	if err != nil || raised != 1 {
		t.Fatalf("%d channels raised, %v; want the one with the huge bias", raised, err)
	}
	f, _ := a.Fold(scale, in.Scale[0])
	step := float64(in.Scale[0] * scale[0])
	if off := math.Abs(float64(f.Bias[0])*step - 1e6); off > step/2+1e-9*1e6 {
		t.Errorf("the bias is off by %v at a step of %v", off, step)
	}
	if got[1] != 127 || got[3] != -127 {
		t.Errorf("the other channel was touched: %v", got)
	}
}

func TestCodeWeightsRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	spec := quant.WeightSpec(quant.Int8)
	group := spec
	group.Per, group.Group = quant.PerGroup, 32
	lsq := spec
	lsq.Range = quant.LSQ
	in := codes(0, quant.Int8, 1)
	call := func(w []float32, p quant.Params, in *quant.Params, a *model.Affine) error {
		_, err := model.CodeWeights(make([]int8, 4), make([]float32, 2), w, &p, in, a)
		return err
	}
	good := []float32{1, 2, 3, 4}
	rows := []struct {
		name string
		err  error
		want string
	}{
		{"NaN", call([]float32{1, 2, nan, 4}, quant.Params{Spec: spec}, in, nil), "value[2] is NaN and has no code"},
		{"NaN with given scales", call([]float32{1, nan, 3, 4}, quant.Params{Spec: lsq, Scale: []float32{1}}, in, nil), "value[1] is NaN and has no code"},
		{"infinite", call([]float32{1, 2, 3, -inf}, quant.Params{Spec: spec}, in, nil), "value[3] is -Inf; a weight must be finite"},
		{"infinite with given scales", call([]float32{inf, 2, 3, 4}, quant.Params{Spec: lsq, Scale: []float32{1}}, in, nil), "value[0] is +Inf; a weight must be finite"},
		{"no scale yet", call(good, quant.Params{Spec: lsq}, in, nil), "range method lsq needs 1 or 2 scales, has 0: calibrate first"},
		{"three scales", call(good, quant.Params{Spec: lsq, Scale: []float32{1, 1, 1}}, in, nil), "range method lsq needs 1 or 2 scales, has 3: calibrate first"},
		{"bad scale", call(good, quant.Params{Spec: lsq, Scale: []float32{1, nan}}, in, nil), "scale[1] is NaN; it must be finite and positive"},
		{"lengths", call(good[:3], quant.Params{Spec: spec}, in, nil), "3 weights, 4 codes, 2 channels and 2 scales do not fit"},
		{"16 bits", call(good, quant.Params{Spec: quant.WeightSpec(quant.Int16)}, in, nil), "int16 symmetric/channel/minmax: weights must be signed integers, without zero point and at most 8 bits"},
		{"float", call(good, quant.Params{Spec: quant.WeightSpec(quant.FP16)}, in, nil), "fp16: weights must be signed integers, without zero point and at most 8 bits"},
		{"unsigned", call(good, quant.Params{Spec: quant.ActSpec(quant.Int8)}, in, nil), "int8 affine/tensor/envelope: weights must be signed integers, without zero point and at most 8 bits"},
		{"no input", call(good, quant.Params{Spec: spec}, nil, nil), "the layer's input has no quantizer"},
		{"input without range", call(good, quant.Params{Spec: spec}, &quant.Params{Spec: quant.ActSpec(quant.Int8)}, nil), "input quantizer: tensor needs 1 scales and zero points, has 0 and 0"},
		{"groups of codes", call(good, quant.Params{Spec: group, Channels: 2}, in, nil), "a scale per group of inputs would need an accumulator for each group, and the integer product has one for each channel: use per: channel, or weights alone in integers (w4a16)"},
		{"groups of other channels", call(good, quant.Params{Spec: group, Channels: 4}, in, nil), "4 weights, 4 codes, 4 channels and 2 scales do not fit"},
		{"affine of another layer", call(good, quant.Params{Spec: spec}, in, &model.Affine{B: make([]float64, 3)}), "3 biases and 0 batch norm factors for 2 channels"},
		{"no scale is enough", call(good, quant.Params{Spec: spec}, codes(0, quant.Int8, 1e-35), &model.Affine{B: []float64{0, 1e38}}),
			"channel 1: no scale keeps the accumulator within 32 bits; its bias or batch norm is out of all proportion to its weights"},
	}
	for _, r := range rows {
		if got := text(r.err); got != r.want {
			t.Errorf("%s: %q, want %q", r.name, got, r.want)
		}
	}
	var bad *quant.NaNError
	if !errors.As(rows[1].err, &bad) || bad.Index != 1 {
		t.Errorf("a NaN weight is %v, not a NaNError", rows[1].err)
	}
}
