package eval_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// Operators on two quantized tensors, against their formulas in docs/arithmetic.md written out. Shapes are N,2,3,2 for
// both inputs; grids a: s=0.02, z=100; b: s=0.05, z=30; y: s=0.07, z=90.
func TestIntegerPointwise(t *testing.T) {
	const (
		sa, sb, sy = float32(0.02), float32(0.05), float32(0.07)
		za, zb, zy = 100, 30, 90
		n, size    = 9, 12
	)
	rq := func(v float32, lo int64) int64 {
		return int64(math.RoundToEven(math.Max(float64(lo-zy), math.Min(float64(v), 255-zy)))) + zy
	}
	mul := func(a, b float32) float32 { return float32(a * b) }
	type want func(a, b []int64) []int64
	each := func(f func(a, b int64) int64) want {
		return func(a, b []int64) []int64 {
			out := make([]int64, len(a))
			for i := range a {
				out[i] = f(a[i]-za, b[i]-zb)
			}
			return out
		}
	}
	for _, c := range []struct {
		name  string
		build func(b *builder, x, y string) string
		want  want
	}{
		{"Add", func(b *builder, x, y string) string { return b.node("Add", "r", []string{x, y}) },
			each(func(a, b int64) int64 { return rq(mul(float32(a), sa/sy)+mul(float32(b), sb/sy), 0) })},
		{"Sub", func(b *builder, x, y string) string { return b.node("Sub", "r", []string{x, y}) },
			each(func(a, b int64) int64 { return rq(mul(float32(a), sa/sy)-mul(float32(b), sb/sy), 0) })},
		{"Add and Relu", func(b *builder, x, y string) string {
			return b.node("Relu", "r", []string{b.node("Add", "sum", []string{x, y})})
		}, each(func(a, b int64) int64 { return rq(mul(float32(a), sa/sy)+mul(float32(b), sb/sy), zy) })},
		{"Mul", func(b *builder, x, y string) string { return b.node("Mul", "r", []string{x, y}) },
			each(func(a, b int64) int64 { return rq(mul(float32(a*b), mul(sa, sb)/sy), 0) })},
		{"rescale", func(_ *builder, x, _ string) string { return x },
			each(func(a, _ int64) int64 { return rq(mul(float32(a), sa/sy), 0) })},
		{"Concat", func(b *builder, x, y string) string {
			return b.node("Concat", "r", []string{x, y}, onnxpb.IntAttr("axis", 1))
		}, func(a, b []int64) []int64 {
			var out []int64
			for e := range n {
				for i := range size {
					out = append(out, rq(mul(float32(a[e*size+i]-za), sa/sy), 0))
				}
				for i := range size {
					out = append(out, rq(mul(float32(b[e*size+i]-zb), sb/sy), 0))
				}
			}
			return out
		}},
		// Windows of 2x2 with a row of padding above and below: 2, 4, 4 and 2 real cells.
		{"AveragePool", func(b *builder, x, _ string) string {
			return b.node("AveragePool", "r", []string{x}, onnxpb.IntsAttr("kernel_shape", 2, 2), onnxpb.IntsAttr("pads", 1, 0, 1, 0))
		}, func(a, _ []int64) []int64 {
			var out []int64
			for p := range n * 2 {
				at := func(row int) int64 {
					if row < 0 || row > 2 {
						return 0
					}
					return a[p*6+2*row] + a[p*6+2*row+1] - 2*za
				}
				for y, cells := range []float32{2, 4, 4, 2} {
					out = append(out, rq(mul(float32(at(y-1)+at(y)), sa/mul(cells, sy)), 0))
				}
			}
			return out
		}},
		// [.., 3, 2] times the transpose of [.., 3, 2].
		{"MatMul", func(b *builder, x, y string) string {
			return b.node("MatMul", "r", []string{x, b.node("Transpose", "yt", []string{y}, onnxpb.IntsAttr("perm", 0, 1, 3, 2))})
		}, func(a, b []int64) []int64 {
			var out []int64
			for p := range n * 2 {
				for i := range 3 {
					for j := range 3 {
						acc := int64(0)
						for k := range 2 {
							acc += (a[p*6+2*i+k] - za) * (b[p*6+2*j+k] - zb)
						}
						out = append(out, rq(mul(float32(acc), mul(sa, sb)/sy), 0))
					}
				}
			}
			return out
		}},
	} {
		b := newBuilder(t)
		in := b.input("x", 4, 3, 2)
		cutAt := func(name string, from, to int64) string {
			return b.node("Slice", name, []string{in, b.ints(name+"_from", onnxpb.Int64, []int64{1}, from),
				b.ints(name+"_to", onnxpb.Int64, []int64{1}, to), b.ints(name+"_axis", onnxpb.Int64, []int64{1}, 1)})
		}
		x := b.quant("a", cutAt("x0", 0, 2), sa, za)
		y := b.quant("b", cutAt("x1", 2, 4), sb, zb)
		b.output(b.quant("y", c.build(b, x, y), sy, zy))
		rng := rand.New(rand.NewPCG(7, 8))
		data := make([]float32, n*2*size)
		for i := range data {
			data[i] = rng.Float32()*8 - 3
		}
		seen := map[string]eval.Tensor{}
		_, err := b.load().Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{n, 4, 3, 2}, data)}, eval.Integer,
			func(name string, v eval.Tensor) error { seen[name] = v; return nil })
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want, got := c.want(seen["a"].Ints, seen["b"].Ints), seen["y"].Ints
		if len(got) != len(want) {
			t.Errorf("%s: %d codes, want %d", c.name, len(got), len(want))
			continue
		}
		different := map[int64]bool{}
		for i := range want {
			different[want[i]] = true
			if got[i] != want[i] {
				t.Errorf("%s: code %d is %d, want %d", c.name, i, got[i], want[i])
				break
			}
		}
		if len(different) < 20 {
			t.Errorf("%s: only %d different codes: the case proves little", c.name, len(different))
		}
	}
}

// 16-bit activations accumulate beyond int32; 8-bit ones must not.
func TestIntegerWideAccumulator(t *testing.T) {
	for _, c := range []struct {
		typ onnxpb.DataType
		ok  bool
	}{{onnxpb.Int16, true}, {onnxpb.Int8, false}} {
		b := newBuilder(t)
		s, z := b.floats("s", nil, 1), b.ints("z", c.typ, nil, 0)
		b.m.Opsets[0].Version = 21 // int16 codes
		const k = 140000
		b.node("QuantizeLinear", "q", []string{b.input("x", k), s, z})
		x := b.node("DequantizeLinear", "dq", []string{"q", s, z})
		codes := make([]int64, k)
		for i := range codes {
			codes[i] = 127
		}
		b.output(b.node("MatMul", "y", []string{x, b.weight("w", []int64{k, 1}, 1, codes, 1)}))
		data := make([]float32, k)
		for i := range data {
			data[i] = 32767 // saturates to 127 in int8: 140000*127*127 is 1.05 * 2^31
		}
		out, err := b.load().Run(map[string]eval.Tensor{"x": eval.FloatTensor([]int{1, k}, data)}, eval.Integer, nil)
		if c.ok != (err == nil) {
			t.Errorf("%v: %v", c.typ, err)
		}
		if c.ok && out["y"].Reals[0] != float64(float32(int64(k)*127*32767)) {
			t.Errorf("%v: %v", c.typ, out["y"].Reals)
		}
	}
}
