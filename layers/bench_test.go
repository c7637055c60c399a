package layers_test

import (
	"slices"
	"testing"
	"time"

	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/layers"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

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

	backward string
}{
	{"fp32", true, false, nil, ""},
	{"int8", true, false, func(*model.QuantConfig) {}, ""},
	{"int8-frozen", true, true, func(*model.QuantConfig) {}, ""},
	{"int8-lsq", true, false, learned, ""},
	{"int16", true, false, func(*model.QuantConfig) {}, layers.BackwardInt16},
	{"int16-frozen", true, true, func(*model.QuantConfig) {}, layers.BackwardInt16},
	{"int16-lsq", true, false, learned, layers.BackwardInt16},
	{"fp32-separate", false, false, nil, ""},
	{"int8-separate", false, false, func(*model.QuantConfig) {}, ""},
}

// stepNet is a training graph of m, quantized unless change is nil. Without a pool it has one worker.
func stepNet(b *testing.B, m *model.Model, fuse, freeze bool, change func(*model.QuantConfig), backward string, pool *par.Pool) *layers.Net {
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
	net := build(b, m, layers.Options{Batch: benchBatch, Train: true, Fuse: fuse, Backward: backward, Pool: pool})
	net.SetPhase(layers.Phase{FreezeNorm: freeze})
	return net
}

// BenchmarkStep is one training step of 64 examples, without the optimizer, on one worker.
func BenchmarkStep(b *testing.B) {
	for _, net := range benchNets {
		x, labels := net.data()
		for _, v := range stepVariants {
			b.Run(net.name+"/"+v.name, func(b *testing.B) {
				n := stepNet(b, net.model(b), v.fuse, v.freeze, v.change, v.backward, nil)
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
	for _, net := range benchNets {
		x, labels := net.data()
		b.Run(net.name, func(b *testing.B) {
			nets := make([]*layers.Net, len(stepVariants))
			times := make([][]time.Duration, len(stepVariants))
			for i, v := range stepVariants {
				nets[i] = stepNet(b, net.model(b), v.fuse, v.freeze, v.change, v.backward, nil)
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
