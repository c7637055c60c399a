package eval_test

import (
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/export/onnx/eval"
	"github.com/narrow-ml/narrow/export/onnx/onnxpb"
)

// BenchmarkFashionCNN is conv32-pool-conv64-pool-fc128-fc10 on 28x28, 4.3 million products an image, 100 images an
// operation; random weights, so that after ReLU about half of the codes are zero.
func BenchmarkFashionCNN(bm *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	b := newBuilder(bm)
	random := func(n int) []int64 {
		v := make([]int64, n)
		for i := range v {
			v[i] = int64(rng.IntN(255)) - 127
		}
		return v
	}
	layer := func(op, name, x string, dims []int64, in, out float32, attrs ...*onnxpb.Attribute) string {
		n := int64(1)
		for _, d := range dims {
			n *= d
		}
		y := b.node(op, name+"_acc", []string{x, b.weight(name+"_w", dims, 0, random(int(n)), make1(int(dims[0]))...),
			b.bias(name+"_b", random(int(dims[0])), scaled(in, make1(int(dims[0])))...)}, attrs...)
		return b.quant(name, b.node("Relu", name+"_relu", []string{y}), out, 0)
	}
	pool := func(name, x string, s float32) string {
		y := b.node("MaxPool", name+"_max", []string{x}, onnxpb.IntsAttr("kernel_shape", 2, 2), onnxpb.IntsAttr("strides", 2, 2))
		return b.quant(name, y, s, 0)
	}
	x := b.quant("xq", b.input("x", 1, 28, 28), 1.0/255, 0)
	y := layer("Conv", "c1", x, []int64{32, 1, 3, 3}, 1.0/255, 0.02)
	y = pool("p1", y, 0.02)
	y = layer("Conv", "c2", y, []int64{64, 32, 3, 3}, 0.02, 0.1)
	y = pool("p2", y, 0.1)
	y = b.node("Flatten", "flat", []string{y})
	y = layer("Gemm", "fc1", y, []int64{128, 1600}, 0.1, 1, onnxpb.IntAttr("transB", 1))
	b.output(layer("Gemm", "fc2", y, []int64{10, 128}, 1, 1, onnxpb.IntAttr("transB", 1)))
	p := b.load()
	const n = 100
	data := make([]float32, n*28*28)
	for i := range data {
		data[i] = rng.Float32()
	}
	in := map[string]eval.Tensor{"x": eval.FloatTensor([]int{n, 1, 28, 28}, data)}
	for _, r := range []struct {
		name string
		r    eval.Reading
	}{{"integer", eval.Integer}, {"float", eval.Float}} {
		bm.Run(r.name, func(bm *testing.B) {
			for range bm.N {
				if _, err := p.Run(in, r.r, nil); err != nil {
					bm.Fatal(err)
				}
			}
		})
	}
}

func make1(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = 0.01
	}
	return v
}

func scaled(s float32, v []float32) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = s * x
	}
	return out
}
