package eval_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// A dense layer by hand. Input grid s=0.5, z=2; weights s_w = {0.25, 0.5}; output grid s=0.125, z=1.
//
//	x = [1, -0.5]          codes 4, 1         q-z = 2, -1
//	acc0 = 10 + 2*3 - 1*5 = 11                acc1 = -7 + 2*1 - 1*(-2) = -3
//	M0 = 0.125/0.125 = 1, M1 = 0.25/0.125 = 2 t = 11, -6 -> with ReLU: 12, 1; without: 12, 0 (saturated at lo - z = -1)
//	logits: 11*0.125 = 1.375, -3*0.25 = -0.75
func TestIntegerDense(t *testing.T) {
	for _, c := range []struct {
		name  string
		relu  bool
		codes []int64
	}{
		{"relu", true, []int64{12, 1}},
		{"saturated", false, []int64{12, 0}},
	} {
		b := newBuilder(t)
		x := b.quant("xq", b.input("x", 2), 0.5, 2)
		w := b.weight("w", []int64{2, 2}, 0, []int64{3, 5, 1, -2}, 0.25, 0.5)
		bias := b.bias("b", []int64{10, -7}, 0.125, 0.25)
		y := b.node("Gemm", "acc", []string{x, w, bias}, onnxpb.IntAttr("transB", 1))
		if c.relu {
			y = b.node("Relu", "act", []string{y})
		}
		b.output(b.quant("y", y, 0.125, 1))
		seen := map[string][]int64{}
		out, err := b.load().Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 2}, []float32{1, -0.5})}, eval.Integer,
			func(name string, t eval.Tensor) error { seen[name] = t.Ints; return nil })
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if !reflect.DeepEqual(seen["xq"], []int64{4, 1}) || !reflect.DeepEqual(seen["y"], c.codes) {
			t.Errorf("%s: codes %v, want y %v", c.name, seen, c.codes)
		}
		if got, want := out["y_dq"].Float32s()[0], float32(11*0.125); got != want {
			t.Errorf("%s: real output %v, want %v", c.name, got, want)
		}
	}
}

func TestIntegerLogits(t *testing.T) {
	b := newBuilder(t)
	x := b.quant("xq", b.input("x", 2), 0.5, 2)
	w := b.weight("w", []int64{2, 2}, 1, []int64{3, 1, 5, -2}, 0.25, 0.5)
	bias := b.bias("b", []int64{10, -7}, 0.125, 0.25)
	b.output(b.node("Add", "logits", []string{b.node("MatMul", "acc", []string{x, w}), bias}))
	out, err := b.load().Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 2}, []float32{1, -0.5})}, eval.Integer, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := out["logits"].Float32s(); got[0] != 1.375 || got[1] != -0.75 {
		t.Errorf("logits %v, want [1.375 -0.75]", got)
	}
}

// Rounding is half to even on t = f32(acc) * M, before the zero point is added; a Clip on codes limits afterwards.
func TestIntegerRounding(t *testing.T) {
	for _, c := range []struct{ acc, code int64 }{
		{1, 3}, {3, 5}, {5, 5}, {-1, 3}, {-3, 1}, {-5, 1}, {-7, 1}, {21, 13}, {23, 14}, {27, 14}, // M = 0.5, z = 3, Clip 1..14
	} {
		b := newBuilder(t)
		x := b.quant("xq", b.input("x", 1), 1, 0)
		w := b.weight("w", []int64{1, 1}, 0, []int64{1}, 1)
		acc := b.node("Gemm", "acc", []string{x, w, b.bias("b", []int64{c.acc - 1}, 1)})
		sc, zp := b.grid("g", 2, 3)
		q := b.node("QuantizeLinear", "wide", []string{acc, sc, zp})
		q = b.node("Clip", "y", []string{q, b.ints("lo", onnxpb.Uint8, nil, 1), b.ints("hi", onnxpb.Uint8, nil, 14)})
		b.output(b.node("DequantizeLinear", "y_dq", []string{q, sc, zp}))
		var got []int64
		_, err := b.load().Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 1}, []float32{1})}, eval.Integer,
			func(name string, t eval.Tensor) error {
				if name == "y" {
					got = t.Ints
				}
				return nil
			})
		if err != nil || len(got) != 1 || got[0] != c.code {
			t.Errorf("acc %d gives code %v (%v), want %d", c.acc, got, err, c.code)
		}
	}
}

// cnn builds conv 3x3 - relu - clip - pool - depthwise conv - add - global pool - flatten - dense on random codes.
func cnn(t testing.TB, rng *rand.Rand) *builder {
	b := newBuilder(t)
	random := func(n int) []int64 {
		v := make([]int64, n)
		for i := range v {
			v[i] = int64(rng.IntN(255)) - 127
		}
		return v
	}
	scales := func(n int, unit float32) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = unit * (0.5 + rng.Float32())
		}
		return v
	}
	times := func(s float32, v []float32) []float32 {
		out := make([]float32, len(v))
		for i, x := range v {
			out[i] = s * x
		}
		return out
	}
	x := b.quant("xq", b.input("x", 3, 9, 7), 0.03, 120)
	s1 := scales(8, 0.01)
	w1 := b.weight("w1", []int64{8, 3, 3, 3}, 0, random(8*27), s1...)
	y := b.node("Conv", "a1", []string{x, w1, b.bias("b1", random(8), times(0.03, s1)...)}, onnxpb.IntsAttr("pads", 1, 1, 1, 1))
	y = b.node("Relu", "r1", []string{y})
	sc, zp := b.grid("c1", 0.11, 3)
	y = b.node("QuantizeLinear", "c1_wide", []string{y, sc, zp})
	y = b.node("Clip", "c1", []string{y, b.ints("c1_lo", onnxpb.Uint8, nil, 3), b.ints("c1_hi", onnxpb.Uint8, nil, 200)})
	y = b.node("DequantizeLinear", "c1_dq", []string{y, sc, zp})
	y = b.node("MaxPool", "m1", []string{y}, onnxpb.IntsAttr("kernel_shape", 2, 2), onnxpb.IntsAttr("strides", 2, 2))
	b.node("QuantizeLinear", "p1", []string{y, sc, zp})
	p1 := b.node("DequantizeLinear", "p1_dq", []string{"p1", sc, zp})
	s2 := scales(8, 0.01)
	w2 := b.weight("w2", []int64{8, 1, 3, 3}, 0, random(8*9), s2...)
	y = b.node("Conv", "a2", []string{p1, w2, b.bias("b2", random(8), times(0.11, s2)...)},
		onnxpb.IntsAttr("pads", 1, 1, 1, 1), onnxpb.IntAttr("group", 8))
	c2 := b.quant("c2", y, 0.2, 128)
	sum := b.quant("sum", b.node("Add", "a3", []string{p1, c2}), 0.25, 90)
	mean := b.quant("mean", b.node("GlobalAveragePool", "a4", []string{sum}), 0.07, 100)
	flat := b.node("Flatten", "flat", []string{mean})
	s3 := scales(5, 0.01)
	w3 := b.weight("w3", []int64{5, 8}, 0, random(40), s3...)
	b.output(b.node("Gemm", "logits", []string{flat, w3, b.bias("b3", random(5), times(0.07, s3)...)}, onnxpb.IntAttr("transB", 1)))
	return b
}

// The two readings of one file differ by at most one step, in few codes; the integer one does not depend on the batch.
func TestReadingsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	p := cnn(t, rng).load()
	n, size := 16, 3*9*7
	x := make([]float32, n*size)
	for i := range x {
		x[i] = rng.Float32()*7 - 3.5
	}
	codes := map[eval.Reading]map[string]eval.Tensor{}
	out := map[eval.Reading]map[string]eval.Tensor{}
	for _, r := range []eval.Reading{eval.Float, eval.Integer} {
		codes[r] = map[string]eval.Tensor{}
		var err error
		out[r], err = p.Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{n, 3, 9, 7}, x)}, r, func(name string, t eval.Tensor) error {
			codes[r][name] = t
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"xq", "c1_wide", "c1", "p1", "c2", "sum", "mean"} {
		f, i := codes[eval.Float][name], codes[eval.Integer][name]
		if len(i.Ints) == 0 || !reflect.DeepEqual(f.Shape, i.Shape) {
			t.Fatalf("%s: %v in the float reading, %v in the integer one", name, f.Shape, i.Shape)
		}
		off := 0
		for k := range f.Ints {
			if d := f.Ints[k] - i.Ints[k]; d != 0 {
				off++
				if d < -1 || d > 1 {
					t.Errorf("%s[%d]: %d and %d", name, k, f.Ints[k], i.Ints[k])
				}
			}
		}
		if off*200 > len(f.Ints) {
			t.Errorf("%s: %d of %d codes differ", name, off, len(f.Ints))
		}
	}
	f, i := out[eval.Float]["logits"].Float32s(), out[eval.Integer]["logits"].Float32s()
	for k := range f {
		if math.Abs(float64(f[k]-i[k])) > 0.3 { // one step of `mean` through the largest weight
			t.Errorf("logit %d: %v and %v", k, f[k], i[k])
		}
	}
	one, err := p.Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 3, 9, 7}, x[5*size:6*size])}, eval.Integer, nil)
	if err != nil || !reflect.DeepEqual(one["logits"].Reals, out[eval.Integer]["logits"].Reals[25:30]) {
		t.Errorf("image 5 alone: %v (%v), in the batch %v", one["logits"].Reals, err, out[eval.Integer]["logits"].Reals[25:30])
	}
}

// A group without an integer reading names its node and the reason.
func TestIntegerRefusals(t *testing.T) {
	type net struct {
		*builder
		x, w, bias string
	}
	base := func() net {
		b := newBuilder(t)
		x := b.quant("xq", b.input("x", 2), 0.5, 2)
		return net{b, x, b.weight("w", []int64{2, 2}, 0, []int64{3, 5, 1, -2}, 0.25, 0.5), b.bias("b", []int64{1, 2}, 0.125, 0.25)}
	}
	transB := onnxpb.IntAttr("transB", 1)
	for _, c := range []struct {
		name, want string
		build      func(n net)
	}{
		{"float layer", `Gemm "y": no integer reading: its inputs are not quantized`, func(n net) {
			n.output(n.node("Gemm", "y", []string{"x", n.floats("f", []int64{2, 2}, 1, 2, 3, 4)}))
		}},
		{"float weights", `Gemm "y": no integer reading: input 1 is a float tensor that is not quantized`, func(n net) {
			n.output(n.node("Gemm", "y", []string{n.x, n.floats("f", []int64{2, 2}, 1, 2, 3, 4)}))
		}},
		{"unquantized between layers", `Gemm "y": no integer reading: input 0 is a sum that no QuantizeLinear has rounded`, func(n net) {
			h := n.node("Gemm", "h", []string{n.x, n.w, n.bias}, transB)
			n.output(n.node("Gemm", "y", []string{h, n.w}, transB))
		}},
		{"bias scale", "bias[1] has scale 0.125 and zero point 0, the accumulator has 0.25", func(n net) {
			n.output(n.node("Gemm", "y", []string{n.x, n.w, n.builder.bias("b2", []int64{1, 2}, 0.125, 0.125)}, transB))
		}},
		{"weight axis", "weight scales along axis 0, want 1", func(n net) {
			n.output(n.node("Gemm", "y", []string{n.x, n.w}))
		}},
		{"alpha", "alpha, beta or transA", func(n net) {
			n.output(n.node("Gemm", "y", []string{n.x, n.w}, transB, onnxpb.FloatAttr("alpha", 2)))
		}},
		{"float clip", "limit the codes", func(n net) {
			h := n.node("Gemm", "h", []string{n.x, n.w, n.bias}, transB)
			n.output(n.node("Clip", "y", []string{h, n.floats("lo", nil, 0), n.floats("hi", nil, 6)}))
		}},
		{"real function", `Sigmoid "y": no integer reading: Sigmoid of dequantized values`, func(n net) {
			n.output(n.node("Sigmoid", "y", []string{n.x}))
		}},
		{"pool of sums", "of sums that no QuantizeLinear has rounded", func(n net) {
			h := n.node("Gemm", "h", []string{n.x, n.w, n.bias}, transB)
			n.output(n.node("Flatten", "y", []string{h}))
		}},
		{"overflow", "leaves int32", func(n net) {
			n.output(n.node("Gemm", "y", []string{n.x, n.w, n.builder.bias("b2", []int64{math.MaxInt32, 2}, 0.125, 0.25)}, transB))
		}},
	} {
		n := base()
		c.build(n)
		_, err := n.load().Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 2}, []float32{1, 1})}, eval.Integer, nil)
		if !errors.Is(err, eval.ErrNotInteger) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// A table of codes (an activation function) is a Gather, exact in both readings.
func TestIntegerTable(t *testing.T) {
	table := make([]int64, 256)
	for i := range table {
		table[i] = int64(255 - i)
	}
	b := newBuilder(t)
	b.quant("xq", b.input("x", 3), 1, 0)
	id := b.node("Cast", "id", []string{"xq"}, onnxpb.IntAttr("to", int64(onnxpb.Int32)))
	q := b.node("Gather", "y", []string{b.ints("table", onnxpb.Uint8, []int64{256}, table...), id})
	sc, zp := b.grid("g", 1, 0)
	b.output(b.node("DequantizeLinear", "y_dq", []string{q, sc, zp}))
	for _, r := range []eval.Reading{eval.Float, eval.Integer} {
		out, err := b.load().Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 3}, []float32{0, 7.5, 300})}, r, nil)
		if err != nil || !reflect.DeepEqual(out["y_dq"].Float32s(), []float32{255, 247, 0}) {
			t.Errorf("reading %d: %v (%v)", r, out["y_dq"].Reals, err)
		}
	}
}

// NaN on the way into a grid is an error, not a code.
func TestNaNIsRefused(t *testing.T) {
	b := newBuilder(t)
	b.output(b.quant("xq", b.input("x", 1), 0.5, 2))
	for _, r := range []eval.Reading{eval.Float, eval.Integer} {
		in := map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 1}, []float32{float32(math.NaN())})}
		if _, err := b.load().Run(in, r, nil); err == nil || !strings.Contains(err.Error(), "NaN") {
			t.Errorf("reading %d: %v", r, err)
		}
	}
}

func TestRunChecksInputs(t *testing.T) {
	b := newBuilder(t)
	b.output(b.quant("xq", b.input("x", 2), 0.5, 2))
	p := b.load()
	for name, in := range map[string]map[string]eval.Tensor{
		"missing": {},
		"shape":   {"x": eval.FloatTensor([]int{1, 3}, []float32{1, 2, 3})},
		"length":  {"x": eval.FloatTensor([]int{1, 2}, []float32{1})},
		"type":    {"x": {Type: onnxpb.Uint8, Shape: []int{1, 2}, Ints: []int64{1, 2}}},
	} {
		if _, err := p.Run(in, eval.Float, nil); !errors.Is(err, eval.ErrModel) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop := fmt.Errorf("enough")
	in := map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 2}, []float32{1, 2})}
	if _, err := p.Run(in, eval.Integer, func(string, eval.Tensor) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the visitor's error came back as %v", err)
	}
}

// Numerics D1 and D4: x / s is 127.499992, x * (1/s) would be 127.5 and round to 128.
func TestQuantizeDivides(t *testing.T) {
	for _, r := range []eval.Reading{eval.Float, eval.Integer} {
		b := newBuilder(t)
		b.output(b.quant("xq", b.input("x", 1), 0.00214854861, 0))
		var code int64
		_, err := b.load().Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 1}, []float32{0.273939937})}, r,
			func(name string, t eval.Tensor) error {
				if name == "xq" {
					code = t.Ints[0]
				}
				return nil
			})
		if err != nil || code != 127 {
			t.Errorf("reading %d: code %d (%v), want 127", r, code, err)
		}
	}
}

// A transposed weight takes its scales per channel along: [2, 3] with scales along axis 0 multiplies as [3, 2].
func TestIntegerTransposedWeight(t *testing.T) {
	b := newBuilder(t)
	x := b.quant("xq", b.input("x", 3), 1, 0)
	w := b.node("Transpose", "wt", []string{b.weight("w", []int64{2, 3}, 0, []int64{1, 2, 3, 4, 5, 6}, 0.5, 0.25)}, onnxpb.IntsAttr("perm", 1, 0))
	b.output(b.node("MatMul", "y", []string{x, w}))
	out, err := b.load().Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 3}, []float32{1, 10, 100})}, eval.Integer, nil)
	if err != nil || !reflect.DeepEqual(out["y"].Float32s(), []float32{160.5, 163.5}) {
		t.Errorf("%v (%v), want [160.5 163.5]", out["y"].Reals, err)
	}
}

// With ceil_mode a last window that would start in the right padding does not count.
func TestCeilModeDropsWindowsInPadding(t *testing.T) {
	b := newBuilder(t)
	b.output(b.node("MaxPool", "y", []string{b.input("x", 1, 3)}, onnxpb.IntsAttr("kernel_shape", 2), onnxpb.IntsAttr("strides", 3),
		onnxpb.IntsAttr("pads", 0, 1), onnxpb.IntAttr("ceil_mode", 1)))
	out, err := b.load().Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, 1, 3}, []float32{1, 2, 3})}, eval.Float, nil)
	if err != nil || !reflect.DeepEqual(out["y"].Float32s(), []float32{2}) {
		t.Errorf("%v (%v), want [2]", out["y"].Reals, err)
	}
}
