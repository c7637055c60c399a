package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

// randomDepthwise is a depthwise geometry with odd sizes, paddings larger than
// the kernel, strides and dilation; channels on both sides of a vector.
func randomDepthwise(r *rand.Rand) ConvGeom {
	pick := func(lo, hi int) int { return lo + r.IntN(hi-lo+1) }
	for {
		c := []int{2, 15, 16, 17, 32, 40, 64}[r.IntN(7)]
		g := ConvGeom{
			H: pick(1, 9), W: pick(1, 14), Cin: c, KH: pick(1, 4), KW: pick(1, 5), Cout: c, StrideH: pick(1, 3), StrideW: pick(1, 3),
			PadTop: pick(0, 4), PadLeft: pick(0, 5), PadBottom: pick(0, 4), PadRight: pick(0, 5), Groups: c, DilationH: pick(1, 2), DilationW: pick(1, 3),
		}
		if g.Check() == nil {
			return g
		}
	}
}

// A depthwise convolution rounds each product and each sum in the order of the
// window's cells, and so has the same bits in every tier.
func TestDepthwiseIsItsDefinition(t *testing.T) {
	r := newRand(1)
	for i := range 150 {
		g := randomDepthwise(r)
		n := 1 + i%3
		x, w, want := make([]float32, n*g.inSize()), make([]float32, g.weightSize()), make([]float32, n*g.outSize())
		randomF32(r, x, i%5 == 4)
		randomF32(r, w, false)
		eachProduct(n, g, func(xi, yi, wi int) {
			if xi >= 0 {
				want[yi] += float32(x[xi] * w[wi])
			}
		})
		codes, s8, sums := make([]uint8, len(x)), make([]int8, len(w)), make([]int32, len(want))
		randomCodes(r, codes)
		randomCodes(r, s8)
		zero := uint8(r.Uint32())
		eachProduct(n, g, func(xi, yi, wi int) {
			q := zero
			if xi >= 0 {
				q = codes[xi]
			}
			sums[yi] += int32(q) * int32(s8[wi])
		})
		bias, m := make([]int32, g.Cout), make([]float32, g.Cout)
		for c := range m {
			bias[c], m[c] = r.Int32N(10000)-5000, float32(r.Float64())/50
		}
		wantU8 := make([]uint8, len(sums))
		generic().requantRows(wantU8, sums, bias, m, 12, 3, 250, g.Cout)
		eachTier(t, func(t *testing.T, kern *isa) {
			var s Scratch
			y, acc, dst := qtest.Guarded[float32](len(want), i), qtest.Guarded[int32](len(want), i), qtest.Guarded[uint8](len(want), i)
			randomF32(newRand(9), y.Data, false) // must be overwritten
			randomCodes(newRand(9), dst.Data)
			fill(acc.Data, 77)
			kern.convForward(y.Data, x, w, nil, n, g, &s)
			var p PackedS8
			kern.packS8(&p, s8, g.Depth(), g.Cout)
			kern.convU8S8(acc.Data, codes, zero, &p, n, g, &s)
			kern.convU8S8Requant(dst.Data, codes, zero, &p, bias, m, 12, 3, 250, n, g, &s)
			for _, err := range []error{
				qtest.SameBits("values", y.Data, want), y.Check(), qtest.Same("sums", acc.Data, sums), acc.Check(), qtest.Same("codes", dst.Data, wantU8), dst.Check(),
			} {
				if err != nil {
					t.Fatalf("%+v: %v", g, err)
				}
			}
		})
	}
}

// Without places a pool gives what it gives with them, in every tier; signed
// zeros and NaN count.
func TestMaxPoolWithoutPlaces(t *testing.T) {
	r := newRand(2)
	for i := range 150 {
		d := randomDepthwise(r)
		g := PoolGeom{H: d.H, W: d.W, C: d.Cin, KH: d.KH, KW: d.KW, StrideH: d.StrideH, StrideW: d.StrideW, PadTop: d.PadTop, PadLeft: d.PadLeft, PadBottom: d.PadBottom, PadRight: d.PadRight}
		if g.Check() != nil {
			continue
		}
		n := 1 + i%2
		x, codes := make([]float32, n*g.inSize()), make([]uint8, n*g.inSize())
		randomF32(r, x, true)
		randomCodes(r, codes)
		if i%3 == 0 {
			x[r.IntN(len(x))] = float32(math.NaN())
		}
		want, wantU8, arg := make([]float32, n*g.outSize()), make([]uint8, n*g.outSize()), make([]uint8, n*g.outSize())
		generic().maxPoolF32(want, arg, x, n, g)
		generic().maxPoolU8(wantU8, arg, codes, n, g)
		eachTier(t, func(t *testing.T, kern *isa) {
			y, q := qtest.Guarded[float32](len(want), i), qtest.Guarded[uint8](len(want), i)
			kern.maxPoolF32(y.Data, nil, x, n, g)
			kern.maxPoolU8(q.Data, nil, codes, n, g)
			for _, err := range []error{qtest.SameBits("values", y.Data, want), y.Check(), qtest.Same("codes", q.Data, wantU8), q.Check()} {
				if err != nil {
					t.Fatalf("%+v: %v", g, err)
				}
			}
		})
	}
}

func TestScaleShiftIsTheSameInAllTiers(t *testing.T) {
	r := newRand(3)
	for _, channels := range []int{0, 1, 10, 16, 33, 64, 1030} {
		for _, rows := range []int{0, 1, 7, 50} {
			x := make([]float32, rows*max(channels, 3))
			randomF32(r, x, false)
			var mul, add []float32
			if channels > 0 {
				mul, add = make([]float32, channels), make([]float32, channels)
				randomF32(r, mul, false)
				randomF32(r, add, false)
			}
			for i := range x {
				switch r.IntN(8) {
				case 0:
					x[i] *= 1e-6 // subnormal in fp16
				case 1:
					x[i] = float32(math.Copysign(0, float64(x[i])))
				}
			}
			for _, a := range []After{{}, {ReLU: true}, {ReLU: true, Limit: 0.7}} {
				for _, a.Round = range []Rounding{RoundNone, RoundF16, RoundBF16} {
					for _, fault := range []float32{0, float32(math.NaN()), 1e38, float32(math.Inf(1)), float32(math.Inf(-1))} {
						y := append([]float32(nil), x...)
						if len(y) > 0 {
							y[len(y)/2] = fault
							y[len(y)/3] = fault
						}
						want := make([]float32, len(y))
						bad := generic().scaleShift(want, y, mul, add, channels, a)
						eachTier(t, func(t *testing.T, kern *isa) {
							got := qtest.Guarded[float32](len(y), channels)
							m, s := mul, add
							if mul != nil && fault == 0 { // all lengths of stream
								m, s = slices.Repeat(mul, 1+len(y)%64), slices.Repeat(add, 1+len(y)%64)
							}
							if mul != nil && math.IsInf(float64(fault), 1) {
								m, s = slices.Repeat(mul, 64), slices.Repeat(add, 64)
							}
							if b := kern.scaleShift(got.Data, y, m, s, channels, a); b != bad {
								t.Fatalf("%d channels, %+v, with %v: first fault at %d, want %d", channels, a, fault, b, bad)
							}
							checked := len(y)
							if bad >= 0 {
								checked = bad + 1
							}
							if err := qtest.SameBits("y", got.Data[:checked], want[:checked]); err != nil {
								t.Fatalf("%d channels, %d rows, %+v, with %v: %v", channels, rows, a, fault, err)
							}
							if err := got.Check(); err != nil {
								t.Fatal(err)
							}
						})
					}
				}
			}
		}
	}
}

func TestSumsAndMeansAreTheSameInAllTiers(t *testing.T) {
	r := newRand(4)
	for _, channels := range []int{1, 15, 16, 17, 64} {
		for _, cells := range []int{1, 4, 49} {
			const n = 3
			x, values := make([]uint8, n*cells*channels), make([]float32, n*cells*channels)
			randomCodes(r, x)
			randomF32(r, values, false)
			other := make([]uint8, len(x))
			randomCodes(r, other)
			a, b := Term{x, 7, 0.5}, Term{other, 130, 0.25}
			sums, means, codes := make([]int32, n*channels), make([]float32, n*channels), make([]uint8, len(x))
			generic().meanSums(sums, x, 9, n, cells, channels)
			generic().globalAvg(means, values, n, cells, channels)
			generic().addRequant(codes, a, b, 100, 90, 200)
			scaled, trained, mask := make([]float32, len(x)), make([]uint8, len(x)), make([]uint8, MaskLen(len(x)))
			generic().addScaled(scaled, a, b)
			relu := cells > 1
			stats := generic().addRequantTrain(trained, mask, a, b, 100, 90, 200, relu)
			eachTier(t, func(t *testing.T, kern *isa) {
				gs, gm, gc := qtest.Guarded[int32](len(sums), 1), qtest.Guarded[float32](len(means), 1), qtest.Guarded[uint8](len(codes), 1)
				kern.meanSums(gs.Data, x, 9, n, cells, channels)
				kern.globalAvg(gm.Data, values, n, cells, channels)
				kern.addRequant(gc.Data, a, b, 100, 90, 200)
				ga, gt, gk := qtest.Guarded[float32](len(x), 1), qtest.Guarded[uint8](len(x), 1), qtest.Guarded[uint8](len(mask), 1)
				kern.addScaled(ga.Data, a, b)
				if st := kern.addRequantTrain(gt.Data, gk.Data, a, b, 100, 90, 200, relu); st != stats {
					t.Fatalf("%d cells of %d channels: extremes %v, want %v", cells, channels, st, stats)
				}
				for _, err := range []error{
					qtest.Same("sums", gs.Data, sums), gs.Check(), qtest.SameBits("means", gm.Data, means), gm.Check(), qtest.Same("codes", gc.Data, codes), gc.Check(),
					qtest.SameBits("sums in units of the scale", ga.Data, scaled), ga.Check(), qtest.Same("trained codes", gt.Data, trained), gt.Check(),
					qtest.Same("mask", gk.Data, mask), gk.Check(),
				} {
					if err != nil {
						t.Fatalf("%d cells of %d channels: %v", cells, channels, err)
					}
				}
			})
		}
	}
}

func ExampleScaleShift() {
	y := []float32{-1, 0.3333333, 5, 100000}
	bad := ScaleShift(y, y, []float32{1, 2}, []float32{0, 1}, 2, After{ReLU: true, Round: RoundF16})
	fmt.Println(y, bad)
	// Output: [0 1.6669922 5 200001] 3
}
