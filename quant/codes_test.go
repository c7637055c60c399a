package quant_test

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
	"github.com/narrow-ml/narrow/quant"
)

// randomParams draws scales between 2^-20 and 2^12 and zero points that the spec allows.
func randomParams(r *rand.Rand, spec quant.Spec, channels int) *quant.Params {
	if spec.Per == quant.PerTensor {
		channels = 1
	}
	p := &quant.Params{Spec: spec, Scale: make([]float32, channels), Zero: make([]int32, channels)}
	lo, hi := spec.Grid()
	for c := range channels {
		amax := float32(math.Ldexp(1+r.Float64(), r.IntN(32)-20))
		p.Scale[c], p.Zero[c] = spec.Choose(-amax*r.Float32(), amax)
		if spec.Scheme == quant.Affine {
			p.Zero[c] = lo + r.Int32N(hi-lo+1)
		}
	}
	return p
}

// sample draws values on, inside and far outside the range of p, ties and specials among them; channels are last.
func sample(r *rand.Rand, p *quant.Params, rows int) []float32 {
	lo, hi := p.Spec.Grid()
	var x []float32
	for range rows {
		for c := range p.Scale {
			s, z := p.At(c)
			k := float32(lo + r.Int32N(hi-lo+1) - z)
			switch r.IntN(8) {
			case 0:
				x = append(x, k*s)
			case 1:
				x = append(x, (k+0.5)*s)
			case 2:
				x = append(x, math.Nextafter32((k+0.5)*s, 0))
			case 3:
				x = append(x, float32(r.NormFloat64())*s*float32(hi-lo))
			case 4:
				x = append(x, []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32}[r.IntN(7)])
			default:
				x = append(x, s*(float32(lo-z)+r.Float32()*float32(hi-lo)))
			}
		}
	}
	return x
}

// TestQuantizerLaws holds the laws of a quantizer for every integer format, scheme, granularity and grid.
func TestQuantizerLaws(t *testing.T) {
	specs := integerSpecs()
	if want := 8 * (2*2*4 + 3); len(specs) != want { // symmetric and pow2: 2 granularities, 4 grids; affine: per tensor
		t.Fatalf("%d specs, want %d", len(specs), want)
	}
	for i, spec := range specs {
		t.Run(fmt.Sprintf("%s signed=%v narrow=%v", spec, spec.Signed, spec.Narrow), func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, uint64(i)))
			for range 20 {
				p := randomParams(r, spec, 3)
				if err := p.Validate(3); err != nil {
					t.Fatal(err)
				}
				for c := range p.Scale {
					checkGridPoints(t, r, p, c)
				}
				checkValues(t, p, sample(r, p, 60))
			}
		})
	}
}

// checkGridPoints: every point of the grid is a fixed point, and the value 0 is exactly the zero point.
func checkGridPoints(t *testing.T, r *rand.Rand, p *quant.Params, c int) {
	t.Helper()
	lo, hi := p.Spec.Grid()
	s, z := p.At(c)
	step := int32(1)
	if hi-lo > 255 {
		step = 1 + r.Int32N(200)
	}
	for q := lo; q <= hi; q += step {
		if got := quant.One(s*float32(q-z), s, z, lo, hi); got != q {
			t.Fatalf("s=%v z=%d: the value of code %d has code %d", s, z, q, got)
		}
	}
	for _, zero := range []float32{0, float32(math.Copysign(0, -1))} {
		if got := quant.One(zero, s, z, lo, hi); got != z {
			t.Fatalf("s=%v: %v has code %d, not the zero point %d", s, zero, got, z)
		}
	}
}

func checkValues(t *testing.T, p *quant.Params, x []float32) {
	t.Helper()
	lo, hi := p.Spec.Grid()
	n := len(p.Scale)
	y, pass := make([]float32, len(x)), make([]bool, len(x))
	if err := quant.FakeQuantize(y, x, p, pass); err != nil {
		t.Fatal(err)
	}
	twice := make([]float32, len(x))
	if err := quant.FakeQuantize(twice, y, p, nil); err != nil {
		t.Fatal(err)
	}
	if err := qtest.SameBits("quantized twice", twice, y); err != nil {
		t.Fatal(err)
	}
	for i, v := range x {
		s, z := p.At(i % n)
		want, inside := reference(v, s, z, lo, hi)
		q := quant.One(v, s, z, lo, hi)
		if q != want || q < lo || q > hi {
			t.Fatalf("code of %v (s=%v z=%d) is %d, the exact reference gives %d", v, s, z, q, want)
		}
		if pass[i] != inside {
			t.Fatalf("mask of %v (s=%v z=%d [%d,%d]) is %v, want %v", v, s, z, lo, hi, pass[i], inside)
		}
		// Within half a step wherever the rounded value is on the grid; the division's own rounding is 2^-24 of x.
		if err := math.Abs(float64(v) - float64(s)*float64(q-z)); inside && err > float64(s)/2+math.Abs(float64(v))/(1<<24) {
			t.Fatalf("%v (s=%v z=%d) is off by %v, more than half a step", v, s, z, err)
		}
		for j := i % n; j < i; j += n { // monotone, within the channel
			if (x[j] <= v && y[j] > y[i]) || (x[j] >= v && y[j] < y[i]) {
				t.Fatalf("not monotone: %v -> %v but %v -> %v", x[j], y[j], v, y[i])
			}
		}
	}
	checkMemory[uint8](t, p, x, y, 0, 255)
	checkMemory[int8](t, p, x, y, -128, 127)
	checkMemory[int16](t, p, x, y, math.MinInt16, math.MaxInt16)
}

// checkMemory: Dequantize(Quantize(x)) is FakeQuantize(x) bit for bit in every code type that holds the grid, and the
// other code types are refused rather than wrapped.
func checkMemory[C quant.Code](t *testing.T, p *quant.Params, x, fake []float32, min, max int32) {
	t.Helper()
	codes := make([]C, len(x))
	err := quant.Quantize(codes, x, p)
	if lo, hi := p.Spec.Grid(); lo < min || hi > max {
		if err == nil {
			t.Fatalf("grid [%d, %d] was stored in %T", lo, hi, C(0))
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	y := make([]float32, len(x))
	if err := quant.Dequantize(y, codes, p); err != nil {
		t.Fatal(err)
	}
	if err := qtest.SameBits("dequantize(quantize(x))", y, fake); err != nil {
		t.Fatal(err)
	}
}

// reference is the definition in exact arithmetic: the quotient x/s is rounded once to float32, then to an integer with
// halves to even; inside tells whether that integer plus z is on the grid.
func reference(x, s float32, z, lo, hi int32) (code int32, inside bool) {
	if math.IsInf(float64(x), 1) {
		return hi, false
	}
	if math.IsInf(float64(x), -1) {
		return lo, false
	}
	ratio, _ := new(big.Rat).Quo(rat(x), rat(s)).Float32()
	if math.IsInf(float64(ratio), 0) {
		if ratio > 0 {
			return hi, false
		}
		return lo, false
	}
	q := rint(rat(ratio))
	q.Add(q, big.NewInt(int64(z)))
	switch {
	case q.Cmp(big.NewInt(int64(lo))) < 0:
		return lo, false
	case q.Cmp(big.NewInt(int64(hi))) > 0:
		return hi, false
	}
	return int32(q.Int64()), true
}

func rat(x float32) *big.Rat { return new(big.Rat).SetFloat64(float64(x)) }

// rint is the integer nearest to r, halves to even.
func rint(r *big.Rat) *big.Int {
	twice := new(big.Int).Lsh(r.Num(), 1)
	twice.Add(twice, r.Denom())
	den := new(big.Int).Lsh(r.Denom(), 1)
	q, rem := new(big.Int).DivMod(twice, den, new(big.Int)) // floor(r + 1/2)
	if rem.Sign() == 0 && q.Bit(0) == 1 {
		q.Sub(q, big.NewInt(1))
	}
	return q
}

func TestRintReference(t *testing.T) {
	for x, want := range map[float64]int64{0.5: 0, 1.5: 2, 2.5: 2, -0.5: 0, -1.5: -2, -2.5: -2, 2.4: 2, -2.6: -3, 7: 7} {
		if got := rint(new(big.Rat).SetFloat64(x)); got.Int64() != want {
			t.Errorf("rint(%v) = %v, want %d", x, got, want)
		}
	}
}

// TestD4Division pins true division: FBGEMM's own example (include/fbgemm/QuantUtils.h) of a value whose code is 127 by
// division and 128 by multiplication with the reciprocal.
func TestD4Division(t *testing.T) {
	const s, x = float32(0.00214854861), float32(0.273939937)
	inv := 1 / s
	if got := math.RoundToEven(float64(x * inv)); got != 128 {
		t.Fatalf("the example no longer tells the two apart: reciprocal gives %v", got)
	}
	if got := quant.One(x, s, 0, -128, 255); got != 127 {
		t.Errorf("code %d, want 127", got)
	}
}

// TestD1HalvesToEven: the rounding comes before the zero point is added, so an odd zero point does not move ties.
func TestD1HalvesToEven(t *testing.T) {
	for _, z := range []int32{0, 7, 8} {
		for x, want := range map[float32]int32{-3.5: -4, -2.5: -2, -1.5: -2, -0.5: 0, 0.5: 0, 1.5: 2, 2.5: 2, 3.5: 4} {
			if got := quant.One(x, 1, z, -128, 127); got != want+z {
				t.Errorf("One(%v, s=1, z=%d) = %d, want %d", x, z, got, want+z)
			}
		}
	}
}

// TestD1ONNXVectors are the standard's own cases test_quantizelinear_axis, _int16, _uint4 and _int2 (onnx v1.22.0,
// Apache-2.0), one row per channel.
func TestD1ONNXVectors(t *testing.T) {
	int2 := quant.Spec{Format: quant.Int2, Signed: true}
	int16 := quant.Spec{Format: quant.Int16, Signed: true}
	rows := []struct {
		spec quant.Spec
		s    float32
		z    int32
		x    []float32
		want []int32
	}{
		{quant.ActSpec(quant.Int8), 2, 84, []float32{-162, 10, -100, 232, -20, -50}, []int32{3, 89, 34, 200, 74, 59}},
		{quant.ActSpec(quant.Int8), 4, 24, []float32{-76, 0, 0, 252, 32, -44}, []int32{5, 24, 24, 87, 32, 13}},
		{quant.ActSpec(quant.Int8), 5, 196, []float32{245, -485, -960, -270, -375, -470}, []int32{245, 99, 4, 142, 121, 102}},
		{int16, 2, 256,
			[]float32{0, -514, 3, -3, 2.9, -2.9, 3.1, -3.1, 65022, -66046, 65023, -66047, 65024, -66048, 70000, -70000},
			[]int32{256, -1, 258, 254, 257, 255, 258, 254, 32767, -32767, 32767, -32768, 32767, -32768, 32767, -32768}},
		{quant.ActSpec(quant.Int4), 2, 1, []float32{0, 2.5, 4.8, 8.6}, []int32{1, 2, 3, 5}},
		{quant.ActSpec(quant.Int4), 3, 1, []float32{-30, -20, 6, 9}, []int32{0, 0, 3, 4}},
		{quant.ActSpec(quant.Int4), 4, 1, []float32{12, 15, 16, 40}, []int32{4, 5, 5, 11}},
		{int2, 2, 0, []float32{0, 2.5, 4.8, 8.6}, []int32{0, 1, 1, 1}},
		{int2, 3, 0, []float32{-4, -3, 1, 2}, []int32{-1, -1, 0, 1}},
		{int2, 4, 0, []float32{float32(math.Copysign(0, -1)), -2.5, -4.8, -8.6}, []int32{0, -1, -1, -2}},
	}
	for _, r := range rows {
		lo, hi := r.spec.Grid()
		for i, x := range r.x {
			if got := quant.One(x, r.s, r.z, lo, hi); got != r.want[i] {
				t.Errorf("%s s=%v z=%d: code of %v is %d, want %d", r.spec.Format, r.s, r.z, x, got, r.want[i])
			}
		}
	}
}

func TestNonFinite(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	p := &quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{0.5}, Zero: []int32{3}}
	codes := make([]uint8, 2)
	if err := quant.Quantize(codes, []float32{inf, -inf}, p); err != nil || codes[0] != 255 || codes[1] != 0 {
		t.Errorf("infinities give %v, %v; want the ends of the grid", codes, err)
	}
	y, pass := make([]float32, 2), []bool{true, true}
	if err := quant.FakeQuantize(y, []float32{inf, -inf}, p, pass); err != nil || y[0] != 126 || y[1] != -1.5 || pass[0] || pass[1] {
		t.Errorf("infinities give %v, mask %v, %v; want 126, -1.5 and no gradient", y, pass, err)
	}
	x := []float32{1, 2, nan, nan}
	for what, err := range map[string]error{
		"Quantize":          quant.Quantize(make([]uint8, 4), x, p),
		"FakeQuantize":      quant.FakeQuantize(make([]float32, 4), x, p, nil),
		"FakeQuantize fp16": quant.FakeQuantize(make([]float32, 4), x, &quant.Params{Spec: quant.ActSpec(quant.FP16)}, nil),
	} {
		var bad *quant.NaNError
		if !errors.As(err, &bad) || bad.Index != 2 || err.Error() != "value[2] is NaN and has no code" {
			t.Errorf("%s: %v, want a NaNError at 2", what, err)
		}
	}
}

func TestFakeQuantizeFloatFormats(t *testing.T) {
	x := []float32{1.0009765625, -3, 1e-3}
	for _, f := range []quant.Format{quant.FP32, quant.FP16, quant.BF16} {
		y, pass := make([]float32, 3), make([]bool, 3)
		if err := quant.FakeQuantize(y, x, &quant.Params{Spec: quant.ActSpec(f)}, pass); err != nil {
			t.Fatal(err)
		}
		for i, v := range x {
			want := v
			if f != quant.FP32 {
				want = quant.Decode16(quant.Encode16(v, f), f)
			}
			if y[i] != want || !pass[i] {
				t.Errorf("%s: %v -> %v (gradient %v), want %v with gradient", f, v, y[i], pass[i], want)
			}
		}
	}
}

// TestCodesRefuse: nothing panics or wraps on parameters that cannot work.
func TestCodesRefuse(t *testing.T) {
	good := quant.Params{Spec: quant.ActSpec(quant.Int8), Scale: []float32{1}, Zero: []int32{0}}
	with := func(f func(*quant.Params)) *quant.Params { p := good.Clone(); f(p); return p }
	x := make([]float32, 4)
	quantize := func(p *quant.Params) error { return quant.Quantize(make([]uint8, 4), x, p) }
	rows := []struct {
		name string
		err  error
		want string
	}{
		{"quantize lengths", quant.Quantize(make([]uint8, 3), x, &good), "quantize: 3 codes for 4 values"},
		{"dequantize lengths", quant.Dequantize(x, make([]uint8, 3), &good), "dequantize: 4 values for 3 codes"},
		{"fake lengths", quant.FakeQuantize(make([]float32, 3), x, &good, nil), "fake-quantize: 3 outputs and 0 mask values for 4 values"},
		{"mask length", quant.FakeQuantize(make([]float32, 4), x, &good, make([]bool, 2)), "fake-quantize: 4 outputs and 2 mask values for 4 values"},
		{"no scale", quantize(with(func(p *quant.Params) { p.Scale, p.Zero = nil, nil })), "quantize: no scale yet: calibrate or train first"},
		{"no scale, fake", quant.FakeQuantize(x, x, with(func(p *quant.Params) { p.Scale = nil }), nil), "fake-quantize: no scale yet: calibrate or train first"},
		{"no scale, back", quant.Dequantize(x, make([]int8, 4), with(func(p *quant.Params) { p.Scale = nil })), "dequantize: no scale yet: calibrate or train first"},
		{"zero points missing", quantize(with(func(p *quant.Params) { p.Zero = nil })), "quantize: 1 scales and 0 zero points"},
		{"ragged rows", quantize(with(func(p *quant.Params) { p.Scale, p.Zero = []float32{1, 1, 1}, make([]int32, 3) })), "quantize: 4 values are not a whole number of rows of 3 channels"},
		{"NaN scale", quantize(with(func(p *quant.Params) { p.Scale[0] = float32(math.NaN()) })), "quantize: scale[0] is NaN; it must be finite and positive"},
		{"zero scale", quantize(with(func(p *quant.Params) { p.Scale[0] = 0 })), "quantize: scale[0] is 0; it must be finite and positive"},
		{"float format", quantize(with(func(p *quant.Params) { p.Spec.Format = quant.FP16 })), "quantize: fp16 values have no integer codes"},
		{"codes too narrow", quant.Quantize(make([]int8, 4), x, &good), "quantize: the grid [0, 255] of int8 affine/tensor/envelope does not fit codes of type int8"},
		{"codes unsigned", quantize(with(func(p *quant.Params) { p.Spec.Signed = true })), "quantize: the grid [-128, 127] of int8 affine/tensor/envelope does not fit codes of type uint8"},
	}
	for _, r := range rows {
		if got := message(r.err); got != r.want {
			t.Errorf("%s: %q, want %q", r.name, got, r.want)
		}
	}
}

func FuzzQuantizer(f *testing.F) {
	f.Add(uint8(0), float32(0.1), int32(3), float32(1.25))
	f.Add(uint8(40), float32(0.00214854861), int32(0), float32(0.273939937))
	f.Add(uint8(119), float32(math.SmallestNonzeroFloat32), int32(-9), float32(math.MaxFloat32))
	f.Add(uint8(77), float32(1e-38), int32(1<<30), float32(-1e-45))
	specs := integerSpecs()
	f.Fuzz(func(t *testing.T, which uint8, s float32, z int32, x float32) {
		spec := specs[int(which)%len(specs)]
		lo, hi := spec.Grid()
		if !(s > 0) || math.IsInf(float64(s*65536), 0) || x != x {
			t.Skip("not a scale, or not a value")
		}
		z = lo + int32(uint32(z)%uint32(hi-lo+1))
		if spec.Scheme != quant.Affine && spec.Signed {
			z = 0
		}
		p := &quant.Params{Spec: spec, Scale: []float32{s}, Zero: []int32{z}}
		checkValues(t, p, []float32{x, -x, 0})
	})
}
