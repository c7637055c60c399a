package kernel

import (
	"errors"
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

// Sums and masked gradients are the same bits in every tier, and the sums are
// those of the definition in float64 on what was quantized, dy*(q - x/s) inside
// and dy*q outside.
func TestScaleGradCodes(t *testing.T) {
	gen := generic()
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, channels := range []int{1, 5, 10, 16, 24, 70, 100, 256, 1040} {
			for _, r := range []int{0, 1, 3, 31, 32, 33, 100} {
				for _, lim := range []int32{1, 7, 127} {
					rng := newRand(uint64(r + channels))
					n := r * channels
					x, dy := make([]float32, n), make([]float32, n)
					scale, inverse := make([]float32, channels), make([]float32, channels)
					for c := range scale {
						scale[c] = float32(math.Exp2(4 - 8*rng.Float64()))
						inverse[c] = 1 / scale[c]
					}
					randomF32(rng, dy, false)
					for i := range x { // a tenth is outside
						x[i] = scale[i%channels] * (float32(lim) + 0.5) * 1.1 * float32(2*rng.Float64()-1)
					}
					codes, mask := make([]int8, n), make([]uint8, MaskLen(n))
					if nan := gen.quantizeS8(codes, mask, x, scale, -lim, lim); nan >= 0 {
						t.Fatalf("NaN at %d", nan)
					}
					exact, size := make([]float64, channels), make([]float64, channels)
					passed := make([]float32, n)
					gen.maskGrad(passed, dy, mask)
					for i, v := range x {
						c := i % channels
						slope := float64(codes[i])
						if mask[i/8]>>(i%8)&1 == 1 {
							slope -= float64(v) / float64(scale[c])
						}
						exact[c] += float64(dy[i]) * slope
						size[c] += math.Abs(float64(dy[i])) * float64(lim)
					}
					var s Scratch
					want, got := make([]float64, channels), qtest.Guarded[float64](channels, 1)
					for c := range want { // what was there
						want[c] = rng.NormFloat64()
						exact[c] += want[c]
					}
					copy(got.Data, want)
					gen.addScaleGradCodes(want, append([]float32(nil), dy...), x, inverse, codes, mask, &s)
					masked := qtest.Guarded[float32](n, channels%5)
					copy(masked.Data, dy)
					kern.addScaleGradCodes(got.Data, masked.Data, x, inverse, codes, mask, &s)
					if err := errors.Join(qtest.Same("sums", got.Data, want), got.Check(), masked.Check(),
						qtest.SameBits("masked gradient", masked.Data, passed)); err != nil {
						t.Fatalf("channels=%d rows=%d lim=%d: %v", channels, r, lim, err)
					}
					for c := range exact { // a slope's error is a few units in the last place of x/s, and so is a block's
						if math.Abs(got.Data[c]-exact[c]) > 4e-7*size[c] {
							t.Fatalf("channels=%d rows=%d lim=%d: sum %v, want %v", channels, r, lim, got.Data[c], exact[c])
						}
					}
				}
			}
		}
	})
}

// The gradient of one scale from codes and mask is the same bits in every tier, and that of the values, dy*(rint(x/s) - x/s)
// inside and dy times the limit outside.
func TestScaleGradU8(t *testing.T) {
	gen := generic()
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, n := range []int{0, 1, 7, 15, 16, 17, 160, 4095, 4096, 4097, 9000} {
			for _, g := range []struct{ zero, lo, hi int32 }{{0, 0, 255}, {0, 0, 1}, {128, 0, 255}, {3, 1, 15}, {255, 0, 255}} {
				rng := newRand(uint64(n) + uint64(g.hi))
				x, dy := make([]float32, n), make([]float32, n)
				randomF32(rng, dy, false)
				scale := float32(math.Exp2(4 - 8*rng.Float64()))
				for i := range x { // some are outside on either side
					x[i] = scale * (float32(g.lo-g.zero) - 0.1*float32(g.hi) + 1.2*float32(g.hi-g.lo)*float32(rng.Float64()))
				}
				codes, mask := make([]uint8, n), make([]uint8, MaskLen(n))
				if nan := gen.quantizeU8(codes, mask, x, scale, g.zero, g.lo, g.hi); nan >= 0 {
					t.Fatalf("NaN at %d", nan)
				}
				got := kern.scaleGradU8(dy, nil, x, 1/scale, codes, mask, g.zero)
				if want := gen.scaleGradU8(dy, nil, x, 1/scale, codes, mask, g.zero); got != want {
					t.Fatalf("n=%d %+v: sum %v, want %v", n, g, got, want)
				}
				up, passed := make([]uint8, MaskLen(n)), make([]float32, n)
				randomCodes(rng, up)
				gen.maskGrad(passed, dy, up)
				behind, want := kern.scaleGradU8(dy, up, x, 1/scale, codes, mask, g.zero), gen.scaleGradU8(passed, nil, x, 1/scale, codes, mask, g.zero)
				if behind != want {
					t.Fatalf("n=%d %+v: sum behind a mask %v, want %v", n, g, behind, want)
				}
				exact, size := 0.0, 0.0
				for i, v := range x {
					u := float64(v) / float64(scale)
					slope := math.RoundToEven(float64(v/scale)) - u
					switch r := math.RoundToEven(float64(v / scale)); {
					case r < float64(g.lo-g.zero):
						slope = float64(g.lo - g.zero)
					case r > float64(g.hi-g.zero):
						slope = float64(g.hi - g.zero)
					}
					exact += float64(dy[i]) * slope
					size += math.Abs(float64(dy[i])) * float64(g.hi)
				}
				if math.Abs(got-exact) > 4e-7*size {
					t.Fatalf("n=%d %+v: sum %v, want %v", n, g, got, exact)
				}
			}
		}
	})
}

// The gradient of one scale from accumulators is that of their values, and the same bits in every tier.
func TestScaleGradRows(t *testing.T) {
	gen := generic()
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, channels := range []int{1, 5, 10, 16, 24, 33, 256, 1040, 5000} {
			for _, r := range []int{0, 1, 3, 16, 33} {
				rng := newRand(uint64(r + channels))
				n := r * channels
				dy, m := make([]float32, n), make([]float32, channels)
				randomF32(rng, dy, false)
				acc, bias := make([]int32, n), make([]int32, channels)
				for i := range acc {
					acc[i] = int32(rng.IntN(60000)) - 30000
				}
				for c := range m {
					m[c], bias[c] = 0.003+0.005*rng.Float32(), int32(rng.IntN(2000))
				}
				codes, mask, values := make([]uint8, n), make([]uint8, MaskLen(n)), make([]float32, n)
				for _, b := range [][]int32{nil, bias} {
					const zero, lo, hi = 7, 7, 200
					gen.requantTrain(codes, mask, acc, b, m, zero, lo, hi, true, channels)
					gen.scaleRows(values, acc, b, m, channels)
					got := kern.scaleGradRows(dy, acc, b, m, codes, mask, zero)
					if want := gen.scaleGradRows(dy, acc, b, m, codes, mask, zero); got != want {
						t.Fatalf("%d rows of %d channels: sum %v, want %v", r, channels, got, want)
					}
					exact, size := 0.0, 0.0
					for i, v := range values {
						slope := float64(codes[i]) - zero
						if mask[i/8]>>(i%8)&1 == 1 {
							slope -= float64(v)
						}
						exact += float64(dy[i]) * slope
						size += math.Abs(float64(dy[i])) * hi
					}
					if math.Abs(got-exact) > 4e-7*size {
						t.Fatalf("%d rows of %d channels: sum %v, want %v", r, channels, got, exact)
					}
				}
			}
		}
	})
}
