package kernel

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

var lengths = []int{0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 100, 257, 1000}

func TestElementwiseSameBitsInAllTiers(t *testing.T) {
	gen := generic()
	eachTier(t, func(t *testing.T, kern *isa) {
		for i, n := range lengths {
			r := newRand(uint64(n))
			x, dy := make([]float32, n), make([]float32, n)
			randomF32(r, x, true)
			randomF32(r, dy, true)
			if n > 5 {
				x[5] = float32(math.NaN())
			}
			want, got := make([]float32, n), qtest.Guarded[float32](n, i)
			gen.relu(want, x)
			kern.relu(got.Data, x)
			if err := errors.Join(qtest.SameBits("relu", got.Data, want), got.Check()); err != nil {
				t.Fatalf("n=%d: %v", n, err)
			}
			for j, v := range got.Data {
				if v < 0 || math.Signbit(float64(v)) && v == 0 || v == v && x[j] > 0 && v != x[j] {
					t.Fatalf("relu(%v) = %v", x[j], v)
				}
			}
			gen.reluGrad(want, dy, x)
			kern.reluGrad(got.Data, dy, x)
			if err := errors.Join(qtest.SameBits("relu gradient", got.Data, want), got.Check()); err != nil {
				t.Fatalf("n=%d: %v", n, err)
			}
			gen.reluCapGrad(want, dy, x, 0.5)
			kern.reluCapGrad(got.Data, dy, x, 0.5)
			if err := errors.Join(qtest.SameBits("gradient of a ReLU with a limit", got.Data, want), got.Check()); err != nil {
				t.Fatalf("n=%d: %v", n, err)
			}
			for j, v := range got.Data {
				if pass := x[j] > 0 && x[j] < 0.5; !pass && v != 0 || pass && math.Float32bits(v) != math.Float32bits(dy[j]) {
					t.Fatalf("n=%d: of gradient %v at %v passes %v", n, dy[j], x[j], v)
				}
			}
			gen.add(want, x, dy)
			kern.add(got.Data, x, dy)
			if err := errors.Join(qtest.SameBits("sum", got.Data, want), got.Check()); err != nil {
				t.Fatalf("n=%d: %v", n, err)
			}
			sum := append([]float32(nil), want...)
			gen.relu(want, sum)
			mask := qtest.Guarded[uint8](MaskLen(n), i)
			kern.addReLU(got.Data, mask.Data, x, dy)
			if err := errors.Join(qtest.SameBits("sum and ReLU", got.Data, want), got.Check(), mask.Check()); err != nil {
				t.Fatalf("n=%d: %v", n, err)
			}
			for j, v := range sum {
				if pass := mask.Data[j/8]>>(j%8)&1 == 1; pass != (v > 0) {
					t.Fatalf("n=%d: the gradient of a sum %v passes: %t", n, v, pass)
				}
			}
			gen.scale(want, x, -1.1)
			kern.scale(got.Data, x, -1.1)
			if err := errors.Join(qtest.SameBits("multiple", got.Data, want), got.Check()); err != nil {
				t.Fatalf("n=%d: %v", n, err)
			}
			for _, channels := range []int{1, 3, 16, 20} {
				m := n / channels * channels
				gen.addBias(want[:m], x[:m], dyOr(dy, channels), channels)
				kern.addBias(got.Data[:m], x[:m], dyOr(dy, channels), channels)
				if err := errors.Join(qtest.SameBits("bias", got.Data[:m], want[:m]), got.Check()); err != nil {
					t.Fatalf("n=%d channels=%d: %v", n, channels, err)
				}
			}
		}
	})
}

// dyOr returns a bias of n elements taken from dy as far as it goes.
func dyOr(dy []float32, n int) []float32 {
	b := make([]float32, n)
	copy(b, dy)
	return b
}

// maxPoolReference is the definition, cell by cell.
func maxPoolReference(x []float32, n int, g PoolGeom) (y []float32, arg []uint8) {
	for i := range n {
		for oy := range g.OutH() {
			for ox := range g.OutW() {
				for c := range g.C {
					best, at := float32(math.Inf(-1)), -1
					for kh := range g.KH {
						for kw := range g.KW {
							iy, ix := oy*g.StrideH-g.PadTop+kh, ox*g.StrideW-g.PadLeft+kw
							if iy < 0 || iy >= g.H || ix < 0 || ix >= g.W {
								continue
							}
							v := x[((i*g.H+iy)*g.W+ix)*g.C+c]
							if at < 0 || v > best || v != v && best == best {
								best, at = v, kh*g.KW+kw
							}
						}
					}
					y, arg = append(y, best), append(arg, uint8(at))
				}
			}
		}
	}
	return y, arg
}

func TestMaxPool(t *testing.T) {
	geoms := []PoolGeom{
		{H: 1, W: 1, C: 1, KH: 1, KW: 1, StrideH: 1, StrideW: 1},
		{H: 6, W: 8, C: 5, KH: 2, KW: 2, StrideH: 2, StrideW: 2},
		{H: 14, W: 14, C: 64, KH: 2, KW: 2, StrideH: 2, StrideW: 2},
		{H: 7, W: 5, C: 33, KH: 3, KW: 3, StrideH: 2, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
		{H: 5, W: 5, C: 16, KH: 3, KW: 2, StrideH: 1, StrideW: 2, PadTop: 2, PadRight: 1},
		{H: 7, W: 7, C: 17, KH: 7, KW: 7, StrideH: 1, StrideW: 1},
	}
	const n = 2
	for gi, g := range geoms {
		if err := g.Check(); err != nil {
			t.Fatal(err)
		}
		r := newRand(uint64(gi))
		x := make([]float32, n*g.inSize())
		codes := make([]uint8, len(x))
		for i := range x { // few different values: many ties
			codes[i] = uint8(r.IntN(4))
			x[i] = float32(codes[i]) - 1.5
		}
		x[r.IntN(len(x))] = float32(math.NaN())
		x[r.IntN(len(x))] = float32(math.Inf(-1))
		wantY, wantArg := maxPoolReference(x, n, g)
		asFloat := make([]float32, len(codes))
		for i, q := range codes {
			asFloat[i] = float32(q)
		}
		wantQ, wantQArg := maxPoolReference(asFloat, n, g)
		eachTier(t, func(t *testing.T, kern *isa) {
			y, arg := qtest.Guarded[float32](len(wantY), gi), qtest.Guarded[uint8](len(wantY), gi)
			kern.maxPoolF32(y.Data, arg.Data, x, n, g)
			err := errors.Join(qtest.SameBits("y", y.Data, wantY), qtest.Same("arg", arg.Data, wantArg), y.Check(), arg.Check())
			kern.maxPoolF32(y.Data, nil, x, n, g)
			err = errors.Join(err, qtest.SameBits("y without arg", y.Data, wantY))
			q, qArg := qtest.Guarded[uint8](len(wantY), gi), qtest.Guarded[uint8](len(wantY), gi)
			kern.maxPoolU8(q.Data, qArg.Data, codes, n, g)
			for i, v := range q.Data {
				if float32(v) != wantQ[i] {
					t.Fatalf("%+v: code %d = %d, want %v", g, i, v, wantQ[i])
				}
			}
			err = errors.Join(err, qtest.Same("arg of codes", qArg.Data, wantQArg), q.Check(), qArg.Check())
			kern.maxPoolU8(q.Data, nil, codes, n, g)
			if err != nil {
				t.Errorf("%+v: %v", g, err)
			}
		})
		dy, dx := make([]float32, len(wantY)), make([]float32, len(x))
		fill(dy, 1)
		wantArg[0] = NoGrad
		MaxPoolGrad(dx, dy, wantArg, n, g)
		var sum float32
		for _, v := range dx {
			sum += v
		}
		if sum != float32(len(dy)-1) {
			t.Errorf("%+v: gradients sum to %v, want %d", g, sum, len(dy)-1)
		}
	}
}

func TestPoolGeomCheck(t *testing.T) {
	good := PoolGeom{H: 6, W: 6, C: 1, KH: 2, KW: 2, StrideH: 2, StrideW: 2}
	bad := map[string]func(*PoolGeom){
		"size": func(g *PoolGeom) { g.C = 0 }, "stride": func(g *PoolGeom) { g.StrideH = 0 },
		"cells": func(g *PoolGeom) { g.H, g.W, g.KH, g.KW = 20, 20, 16, 16 }, "negative": func(g *PoolGeom) { g.PadTop = -1 },
		"fit": func(g *PoolGeom) { g.KW = 7 }, "outside": func(g *PoolGeom) { g.PadTop = 2 },
		"outside below": func(g *PoolGeom) { g.PadBottom = 3 },
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range bad {
		g := good
		change(&g)
		if g.Check() == nil {
			t.Errorf("%s: %+v was accepted", name, g)
		}
	}
}

func TestColumnSums(t *testing.T) {
	for _, channels := range []int{1, 7, 64, 65, 130} {
		for _, r := range []int{0, 1, 31, 32, 33, 200} {
			x := make([]float32, r*channels)
			randomF32(newRand(uint64(r)), x, false)
			want := make([]float64, channels)
			for i, v := range x {
				want[i%channels] += float64(v)
			}
			got := make([]float64, channels)
			SumColumns(got, x, channels)
			for c := range want {
				if math.Abs(got[c]-want[c]) > 1e-4 {
					t.Fatalf("channels=%d rows=%d: sum %v, want %v", channels, r, got[c], want[c])
				}
			}
		}
	}
	var total [2]float64
	Combine(total[:], []float64{1, 2, 10, 20, 100, 200}, 2)
	if total != [2]float64{111, 222} {
		t.Errorf("Combine = %v", total)
	}
	x := make([]float32, 10007)
	want := 0.0
	for i := range x {
		x[i] = float32(i%7) - 3
		want += float64(x[i]) * float64(x[i])
	}
	if got := SumSquares(x); got != want {
		t.Errorf("SumSquares = %v, want %v", got, want)
	}
}

func TestColumnSumsSameBitsInAllTiers(t *testing.T) {
	gen := generic()
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, channels := range []int{1, 15, 16, 17, 64, 70, 144} {
			for _, r := range []int{0, 1, 32, 100} {
				rng := newRand(uint64(r + channels))
				x, dy := make([]float32, r*channels), make([]float32, r*channels)
				mean := make([]float32, channels)
				for _, v := range [][]float32{x, dy, mean} {
					randomF32(rng, v, false)
				}
				scale := make([]float32, channels)
				for c := range scale {
					scale[c] = 0.01 + float32(rng.Float64())
				}
				a := &columnArgs{x: x, mean: mean, dy: dy, scale: scale, lo: -1, hi: 2}
				for term := termSum; term <= termScaleGrad; term++ {
					want := make([]float64, channels)
					got := qtest.Guarded[float64](channels, 1)
					gen.columnSums(want, term, a, channels)
					kern.columnSums(got.Data, term, a, channels)
					if err := errors.Join(qtest.Same("sums", got.Data, want), got.Check()); err != nil {
						t.Fatalf("channels=%d rows=%d term %d: %v", channels, r, term, err)
					}
				}
			}
		}
	})
}

func TestNormalizeSameBitsInAllTiers(t *testing.T) {
	gen := generic()
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, channels := range []int{1, 3, 16, 33, 100, 1040} {
			for _, r := range []int{0, 1, 5, 40} {
				rng := newRand(uint64(r + channels))
				n := r * channels
				v := make([][]float32, 6) // x, dy, then per channel
				for i := range v {
					v[i] = make([]float32, n)
					if i >= 2 {
						v[i] = make([]float32, channels)
					}
					randomF32(rng, v[i], false)
				}
				dgamma, dbeta := make([]float64, channels), make([]float64, channels)
				for c := range dgamma {
					dgamma[c], dbeta[c] = rng.NormFloat64(), rng.NormFloat64()
				}
				want, got := make([]float32, n), qtest.Guarded[float32](n, channels%9)
				gen.normalize(want, v[0], v[2], v[3], v[4], v[5], channels)
				kern.normalize(got.Data, v[0], v[2], v[3], v[4], v[5], channels)
				if err := errors.Join(qtest.SameBits("y", got.Data, want), got.Check()); err != nil {
					t.Fatalf("channels=%d rows=%d: %v", channels, r, err)
				}
				var p NormParams
				p.SetGrad(v[2], v[3], v[4], dgamma, dbeta, r+1)
				gen.normalizeGrad(want, v[1], nil, v[0], &p)
				kern.normalizeGrad(got.Data, v[1], nil, v[0], &p)
				if err := errors.Join(qtest.SameBits("dx", got.Data, want), got.Check()); err != nil {
					t.Fatalf("channels=%d rows=%d: %v", channels, r, err)
				}
			}
		}
	})
}

func TestSumsSameBitsInAllTiers(t *testing.T) {
	gen := generic()
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, n := range append(lengths, 4095, 4096, 4097, 10000) {
			r := newRand(uint64(n))
			x, dy := make([]float32, n), make([]float32, n)
			awkward(uint64(n), x, 0.25, -8, 7)
			randomF32(r, dy, false)
			for _, scale := range []float32{0.25, 1} {
				if got, want := kern.scaleGrad(dy, x, scale, -8, 7), gen.scaleGrad(dy, x, scale, -8, 7); got != want {
					t.Errorf("scaleGrad n=%d scale %v: %v, want %v", n, scale, got, want)
				}
			}
			if got, want := kern.sumSquares(dy), gen.sumSquares(dy); got != want {
				t.Errorf("sumSquares n=%d: %v, want %v", n, got, want)
			}
		}
	})
}

func TestTranspose(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, s := range [][3]int{{0, 5, 5}, {5, 0, 1}, {1, 1, 1}, {7, 9, 12}, {8, 8, 8}, {16, 24, 30}, {19, 45, 45}, {64, 33, 40}} {
			r, c, stride := s[0], s[1], s[2]
			src := make([]float32, max(0, r*stride))
			for i := range src {
				src[i] = float32(i)
			}
			ldd := r + 3
			dst := qtest.Guarded[float32](max(0, (c-1)*ldd+r), 1)
			fill(dst.Data, -1)
			kern.transpose(dst.Data, ldd, src, stride, r, c)
			for i, v := range dst.Data {
				want := float32(-1)
				if i%ldd < r && r > 0 {
					want = src[i%ldd*stride+i/ldd]
				}
				if v != want {
					t.Fatalf("%dx%d: dst[%d] = %v, want %v", r, c, i, v, want)
				}
			}
			if err := dst.Check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestMaskGradSameBitsInAllTiers(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		for i, n := range lengths {
			r := newRand(uint64(n))
			dy, mask := make([]float32, n), make([]uint8, MaskLen(n))
			randomF32(r, dy, true)
			randomCodes(r, mask)
			dx := qtest.Guarded[float32](n, i)
			kern.maskGrad(dx.Data, dy, mask)
			for j, v := range dx.Data {
				want := float32(0)
				if mask[j/8]>>(j%8)&1 == 1 {
					want = dy[j]
				}
				if math.Float32bits(v) != math.Float32bits(want) {
					t.Fatalf("n=%d: dx[%d] = %v, want %v", n, j, v, want)
				}
			}
			if err := dx.Check(); err != nil {
				t.Fatal(err)
			}
			a, sum := make([]float32, n), qtest.Guarded[float32](n, i)
			randomF32(r, a, true)
			behind := qtest.Guarded[float32](n, i)
			kern.maskReLUGrad(behind.Data, dy, a, mask)
			for j, v := range behind.Data {
				want := dx.Data[j]
				if !(a[j] > 0) {
					want = 0
				}
				if math.Float32bits(v) != math.Float32bits(want) {
					t.Fatalf("n=%d: behind a ReLU dx[%d] = %v, want %v", n, j, v, want)
				}
			}
			if err := behind.Check(); err != nil {
				t.Fatal(err)
			}
			kern.addMasked(sum.Data, a, dy, mask)
			for j, v := range sum.Data {
				if want := a[j] + dx.Data[j]; math.Float32bits(v) != math.Float32bits(want) && want == want {
					t.Fatalf("n=%d: sum[%d] = %v, want %v", n, j, v, want)
				}
			}
			if err := sum.Check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The gradient of batch norm with batch statistics, against finite
// differences of its definition in float64.
func TestBatchNormGradient(t *testing.T) {
	const n, ch = 6, 3
	const eps = 1e-3
	r := newRand(8)
	x, gamma, beta, dy := make([]float32, n*ch), make([]float32, ch), make([]float32, ch), make([]float32, n*ch)
	for _, v := range [][]float32{x, gamma, beta, dy} {
		randomF32(r, v, false)
	}
	loss := func(p []float64) float64 { // p = x, gamma, beta
		total := 0.0
		for c := range ch {
			var mean, variance float64
			for i := range n {
				mean += p[i*ch+c] / n
			}
			for i := range n {
				variance += (p[i*ch+c] - mean) * (p[i*ch+c] - mean) / n
			}
			for i := range n {
				xhat := (p[i*ch+c] - mean) / math.Sqrt(variance+eps)
				total += float64(dy[i*ch+c]) * (xhat*p[n*ch+c] + p[n*ch+ch+c])
			}
		}
		return total
	}
	mean, variance, inv := make([]float32, ch), make([]float32, ch), make([]float32, ch)
	dgamma, dbeta := make([]float64, ch), make([]float64, ch)
	dx := make([]float32, n*ch)
	var m Moments
	m.Reset(ch)
	m.Add(x)
	m.Stats(mean, variance, inv, eps)
	AddNormalizeGradSums(dgamma, dbeta, dy, nil, x, mean, inv, ch)
	var params NormParams
	params.SetGrad(mean, inv, gamma, dgamma, dbeta, n)
	NormalizeGrad(dx, dy, nil, x, &params)
	var p, grad []float64
	for _, v := range [][]float32{x, gamma, beta} {
		for _, f := range v {
			p = append(p, float64(f))
		}
	}
	for _, f := range dx {
		grad = append(grad, float64(f))
	}
	grad = append(append(grad, dgamma...), dbeta...)
	if err := qtest.GradCheck(loss, p, grad, 1e-5, 1e-5); err != nil {
		t.Error(err)
	}
}

func TestCrossEntropyIgnoresRows(t *testing.T) {
	x := []float32{1, 2, 3, 9, 9, 9, 0, 0, 0}
	grad, per := make([]float32, 9), make([]float32, 3)
	fill(grad, 5)
	loss, err := SoftmaxCrossEntropy(grad, per, x, []int32{2, IgnoreLabel, 0}, 3, CrossEntropy{})
	if err != nil {
		t.Fatal(err)
	}
	want := (math.Log(math.Exp(1)+math.Exp(2)+math.Exp(3)) - 3 + math.Log(3)) / 2
	if math.Abs(loss-want) > 1e-12 {
		t.Errorf("loss %v, want %v", loss, want)
	}
	if per[1] != 0 || grad[3] != 0 || grad[4] != 0 || grad[5] != 0 {
		t.Errorf("the ignored row has loss %v and gradient %v", per[1], grad[3:6])
	}
	loss, err = SoftmaxCrossEntropy(grad[:3], nil, x[:3], []int32{IgnoreLabel}, 3, CrossEntropy{})
	if err != nil || loss != 0 {
		t.Errorf("no rows: loss %v, error %v", loss, err)
	}
	if _, err = SoftmaxCrossEntropy(nil, nil, x[:3], []int32{3}, 3, CrossEntropy{}); !errors.Is(err, ErrLabel) {
		t.Errorf("label 3 of 3 classes: error %v", err)
	}
	if _, err = SoftmaxCrossEntropy(nil, nil, x[:4], []int32{0}, 3, CrossEntropy{}); err == nil {
		t.Error("4 logits for one row of 3 classes were accepted")
	}
	if _, err = SoftmaxCrossEntropy(nil, nil, x[:3], []int32{0}, 3, CrossEntropy{Smoothing: 1}); err == nil {
		t.Error("smoothing 1 was accepted")
	}
}

func TestLossGradients(t *testing.T) {
	const rowsN, classes = 3, 4
	r := newRand(6)
	x, target := make([]float32, rowsN*classes), make([]float32, rowsN*classes)
	randomF32(r, x, false)
	randomF32(r, target, false)
	labels, weights := []int32{2, IgnoreLabel, 0}, []float32{0.5, 1, 2, 1.5}
	type lossFunc func(grad, x []float32) (float64, error)
	losses := map[string]lossFunc{
		"cross-entropy": func(g, x []float32) (float64, error) {
			return SoftmaxCrossEntropy(g, nil, x, labels, classes, CrossEntropy{Smoothing: 0.2, Weights: weights})
		},
		"cross-entropy sum": func(g, x []float32) (float64, error) {
			return SoftmaxCrossEntropy(g, nil, x, labels, classes, CrossEntropy{Reduction: Sum})
		},
		"mse":    func(g, x []float32) (float64, error) { return MSELoss(g, x, target, Sum) },
		"smooth": func(g, x []float32) (float64, error) { return SmoothL1Loss(g, x, target, 0.7, Mean) },
		"bce":    func(g, x []float32) (float64, error) { return BCEWithLogits(g, x, target, Sum) },
		"kl":     func(g, x []float32) (float64, error) { return DistillationKL(g, x, target, classes, 2) },
	}
	for name, f := range losses {
		grad := make([]float32, len(x))
		if _, err := f(grad, x); err != nil {
			t.Fatal(err)
		}
		// x is float32, so the step is a large power of two
		p, g := make([]float64, len(x)), make([]float64, len(x))
		for i := range x {
			p[i], g[i] = float64(x[i]), float64(grad[i])
		}
		err := qtest.GradCheck(func(p []float64) float64 {
			v := make([]float32, len(p))
			for i := range p {
				v[i] = float32(p[i])
			}
			loss, err := f(nil, v)
			if err != nil {
				t.Fatal(err)
			}
			return loss
		}, p, g, 1./256, 2e-4)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAdamSameBitsInAllTiers(t *testing.T) {
	gen := generic()
	configs := []AdamConfig{
		{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8},
		{LR: 1e-2, Beta1: 0.8, Beta2: 0.95, Eps: 1e-4, WeightDecay: 0.01},
		{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1, Decoupled: true, AMSGrad: true},
	}
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, cfg := range configs {
			for i, n := range lengths {
				var want, got [4][]float32 // p, m, v, vmax
				var guards [4]*qtest.Guard[float32]
				r := newRand(uint64(n))
				for j := range want {
					guards[j] = qtest.Guarded[float32](n, i)
					want[j], got[j] = make([]float32, n), guards[j].Data
				}
				randomF32(r, want[0], false)
				copy(got[0], want[0])
				g := make([]float32, n)
				for step := 1; step <= 3; step++ {
					randomF32(r, g, false)
					gen.adam(want[0], g, want[1], want[2], want[3], step, cfg)
					kern.adam(got[0], g, got[1], got[2], got[3], step, cfg)
				}
				for j, name := range []string{"p", "m", "v", "vmax"} {
					if err := errors.Join(qtest.SameBits(name, got[j], want[j]), guards[j].Check()); err != nil {
						t.Fatalf("%+v n=%d: %v", cfg, n, err)
					}
				}
			}
		}
	})
}

func ExampleSoftmaxCrossEntropy() {
	logits := []float32{2, 0, 0, 0, 2, 0}
	grad := make([]float32, len(logits))
	loss, err := SoftmaxCrossEntropy(grad, nil, logits, []int32{0, 2}, 3, CrossEntropy{})
	fmt.Printf("%.4f %.3f %v\n", loss, grad, err)
	// Output: 1.2395 [-0.107 0.053 0.053 0.053 0.393 -0.447] <nil>
}
