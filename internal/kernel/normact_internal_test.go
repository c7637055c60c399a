package kernel

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

// apart is NormAct in the steps of a graph whose parts are separate.
func apart(a NormAct, v, mean, inv, gamma, beta []float32) (y []float32) {
	y = make([]float32, len(v))
	generic().normalize(y, v, mean, inv, gamma, beta, len(mean))
	if a.ReLU && a.Cap > 0 {
		generic().scaleShift(y, y, nil, nil, 0, After{ReLU: true, Limit: a.Cap})
	} else if a.ReLU {
		generic().relu(y, y)
	}
	return y
}

// behind is the gradient dy behind the activation whose output is y.
func behind(a NormAct, dy, y []float32) []float32 {
	dx := append([]float32(nil), dy...)
	if a.ReLU && a.Cap > 0 {
		generic().reluCapGrad(dx, dy, y, a.Cap)
	} else if a.ReLU {
		generic().reluGrad(dx, dy, y)
	}
	return dx
}

// What follows a product in one pass has the bits of its parts, in every tier.
func TestNormActIsItsParts(t *testing.T) {
	for _, channels := range []int{1, 3, 8, 16, 20, 33, 64, 1040} {
		for _, r := range []int{0, 1, 5, 37, 70, 300} {
			rng := newRand(uint64(r + channels))
			n := r * channels
			if n > 80000 {
				continue
			}
			v, dy := make([]float32, n), make([]float32, n)
			mean, inv, gamma, beta := make([]float32, channels), make([]float32, channels), make([]float32, channels), make([]float32, channels)
			for _, x := range [][]float32{v, dy, mean, inv, gamma, beta} {
				randomF32(rng, x, false)
			}
			if n > 2 {
				v[1], v[2] = float32(math.Inf(1)), float32(math.Inf(-1))
			}
			var p NormParams
			p.Set(mean, inv, gamma, beta)
			const scale, zero, lo, hi = 0.01, 7, 7, 90
			for _, a := range []NormAct{{Norm: &p}, {Norm: &p, ReLU: true}, {Norm: &p, ReLU: true, Cap: 0.75}, {Norm: &p, ReLU: true, Cap: 1.5}} {
				// limits within the grid, and outside
				y := apart(a, v, mean, inv, gamma, beta)
				pass := behind(a, dy, y)
				codes, mask := make([]uint8, n), make([]uint8, MaskLen(n))
				generic().quantizeU8(codes, mask, y, scale, zero, lo, hi)
				masked := make([]float32, n)
				generic().maskGrad(masked, pass, mask)
				least, most, _ := minMaxGeneric(y)
				up := make([]uint8, MaskLen(n))
				randomCodes(rng, up)
				upward := make([]float32, n)
				generic().maskGrad(upward, dy, up)
				inverse := float32(1) / scale
				total := generic().scaleGradU8(dy, nil, y, inverse, codes, mask, zero)
				behindUp := generic().scaleGradU8(upward, nil, y, inverse, codes, mask, zero)
				eachTier(t, func(t *testing.T, kern *isa) {
					name := fmt.Sprintf("%d rows of %d channels, ReLU %t, limit %v", r, channels, a.ReLU, a.Cap)
					gotY, gotMask := qtest.Guarded[float32](n, r), qtest.Guarded[uint8](MaskLen(n), r)
					kern.normValues(&a, gotY.Data, gotMask.Data, v)
					back := make([]float32, n)
					generic().maskGrad(back, dy, gotMask.Data)
					err := errors.Join(qtest.SameBits("y", gotY.Data, y), gotY.Check(), gotMask.Check(), qtest.SameBits("gradient", back, pass))
					gotQ := qtest.Guarded[uint8](n, r)
					st, nan := kern.normQuantize(&a, gotQ.Data, gotMask.Data, v, scale, zero, lo, hi)
					generic().maskGrad(back, dy, gotMask.Data)
					err = errors.Join(err, qtest.Same("codes", gotQ.Data, codes), gotQ.Check(), gotMask.Check(), qtest.SameBits("gradient behind codes", back, masked))
					if nan != -1 || st.Min != least || st.Max != most {
						err = errors.Join(err, fmt.Errorf("NaN at %d, extremes %v, want none, %v, %v", nan, st, least, most))
					}
					for _, c := range []struct {
						up   []uint8
						want float64
					}{{nil, total}, {up, behindUp}} {
						got := kern.normScaleGrad(&a, dy, c.up, v, codes, gotMask.Data, scale, zero, lo, hi)
						if got != c.want {
							err = errors.Join(err, fmt.Errorf("gradient of the scale %v, want %v", got, c.want))
						}
					}
					if n > 0 {
						bad := append([]float32(nil), v...)
						at := n - 1 - r/2
						bad[at], bad[n-1] = float32(math.NaN()), float32(math.NaN())
						if _, nan := kern.normQuantize(&a, gotQ.Data, gotMask.Data, bad, scale, zero, lo, hi); nan != at {
							err = errors.Join(err, fmt.Errorf("first NaN at %d, want %d", nan, at))
						}
					}
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				})
			}
		}
	}
}

// Batch norm's gradient behind a mask is that of the masked gradient, in every
// tier.
func TestMaskedNormGradient(t *testing.T) {
	for _, channels := range []int{1, 3, 8, 16, 24, 33, 64, 1040} {
		for _, r := range []int{0, 1, 31, 32, 33, 300} {
			rng := newRand(uint64(r + channels))
			n := r * channels
			x, dy := make([]float32, n), make([]float32, n)
			mean, inv, gamma := make([]float32, channels), make([]float32, channels), make([]float32, channels)
			for _, v := range [][]float32{x, dy, mean, inv, gamma} {
				randomF32(rng, v, false)
			}
			mask := make([]uint8, MaskLen(n))
			randomCodes(rng, mask)
			passed := make([]float32, n)
			generic().maskGrad(passed, dy, mask)
			var p NormParams
			start := make([]float64, channels)
			for c := range start {
				start[c] = rng.NormFloat64()
			}
			p.SetGrad(mean, inv, gamma, start, start, r+1)
			// the definition: blocks of 32 rows in float32, blocks in float64
			wantG, wantB, wantDX := append([]float64(nil), start...), append([]float64(nil), start...), make([]float32, n)
			for c := range channels {
				for r0 := 0; r0 < r; r0 += 32 {
					var g, b float32
					for i := r0; i < min(r0+32, r); i++ {
						d := passed[i*channels+c]
						b += d
						g += float32(d * float32((x[i*channels+c]-mean[c])*inv[c]))
					}
					wantG[c] += float64(g)
					wantB[c] += float64(b)
				}
			}
			generic().normalizeGrad(wantDX, passed, nil, x, &p)
			eachTier(t, func(t *testing.T, kern *isa) {
				for _, m := range [][]uint8{mask, nil} {
					from := dy
					if m == nil {
						from = passed
					}
					gotG, gotB, gotDX := qtest.Guarded[float64](channels, 1), qtest.Guarded[float64](channels, 2), qtest.Guarded[float32](n, 1)
					copy(gotG.Data, start)
					copy(gotB.Data, start)
					kern.normSums(gotG.Data, gotB.Data, from, m, x, mean, inv, channels)
					kern.normalizeGrad(gotDX.Data, from, m, x, &p)
					if err := errors.Join(
						qtest.Same("dgamma", gotG.Data, wantG), qtest.Same("dbeta", gotB.Data, wantB), qtest.SameBits("dx", gotDX.Data, wantDX),
						gotG.Check(), gotB.Check(), gotDX.Check(),
					); err != nil {
						t.Fatalf("%d rows of %d channels, mask %t: %v", r, channels, m != nil, err)
					}
				}
			})
		}
	}
}
