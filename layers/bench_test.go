package layers_test

import (
	"testing"

	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// fashion is the network of the fashion-cnn preset: two convolutions of 32 and 64 filters with batch norm, two dense
// layers.
func fashion(b *testing.B) *model.Model {
	b.Helper()
	m := model.New("fashion", model.Input{Name: "x", Shape: model.Shape{28, 28, 1}, Scale: 1.0 / 255})
	norm := model.Attr{Eps: 1e-5, Momentum: 0.1}
	conv := func(name string, units int) {
		m.Append(model.Node{Name: name + "/conv", Layer: name, Op: model.Conv, Attr: model.Attr{Units: units, Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Pad: [4]int{1, 1, 1, 1}, Groups: 1}})
		m.Append(model.Node{Name: name + "/norm", Layer: name, Op: model.BatchNorm, Attr: norm})
		m.Append(model.Node{Name: name, Layer: name, Op: model.ReLU})
		m.Append(model.Node{Name: name + "/pool", Layer: name + "/pool", Op: model.MaxPool, Attr: model.Attr{Kernel: [2]int{2, 2}, Stride: [2]int{2, 2}}})
	}
	conv("c1", 32)
	conv("c2", 64)
	m.Append(model.Node{Name: "flat", Layer: "flat", Op: model.Flatten})
	m.Append(model.Node{Name: "fc1/dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 128, Bias: true}})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: 10, Bias: true}})
	return fused(b, m)
}

// BenchmarkStep is one training step of 64 examples, without the optimizer, on one worker.
func BenchmarkStep(b *testing.B) {
	const batch = 64
	x, labels := make([]uint8, batch*784), make([]int32, batch)
	s := rng.New(1, rng.Test)
	for i := range x {
		x[i] = uint8(s.IntN(256))
	}
	for i := range labels {
		labels[i] = int32(s.IntN(10))
	}
	for _, row := range []struct {
		name   string
		freeze bool
		change func(*model.QuantConfig)
	}{{"fp32", false, nil}, {"int8", false, func(*model.QuantConfig) {}}, {"int8-frozen", true, func(*model.QuantConfig) {}}, {"int8-lsq", false, learned}} {
		b.Run(row.name, func(b *testing.B) {
			m := fashion(b)
			if row.change != nil {
				config := model.DefaultQuant(quant.Precision{Weight: quant.Int8, Act: quant.Int8})
				row.change(&config)
				q, err := model.Place(m, config)
				if err == nil {
					q, err = model.Share(q)
				}
				if err != nil {
					b.Fatal(err)
				}
				for _, p := range q.Quant {
					if !p.Spec.Signed && !p.Ready() {
						p.Scale, p.Zero = []float32{0.02}, []int32{0}
					}
				}
				m = q
			}
			net := build(b, m, layers.Options{Batch: batch, Train: true})
			net.SetPhase(layers.Phase{FreezeNorm: row.freeze})
			b.ReportAllocs()
			for b.Loop() {
				run(b, net, x, labels, batch)
			}
			b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "img/s")
		})
	}
}
