package infer_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/narrow-ml/narrow/infer"
)

// eachPreset runs f for the presets at the usual precisions and batch sizes, on one worker.
func eachPreset(b *testing.B, f func(b *testing.B, e *infer.Engine, x []uint8, n int)) {
	for _, net := range presets {
		m := net.build(b)
		rnd := rand.New(rand.NewPCG(2, 2))
		x := randomBytes(rnd, 64*m.Inputs[0].Shape.Size())
		for _, precision := range []string{"fp32", "fp16", "bf16", "int8", "w4a4"} {
			e := compile(b, quantized(b, m, precision, x, rnd), infer.Options{Workers: 1})
			for _, n := range []int{1, 64} {
				b.Run(fmt.Sprintf("%s/%s/%d", net.name, precision, n), func(b *testing.B) { f(b, e, x, n) })
			}
		}
	}
}

// BenchmarkRun is latency (batch 1) and throughput (batch 64) of whole networks.
func BenchmarkRun(b *testing.B) {
	eachPreset(b, func(b *testing.B, e *infer.Engine, x []uint8, n int) {
		logits := make([]float32, n*e.Classes())
		b.ReportAllocs()
		for b.Loop() {
			if err := e.Run(logits, x, n); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "examples/s")
	})
}

// BenchmarkLayers reports the best time of each operation, in microseconds per pass.
func BenchmarkLayers(b *testing.B) {
	eachPreset(b, func(b *testing.B, e *infer.Engine, x []uint8, n int) {
		for b.Loop() {
			times, err := e.LayerTimes(x, n, 2000/n)
			if err != nil {
				b.Fatal(err)
			}
			for _, t := range times {
				if t.Name != "" {
					b.ReportMetric(float64(t.Best.Nanoseconds())/1e3, t.Name+"-us")
				}
			}
		}
	})
}
