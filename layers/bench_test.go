package layers_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// fashionCNN is the network of the fashion-cnn preset: two convolutions of 32 and 64 filters with batch norm, two dense
// layers.
func fashionCNN(b *testing.B) *model.Model {
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

// mnistMLP is the network of the mnist-mlp preset.
func mnistMLP(b *testing.B) *model.Model {
	b.Helper()
	m := model.New("mnist", model.Input{Name: "x", Shape: model.Shape{784}, Scale: 1.0 / 255})
	for i, units := range []int{256, 256, 10} {
		name := fmt.Sprintf("fc%d", i+1)
		dense := model.Node{Name: name + "/dense", Layer: name, Op: model.Dense, Attr: model.Attr{Units: units, Bias: true}}
		if units == 10 {
			dense.Name = name
		}
		m.Append(dense)
		if units != 10 {
			m.Append(model.Node{Name: name, Layer: name, Op: model.ReLU})
		}
	}
	return fused(b, m)
}

const (
	benchBatch = 64
	benchTurn  = 8
)

// stepVariants are the kinds of training step that benchmarks compare; the first is what the others are divided by.
var stepVariants = []struct {
	name   string
	fuse   bool
	freeze bool
	change func(*model.QuantConfig) // nil for float32
}{
	{"fp32", true, false, nil},
	{"int8", true, false, func(*model.QuantConfig) {}},
	{"int8-frozen", true, true, func(*model.QuantConfig) {}},
	{"int8-lsq", true, false, learned},
	{"fp32-separate", false, false, nil},
	{"int8-separate", false, false, func(*model.QuantConfig) {}},
}

// stepNet is a training graph of m, quantized unless change is nil, on one worker.
func stepNet(b *testing.B, m *model.Model, fuse, freeze bool, change func(*model.QuantConfig)) *layers.Net {
	b.Helper()
	if change != nil {
		config := model.DefaultQuant(quant.Precision{Weight: quant.Int8, Act: quant.Int8})
		change(&config)
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
	net := build(b, m, layers.Options{Batch: benchBatch, Train: true, Fuse: fuse})
	net.SetPhase(layers.Phase{FreezeNorm: freeze})
	return net
}

func benchData() (x []uint8, labels []int32) {
	x, labels = make([]uint8, benchBatch*784), make([]int32, benchBatch)
	s := rng.New(1, rng.Test)
	for i := range x {
		x[i] = uint8(s.IntN(256))
	}
	for i := range labels {
		labels[i] = int32(s.IntN(10))
	}
	return x, labels
}

// BenchmarkStep is one training step of 64 examples, without the optimizer, on one worker.
func BenchmarkStep(b *testing.B) {
	x, labels := benchData()
	for name, net := range map[string]func(*testing.B) *model.Model{"cnn": fashionCNN, "mlp": mnistMLP} {
		for _, v := range stepVariants {
			b.Run(name+"/"+v.name, func(b *testing.B) {
				n := stepNet(b, net(b), v.fuse, v.freeze, v.change)
				b.ReportAllocs()
				for b.Loop() {
					run(b, n, x, labels, benchBatch)
				}
				b.ReportMetric(float64(benchBatch*b.N)/b.Elapsed().Seconds(), "img/s")
			})
		}
	}
}

// BenchmarkStepRatio takes turns between the variants, eight steps at a time so that each works in its own caches, and reports the quotient of their medians and that
// of the first variant. Only such ratios mean anything on a machine that does other things too.
func BenchmarkStepRatio(b *testing.B) {
	x, labels := benchData()
	for name, net := range map[string]func(*testing.B) *model.Model{"cnn": fashionCNN, "mlp": mnistMLP} {
		b.Run(name, func(b *testing.B) {
			nets := make([]*layers.Net, len(stepVariants))
			times := make([][]time.Duration, len(stepVariants))
			for i, v := range stepVariants {
				nets[i] = stepNet(b, net(b), v.fuse, v.freeze, v.change)
			}
			for b.Loop() {
				for i, n := range nets {
					run(b, n, x, labels, benchBatch)
					began := cpuTime()
					for range benchTurn {
						run(b, n, x, labels, benchBatch)
					}
					times[i] = append(times[i], (cpuTime()-began)/benchTurn)
				}
			}
			b.ReportMetric(0, "ns/op")
			var base float64
			for i, v := range stepVariants {
				slices.Sort(times[i])
				at := func(p int) float64 { return float64(times[i][p*(len(times[i])-1)/100]) / 1e6 }
				if i == 0 {
					base = at(50)
				}
				b.ReportMetric(at(50), v.name+"-ms")
				b.ReportMetric(at(50)/base, v.name+"-ratio")
				b.Logf("%-12s median %.3f ms, 10th to 90th percentile %.3f to %.3f, ratio %.3f", v.name, at(50), at(10), at(90), at(50)/base)
			}
		})
	}
}
