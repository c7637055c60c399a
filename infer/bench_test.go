package infer_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
)

// fashion is the Fashion-MNIST network of the presets: conv 32, pool, conv 64, pool, dense 128, dense 10.
func fashion(b *testing.B) *model.Model {
	m := model.New("fashion", model.Input{Name: "x", Shape: model.Shape{28, 28, 1}, Scale: 1.0 / 255})
	for i, units := range []int{32, 64} {
		name := fmt.Sprintf("c%d", i+1)
		m.Append(model.Node{Name: name + ".product", Layer: name, Op: model.Conv, Attr: model.Attr{Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Pad: [4]int{1, 1, 1, 1}, Groups: 1, Units: units}})
		m.Append(model.Node{Name: name + ".norm", Layer: name, Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-5, Momentum: 0.1}})
		m.Append(model.Node{Name: name, Layer: name, Op: model.ReLU})
		m.Append(model.Node{Name: name + ".pool", Layer: name + ".pool", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{2, 2}}})
	}
	m.Append(model.Node{Name: "flat", Layer: "flat", Op: model.Flatten})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 128, Bias: true, Relu: true}})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: 10, Bias: true}})
	return filled(b, m, rand.New(rand.NewPCG(1, 1)))
}

// digits is a network of dense layers on 8x8 images.
func digits(b *testing.B) *model.Model {
	m := model.New("digits", model.Input{Name: "x", Shape: model.Shape{64}, Scale: 1.0 / 16})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 64, Bias: true, Relu: true}})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: 10, Bias: true}})
	return filled(b, m, rand.New(rand.NewPCG(1, 1)))
}

// BenchmarkRun is latency (batch 1) and throughput (batch 64) of whole networks.
func BenchmarkRun(b *testing.B) {
	for _, net := range []struct {
		name  string
		build func(*testing.B) *model.Model
	}{{"digits", digits}, {"fashion", fashion}} {
		m := net.build(b)
		rnd := rand.New(rand.NewPCG(2, 2))
		x := randomBytes(rnd, 64*m.Inputs[0].Shape.Size())
		for _, precision := range []string{"fp32", "fp16", "bf16", "int8", "w4a4"} {
			e := compile(b, quantized(b, m, precision, x, rnd), infer.Options{Workers: 1})
			logits := make([]float32, 64*e.Classes())
			for _, n := range []int{1, 64} {
				b.Run(fmt.Sprintf("%s/%s/%d", net.name, precision, n), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if err := e.Run(logits, x, n); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "examples/s")
				})
			}
		}
	}
}
