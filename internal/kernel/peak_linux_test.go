//go:build amd64

package kernel

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/narrow-ml/narrow/internal/cpu"
)

// BenchmarkAgainstPeak runs the hot products, and fake-quantization, beside what bounds them: a loop that multiplies and
// adds in registers alone, and a copy of the same memory. All take turns in one run and are timed by processor time;
// the figure is the median of the quotients of neighbours.
//
//	go test ./internal/kernel -run '^$' -bench AgainstPeak -benchtime 20x
func BenchmarkAgainstPeak(b *testing.B) {
	kern := active
	if kern.tier == cpu.Generic {
		b.Skip("the generic tier has no tiles")
	}
	wide := kern.tier == cpu.AVX512VNNI
	lanes := 8
	if wide {
		lanes = 16
	}
	const loops = 20000
	f32 := work{ops: loops * 2 * 24 * lanes, run: func() { peakF32Y(loops) }}
	if wide {
		f32.run = func() { peakF32Z(loops) }
	}
	var tests []*contest
	for _, s := range [][3]int{{64, 256, 784}, {256, 256, 256}, {12544, 64, 288}} {
		tests = append(tests, &contest{name: fmt.Sprintf("f32-gemm-%dx%dx%d", s[0], s[1], s[2]), work: gemmWork(kern, s[0], s[1], s[2]), peak: f32})
	}
	conv := ConvGeom{H: 14, W: 14, Cin: 32, KH: 3, KW: 3, Cout: 64, StrideH: 1, StrideW: 1, Groups: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	tests = append(tests, &contest{name: "f32-conv3x3", work: convWork(kern, conv, 16), peak: f32})
	s8 := work{ops: loops * 4 * 24 * lanes, run: func() { peakS16Y(loops) }}
	if wide {
		s8 = work{ops: loops * 8 * 24 * lanes, run: func() { peakS8Z(loops) }}
	}
	for _, s := range [][3]int{{64, 256, 784}, {256, 256, 256}, {12544, 64, 288}} {
		tests = append(tests, &contest{name: fmt.Sprintf("u8s8-gemm-%dx%dx%d", s[0], s[1], s[2]), work: gemmU8S8Work(kern, s[0], s[1], s[2]), peak: s8})
	}
	tests = append(tests, &contest{name: "u8s8-conv3x3", work: convU8S8Work(kern, conv, 16), peak: s8})
	const n = 1 << 20
	x, y, mask := make([]float32, n), make([]float32, n), make([]uint8, MaskLen(n))
	randomF32(newRand(9), x, false)
	tests = append(tests, &contest{name: "fakequant-1M",
		work: work{ops: 8 * n, run: func() { kern.fakeQuant(y, mask, x, 0.01, 3, 0, 255) }},
		peak: work{ops: 8 * n, run: func() { copy(y, x) }}})
	for range b.N {
		for _, t := range tests {
			t.turn()
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, t := range tests {
		slices.Sort(t.ratios)
		slices.Sort(t.rates)
		b.Logf("%-24s %5.0f Gop/s or GB/s, %3.0f %% of the peak (%.0f to %.0f)", t.name, t.rates[len(t.rates)/2], 100*t.ratios[len(t.ratios)/2], 100*t.ratios[0], 100*t.ratios[len(t.ratios)-1])
		b.ReportMetric(100*t.ratios[len(t.ratios)/2], t.name+"-%")
	}
}

// work is something that does so many operations, or moves so many bytes.
type work struct {
	ops int
	run func()
}

// contest is a kernel beside its peak.
type contest struct {
	name          string
	work, peak    work
	ratios, rates []float64
}

func (c *contest) turn() {
	rate := func(w work) float64 {
		w.run()
		calls := 0
		began := cpuTime()
		took := time.Duration(0)
		for ; took < 2*time.Millisecond; took = cpuTime() - began {
			w.run()
			calls++
		}
		return float64(w.ops) * float64(calls) / float64(took.Nanoseconds())
	}
	before := rate(c.peak)
	own := rate(c.work)
	after := rate(c.peak)
	c.rates = append(c.rates, own)
	c.ratios = append(c.ratios, 2*own/(before+after))
}

func gemmWork(kern *isa, m, n, k int) work {
	x, y, z := make([]float32, m*k), make([]float32, k*n), make([]float32, m*n)
	randomF32(newRand(1), x, false)
	randomF32(newRand(2), y, false)
	s := new(Scratch)
	return work{2 * m * n * k, func() { kern.gemm(z, n, x, k, false, y, n, false, m, n, k, false, s) }}
}

func gemmU8S8Work(kern *isa, m, n, k int) work {
	x, w, z := make([]uint8, m*k), make([]int8, k*n), make([]int32, m*n)
	randomCodes(newRand(1), x)
	randomCodes(newRand(2), w)
	p := new(PackedS8)
	kern.packS8(p, w, k, n)
	s := new(Scratch)
	return work{2 * m * n * k, func() { kern.gemmU8S8(z, n, x, k, p, m, 0, n, s) }}
}

func convOps(g ConvGeom, n int) int { return 2 * n * g.outSize() * g.Depth() }

func convWork(kern *isa, g ConvGeom, n int) work {
	x, w, y := make([]float32, n*g.inSize()), make([]float32, g.weightSize()), make([]float32, n*g.outSize())
	randomF32(newRand(1), x, false)
	randomF32(newRand(2), w, false)
	s := new(Scratch)
	return work{convOps(g, n), func() { kern.convForward(y, x, w, nil, n, g, s) }}
}

func convU8S8Work(kern *isa, g ConvGeom, n int) work {
	x, w, y := make([]uint8, n*g.inSize()), make([]int8, g.weightSize()), make([]int32, n*g.outSize())
	randomCodes(newRand(1), x)
	randomCodes(newRand(2), w)
	p := new(PackedS8)
	kern.packS8(p, w, g.Depth(), g.Cout)
	s := new(Scratch)
	return work{convOps(g, n), func() { kern.convU8S8(y, x, 7, p, n, g, s) }}
}
