package kernel

import (
	"fmt"
	"testing"
)

// Shapes of the benchmarks: dense layers, convolutions as products, a square.
var benchShapes = [][3]int{{64, 256, 784}, {64, 256, 256}, {12544, 64, 288}, {64, 128, 3136}, {256, 256, 256}, {1024, 1024, 1024}}

func benchEachTier(b *testing.B, f func(b *testing.B, kern *isa)) {
	kern := active
	b.Run(kern.tier.String(), func(b *testing.B) { f(b, kern) })
}

func reportOps(b *testing.B, ops int) {
	b.ReportMetric(float64(ops)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gop/s")
}

func BenchmarkGemm(b *testing.B) {
	benchEachTier(b, func(b *testing.B, kern *isa) {
		for _, s := range benchShapes {
			for form, name := range []string{"NN", "TN", "NT"} {
				m, n, k := s[0], s[1], s[2]
				b.Run(fmt.Sprintf("%s/%dx%dx%d", name, m, n, k), func(b *testing.B) {
					x, y, z := make([]float32, m*k), make([]float32, k*n), make([]float32, m*n)
					randomF32(newRand(1), x, false)
					randomF32(newRand(2), y, false)
					lda, ldb := k, n
					if form == 1 {
						lda = m
					}
					if form == 2 {
						ldb = k
					}
					var sc Scratch
					b.ResetTimer()
					for range b.N {
						kern.gemm(z, n, x, lda, form == 1, y, ldb, form == 2, m, n, k, false, &sc)
					}
					reportOps(b, 2*m*n*k)
				})
			}
		}
	})
}

func BenchmarkGemmU8S8(b *testing.B) {
	benchEachTier(b, func(b *testing.B, kern *isa) {
		for _, s := range benchShapes {
			m, n, k := s[0], s[1], s[2]
			b.Run(fmt.Sprintf("%dx%dx%d", m, n, k), func(b *testing.B) {
				x, w, z := make([]uint8, m*k), make([]int8, k*n), make([]int32, m*n)
				randomCodes(newRand(1), x)
				randomCodes(newRand(2), w)
				var p PackedS8
				var sc Scratch
				kern.packS8(&p, w, k, n)
				b.ResetTimer()
				for range b.N {
					kern.gemmU8S8(z, n, x, k, &p, m, 0, n, &sc)
				}
				reportOps(b, 2*m*n*k)
			})
		}
	})
}

// benchConvs have padding 1 and stride 1; groups 0 is a dense convolution.
var benchConvs = []ConvGeom{
	{H: 28, W: 28, Cin: 1, KH: 3, KW: 3, Cout: 32},
	{H: 28, W: 28, Cin: 16, KH: 3, KW: 3, Cout: 32},
	{H: 32, W: 32, Cin: 16, KH: 3, KW: 3, Cout: 16},
	{H: 16, W: 16, Cin: 32, KH: 3, KW: 3, Cout: 32},
	{H: 8, W: 8, Cin: 64, KH: 3, KW: 3, Cout: 64},
	{H: 14, W: 14, Cin: 32, KH: 3, KW: 3, Cout: 64},
	{H: 8, W: 8, Cin: 128, KH: 3, KW: 3, Cout: 256},
	{H: 56, W: 56, Cin: 64, KH: 3, KW: 3, Cout: 64},
	{H: 14, W: 14, Cin: 64, KH: 3, KW: 3, Cout: 64, Groups: 2},
	{H: 14, W: 14, Cin: 64, KH: 3, KW: 3, Cout: 64, Groups: 4},
	{H: 14, W: 14, Cin: 64, KH: 3, KW: 3, Cout: 64, Groups: 16},
	{H: 14, W: 14, Cin: 64, KH: 3, KW: 3, Cout: 64, Groups: 32},
	{H: 14, W: 14, Cin: 32, KH: 3, KW: 3, Cout: 64, Groups: 32},
}

func BenchmarkConv(b *testing.B) {
	benchEachTier(b, func(b *testing.B, kern *isa) {
		for _, g := range benchConvs {
			g.StrideH, g.StrideW, g.Groups = 1, 1, max(1, g.Groups)
			g.PadTop, g.PadLeft, g.PadBottom, g.PadRight = 1, 1, 1, 1
			n := 8
			x, w, y := make([]float32, n*g.inSize()), make([]float32, g.weightSize()), make([]float32, n*g.outSize())
			dx, dw := make([]float32, len(x)), make([]float32, kern.flippedSize(g))
			randomF32(newRand(1), x, false)
			randomF32(newRand(2), w, false)
			randomF32(newRand(3), y, false)
			xq, wq, acc := make([]uint8, len(x)), make([]int8, len(w)), make([]int32, len(y))
			randomCodes(newRand(1), xq)
			randomCodes(newRand(2), wq)
			var p PackedS8
			kern.packConv(&p, wq, g, new(Scratch))
			out, bias, m := make([]uint8, len(y)), make([]int32, g.Cout), make([]float32, g.Cout)
			fill(m, 0.001)
			var s Scratch
			for _, f := range []struct {
				name string
				run  func()
			}{
				{"forward", func() { kern.convForward(y, x, w, nil, n, g, &s) }},
				{"dx", func() { kern.convBackwardInput(dx, y, w, n, g, &s) }},
				{"dw", func() { kern.convBackwardWeight(dw, x, y, n, g, false, &s) }},
				{"u8s8", func() { kern.convU8S8(acc, xq, 3, &p, n, g, &s) }},
				{"u8s8+requant", func() { kern.convU8S8Requant(out, xq, 3, &p, bias, m, 0, 0, 255, n, g, &s) }},
			} {
				b.Run(fmt.Sprintf("%s/%dx%dx%d-%d/%d", f.name, g.H, g.W, g.Cin, g.Cout, g.Groups), func(b *testing.B) {
					for range b.N {
						f.run()
					}
					reportOps(b, 2*n*g.outSize()*g.Depth())
				})
			}
		}
	})
}

func BenchmarkElementwise(b *testing.B) {
	benchEachTier(b, func(b *testing.B, kern *isa) {
		const n, channels = 1 << 16, 64
		x, y, z, u := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
		acc, codes, arg, mask := make([]int32, n), make([]uint8, n), make([]uint8, n), make([]uint8, n/8)
		s8, bias, m := make([]int8, n), make([]int32, channels), make([]float32, channels)
		randomF32(newRand(1), x, false)
		randomF32(newRand(2), y, false)
		for i := range acc {
			acc[i] = int32(i*7919%60000) - 30000
		}
		fill(m, 0.005)
		sums, sums2 := make([]float64, channels), make([]float64, channels)
		var norm NormParams
		norm.SetGrad(m, m, m, sums, sums, n)
		act := NormAct{Norm: &norm, ReLU: true}
		var packed PackedS8
		g := PoolGeom{H: 32, W: 32, C: channels, KH: 2, KW: 2, StrideH: 2, StrideW: 2}
		for _, f := range []struct {
			name string
			run  func()
		}{
			{"requant", func() { kern.requantRows(codes, acc, bias, m, 128, 0, 255, channels) }},
			{"requant train", func() { kern.requantTrain(codes, mask, acc, bias, m, 128, 0, 255, true, channels) }},
			{"scale rows", func() { kern.scaleRows(z, acc, bias, m, channels) }},
			{"quantize u8", func() { kern.quantizeU8(codes, mask, x, 0.01, 128, 0, 255) }},
			{"quantize s8", func() { kern.quantizeS8(s8, mask, x, m, -127, 127) }},
			{"fake-quant", func() { kern.fakeQuant(z, mask, x, 0.01, 128, 0, 255) }},
			{"fake-quant channels", func() { kern.fakeQuantChannels(z, mask, x, m, -127, 127) }},
			{"mask gradient", func() { kern.maskGrad(z, x, mask) }},
			{"relu", func() { kern.relu(z, x) }},
			{"relu gradient", func() { kern.reluGrad(z, x, y) }},
			{"bias", func() { kern.addBias(z, x, m, channels) }},
			{"adam", func() { kern.adam(x, y, z, u, nil, 10, AdamConfig{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}) }},
			{"max-pool f32", func() { kern.maxPoolF32(z, arg, x, 1, g) }},
			{"max-pool u8", func() { kern.maxPoolU8(codes, arg, codes, 1, g) }},
			{"max-pool gradient", func() { MaxPoolGrad(z, y, arg, 1, g) }},
			{"abs max channels", func() { kern.absMaxChannels(y, x, channels) }},
			{"min max", func() { kern.minMax(x) }},
			{"column sums", func() { kern.columnSums(sums, termSum, &columnArgs{x: x}, channels) }},
			{"normalize", func() { kern.normalize(z, x, m, m, m, m, channels) }},
			{"norm, relu", func() { kern.normValues(&act, z, mask, x) }},
			{"norm, relu, quantize", func() { kern.normQuantize(&act, codes, mask, x, 0.01, 0, 0, 255) }},
			{"norm, relu, scale gradient", func() { kern.normScaleGrad(&act, y, mask, x, codes, mask, 0.01, 0, 0, 255) }},
			{"norm sums", func() { kern.normSums(sums, sums2, y, mask, x, m, m, channels) }},
			{"normalize gradient", func() { kern.normalizeGrad(z, y, nil, x, &norm) }},
			{"sum of squares", func() { SumSquares(x) }},
			{"dequantize", func() { kern.dequantizeU8(z, codes, m[:1], 3) }},
			{"pack", func() { kern.packS8(&packed, s8, n/256, 256) }},
			{"transpose", func() { kern.transpose(z, 256, x, 256, 256, 256) }},
			{"im2col u8 3x3x1", func() {
				im2col(codes, 12, codes, 1, 3, ConvGeom{H: 28, W: 28, Cin: 1, KH: 3, KW: 3, Cout: 1, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1})
			}},
		} {
			b.Run(f.name, func(b *testing.B) {
				b.SetBytes(4 * n)
				for range b.N {
					f.run()
				}
			})
		}
	})
}

// benchDepthwise are the depthwise layers of the mbnet preset.
var benchDepthwise = []ConvGeom{
	{H: 28, W: 28, Cin: 16, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1},
	{H: 28, W: 28, Cin: 32, StrideH: 2, StrideW: 2},
	{H: 14, W: 14, Cin: 64, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1},
}

func BenchmarkDepthwise(b *testing.B) {
	benchEachTier(b, func(b *testing.B, kern *isa) {
		for _, g := range benchDepthwise {
			g.KH, g.KW, g.Cout, g.Groups, g.PadBottom, g.PadRight = 3, 3, g.Cin, g.Cin, 1, 1
			x, w, y := make([]float32, g.inSize()), make([]float32, g.weightSize()), make([]float32, g.outSize())
			xq, wq, acc, out := make([]uint8, len(x)), make([]int8, len(w)), make([]int32, len(y)), make([]uint8, len(y))
			bias, m := make([]int32, g.Cout), make([]float32, g.Cout)
			var p PackedS8
			kern.packS8(&p, wq, g.Depth(), g.Cout)
			var s Scratch
			for _, f := range []struct {
				name string
				run  func()
			}{
				{"f32", func() { kern.convForward(y, x, w, nil, 1, g, &s) }},
				{"u8s8", func() { kern.convU8S8(acc, xq, 3, &p, 1, g, &s) }},
				{"u8s8+requant", func() { kern.convU8S8Requant(out, xq, 3, &p, bias, m, 0, 0, 255, 1, g, &s) }},
				{"padding", func() { padImage(&s.bytes, xq, g.Cin, 3, g) }},
			} {
				b.Run(fmt.Sprintf("%s/%dx%dx%d", f.name, g.H, g.W, g.Cin), func(b *testing.B) {
					for range b.N {
						f.run()
					}
					reportOps(b, 2*g.outSize()*g.Depth())
				})
			}
		}
	})
}
