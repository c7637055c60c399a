package kernel

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

// roundReference is D1 on one element, in float64 after the float32 division.
func roundReference(x, s float32, lo, hi int32) (q int32, in bool) {
	t := float64(x / s)
	if math.IsNaN(t) {
		return 0, false
	}
	r := math.RoundToEven(t)
	in = r >= float64(lo) && r <= float64(hi)
	return int32(math.Min(math.Max(r, float64(lo)), float64(hi))), in
}

// awkward fills x with halves, limits and non-finite values of a grid of
// scale s, and noise.
func awkward(seed uint64, x []float32, s float32, lo, hi int32) {
	r := newRand(seed)
	for i := range x {
		switch r.IntN(4) {
		case 0:
			x[i] = float32(r.NormFloat64()) * s * 40
		case 1: // a half, or one float32 step beside it
			h := (float32(r.Int32N(hi-lo+3)+lo-1) + 0.5) * s
			x[i] = []float32{h, math.Nextafter32(h, -1e9), math.Nextafter32(h, 1e9)}[r.IntN(3)]
		case 2:
			x[i] = float32(r.Int32N(hi-lo+5)+lo-2) * s
		default:
			x[i] = []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)),
				1e38, -1e38, math.SmallestNonzeroFloat32, 4194304 * s, -8388609 * s}[r.IntN(9)]
		}
	}
}

func TestQuantizeMatchesTheDefinition(t *testing.T) {
	grids := [][3]int32{{0, 0, 255}, {128, 0, 255}, {200, 1, 255}, {7, 0, 15}, {1, 0, 2}}
	scales := []float32{0.25, 0.1, 1e-3, 3, 0.00214854861}
	lengths := []int{0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 1000}
	eachTier(t, func(t *testing.T, kern *isa) {
		for gi, g := range grids {
			for si, s := range scales {
				for li, n := range lengths {
					shift := (gi + si + li) % 9
					src := qtest.Guarded[float32](n, shift)
					x := src.Data
					awkward(uint64(gi*100+si*10+li), x, s, g[1]-g[0], g[2]-g[0])
					name := fmt.Sprintf("grid %v scale %v n=%d", g, s, n)
					codes, mask := qtest.Guarded[uint8](n, shift), qtest.Guarded[uint8](MaskLen(n), shift)
					fq, fqMask := qtest.Guarded[float32](n, shift), qtest.Guarded[uint8](MaskLen(n), shift)
					if nan := kern.quantizeU8(codes.Data, mask.Data, x, s, g[0], g[1], g[2]); nan != -1 {
						t.Fatalf("%s: NaN reported at %d", name, nan)
					}
					if nan := kern.fakeQuant(fq.Data, fqMask.Data, x, s, g[0], g[1], g[2]); nan != -1 {
						t.Fatalf("%s: NaN reported at %d", name, nan)
					}
					for i, v := range x {
						q, in := roundReference(v, s, g[1]-g[0], g[2]-g[0])
						if got := mask.Data[i/8]>>(i%8)&1 == 1; int32(codes.Data[i]) != q+g[0] || got != in {
							t.Fatalf("%s: x=%v: code %d mask %v, want %d %v", name, v, codes.Data[i], got, q+g[0], in)
						}
						got := fqMask.Data[i/8]>>(i%8)&1 == 1
						if want := float32(q) * s; math.Float32bits(fq.Data[i]) != math.Float32bits(want) || got != in {
							t.Fatalf("%s: x=%v: value %v mask %v, want %v %v", name, v, fq.Data[i], got, want, in)
						}
					}
					if n%8 != 0 && mask.Data[n/8]>>(n%8) != 0 {
						t.Fatalf("%s: mask bits beyond the end are set", name)
					}
					for _, err := range []error{codes.Check(), mask.Check(), fq.Check(), fqMask.Check(), src.Check()} {
						if err != nil {
							t.Fatalf("%s: %v", name, err)
						}
					}
					again := make([]uint8, n)
					kern.quantizeU8(again, nil, x, s, g[0], g[1], g[2])
					if err := qtest.Same("codes without a mask", again, codes.Data); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					kern.fakeQuant(x, nil, x, s, g[0], g[1], g[2])
					if err := qtest.SameBits("in place", x, fq.Data); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
			}
		}
	})
}

func TestQuantizeChannelsMatchesTheDefinition(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, channels := range []int{1, 2, 3, 8, 15, 16, 17, 32, 33, 64, 70} {
			for _, r := range []int{0, 1, 2, 5, 9} {
				for _, lim := range []int32{1, 7, 127} {
					n := channels * r
					scale := make([]float32, channels)
					x := make([]float32, n)
					rng := newRand(uint64(n))
					for c := range scale {
						scale[c] = float32(math.Exp2(4 - 8*rng.Float64()))
					}
					awkward(uint64(n), x, 1, -lim, lim)
					for i := range x {
						x[i] *= scale[i%channels]
					}
					codes, mask := qtest.Guarded[int8](n, channels%7), qtest.Guarded[uint8](MaskLen(n), 1)
					fq, fqMask := qtest.Guarded[float32](n, channels%5), qtest.Guarded[uint8](MaskLen(n), 2)
					a := kern.quantizeS8(codes.Data, mask.Data, x, scale, -lim, lim)
					b := kern.fakeQuantChannels(fq.Data, fqMask.Data, x, scale, -lim, lim)
					if want := slices.IndexFunc(x, notFinite); a != want || b != -1 {
						t.Fatalf("channels=%d rows=%d: reported at %d and %d, want %d (an infinity) and -1", channels, r, a, b, want)
					}
					for i, v := range x {
						s := scale[i%channels]
						q, in := roundReference(v, s, -lim, lim)
						m1, m2 := mask.Data[i/8]>>(i%8)&1 == 1, fqMask.Data[i/8]>>(i%8)&1 == 1
						if int32(codes.Data[i]) != q || m1 != in || m2 != in || math.Float32bits(fq.Data[i]) != math.Float32bits(float32(q)*s) {
							t.Fatalf("channels=%d lim=%d x=%v s=%v: code %d value %v masks %v %v, want %d %v",
								channels, lim, v, s, codes.Data[i], fq.Data[i], m1, m2, q, in)
						}
					}
					for _, err := range []error{codes.Check(), mask.Check(), fq.Check(), fqMask.Check()} {
						if err != nil {
							t.Fatalf("channels=%d rows=%d: %v", channels, r, err)
						}
					}
				}
			}
		}
	})
}

// Codes are those of the division for any scale that float32 holds, for any limits, and for numbers as near to halves as
// there are.
func TestQuantizeRoundsTheQuotient(t *testing.T) {
	scales := []float32{math.SmallestNonzeroFloat32, 5e-45, 1e-44, 0x1p-140, 0x1.8p-130, 0x1p-126, 1e-37, 1e-30, 0x1p-23, 0.9999999, 1e20, 0x1p100, 3e38, math.MaxFloat32}
	r := newRand(5)
	for range 400 {
		scales = append(scales, float32(math.Exp2(12*r.Float64()-8)), math.Float32frombits(1+r.Uint32N(0x7f7fffff)))
	}
	eachTier(t, func(t *testing.T, kern *isa) {
		const n = 1024
		x, s8, u8, fq, mask := make([]float32, n), make([]int8, n), make([]uint8, n), make([]float32, n), make([]uint8, n/8)
		for si, s := range scales {
			for _, lim := range []int32{1, 7, 127, 255, 32767} {
				for i := range x {
					k := float64(r.Int32N(2*lim+5)-lim-2) + 0.5*float64(r.IntN(2))
					bits := int32(math.Float32bits(float32(k*float64(s)))) + r.Int32N(9) - 4
					if x[i] = math.Float32frombits(uint32(bits)); notFinite(x[i]) {
						x[i] = 0
					}
				}
				check := func(i int, what string, got, lo, hi int32) {
					q, in := roundReference(x[i], s, lo, hi)
					if got != q || (mask[i/8]>>(i%8)&1 == 1) != in {
						t.Fatalf("scale %d: %s of %v / %v: %d, inside %t, want %d, %t", si, what, x[i], s, got, mask[i/8]>>(i%8)&1 == 1, q, in)
					}
				}
				if lim <= 127 {
					if odd := kern.quantizeS8(s8, mask, x, []float32{s}, -lim, lim); odd != -1 {
						t.Fatalf("scale %v: %v at %d was called odd", s, x[odd], odd)
					}
					for i, q := range s8 {
						check(i, "int8", int32(q), -lim, lim)
					}
				}
				if lim <= 255 {
					kern.quantizeU8(u8, mask, x, s, 0, 0, lim)
					for i, q := range u8 {
						check(i, "uint8", int32(q), 0, lim)
					}
				}
				kern.fakeQuantChannels(fq, mask, x, []float32{s}, -lim, lim)
				for i := range fq {
					q, _ := roundReference(x[i], s, -lim, lim)
					check(i, "value", q, -lim, lim)
					if math.Float32bits(fq[i]) != math.Float32bits(float32(q)*s) {
						t.Fatalf("scale %v: value of %v is %v, want %v", s, x[i], fq[i], float32(q)*s)
					}
				}
			}
		}
	})
}

func TestQuantizeReportsTheFirstNaN(t *testing.T) {
	nan := float32(math.NaN())
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, n := range []int{1, 15, 16, 17, 33, 100} {
			for _, at := range []int{0, n / 2, n - 1} {
				x := make([]float32, n)
				randomF32(newRand(uint64(n)), x, false)
				x[at], x[n-1] = nan, nan
				y, q8, s8, mask := make([]float32, n), make([]uint8, n), make([]int8, n), make([]uint8, MaskLen(n))
				one := []float32{0.5}
				got := []int{
					kern.quantizeU8(q8, mask, x, 0.5, 10, 0, 255),
					kern.quantizeS8(s8, mask, x, one, -127, 127),
					kern.fakeQuantChannels(y, mask, x, one, -127, 127),
					kern.fakeQuant(y, mask, x, 0.5, 10, 0, 255),
				}
				for i, g := range got {
					if g != at {
						t.Errorf("n=%d: kernel %d reports %d, want %d", n, i, g, at)
					}
				}
				if y[at] != 0 || q8[at] != 10 || s8[at] != 0 || mask[at/8]>>(at%8)&1 != 0 {
					t.Errorf("n=%d: NaN became value %v, codes %d %d, mask %x", n, y[at], q8[at], s8[at], mask)
				}
				_, _, a := kern.minMax(x)
				b := kern.absMaxChannels(make([]float32, 1), x, 1)
				c := kern.minMaxChannels(make([]float32, 1), make([]float32, 1), x, 1)
				if a != at || b != at || c != at {
					t.Errorf("n=%d: observers report NaN at %d, %d, %d, want %d", n, a, b, c, at)
				}
			}
		}
	})
}

// Quotients next to a half must be rounded right before they are rounded to integers, also where the kernel multiplies
// by reciprocals; and scales or values at the limits of float32 must not disturb it.
func TestQuotientsNearHalves(t *testing.T) {
	const channels = 64
	r := newRand(11)
	for _, exponent := range []int{0, -7, 9, -59, 58, -70, -130, 70, 120} {
		scale := make([]float32, channels)
		for c := range scale {
			scale[c] = float32(math.Ldexp(1+r.Float64(), exponent))
		}
		var x []float32
		for n := -130; n <= 130; n++ {
			for off := -3; off <= 3; off++ {
				for _, s := range scale {
					v := float32((float64(n) + 0.5) * float64(s))
					x = append(x, math.Float32frombits(uint32(int32(math.Float32bits(v))+int32(off))))
				}
			}
		}
		checkQuotients(t, x, scale, -127, 127)
		checkQuotients(t, x, scale, -128, 120)
		for _, v := range []float32{0, math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, 0x1p-126} {
			for range scale {
				x = append(x, v)
			}
		}
		checkQuotients(t, x, scale, -8, 7)
	}
}

// plainNorm leaves values as they are.
func plainNorm(channels int) *NormParams {
	zero, one := make([]float32, channels), make([]float32, channels)
	fill(one, 1)
	var p NormParams
	p.Set(zero, one, one, zero)
	return &p
}

// Codes, mask and extremes of training are those of their definitions in every tier, for any length, infinities and NaN.
func TestQuantizeTrain(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		for i, n := range append(lengths, 0) {
			for _, special := range [][]float32{nil, {float32(math.Inf(1))}, {float32(math.Inf(-1)), 3e38}, {float32(math.NaN())}, {1, float32(math.NaN()), float32(math.Inf(1))}} {
				r := newRand(uint64(n + i))
				x := make([]float32, n)
				randomF32(r, x, false)
				for _, v := range special {
					if n > 0 {
						x[r.IntN(n)] = v
					}
				}
				for _, scale := range []float32{0.01, 1e-30, 1e30} {
					codes, mask := qtest.Guarded[uint8](n, i), qtest.Guarded[uint8](MaskLen(n), i)
					want, wantMask := make([]uint8, n), make([]uint8, MaskLen(n))
					st, nan := kern.quantizeTrain(codes.Data, mask.Data, x, scale, 7, 0, 90)
					wantNaN := generic().quantizeU8(want, wantMask, x, scale, 7, 0, 90)
					if nan != wantNaN {
						t.Fatalf("n=%d scale=%v %v: NaN at %d, want %d", n, scale, special, nan, wantNaN)
					}
					if err := errors.Join(codes.Check(), mask.Check()); err != nil {
						t.Fatalf("n=%d: %v", n, err)
					}
					if nan >= 0 {
						continue
					}
					least, most, _ := minMaxGeneric(x)
					if err := errors.Join(qtest.Same("codes", codes.Data, want), qtest.Same("mask", mask.Data, wantMask)); err != nil || n > 0 && (st.Min != least || st.Max != most) {
						t.Fatalf("n=%d scale=%v %v: extremes %v, want %v and %v: %v", n, scale, special, st, least, most, err)
					}
				}
			}
		}
	})
}

// checkQuotients compares the quantizers with the definition.
func checkQuotients(t *testing.T, x, scale []float32, lo, hi int32) {
	t.Helper()
	eachTier(t, func(t *testing.T, kern *isa) {
		n := len(x)
		s8, u8, mask, values := make([]int8, n), make([]uint8, n), make([]uint8, MaskLen(n)), make([]float32, n)
		kern.quantizeS8(s8, mask, x, scale, lo, hi)
		kern.fakeQuantChannels(values, nil, x, scale, lo, hi)
		kern.quantizeU8(u8, nil, x, scale[0], 128, lo+128, hi+128)
		for i, v := range x {
			s := scale[i%len(scale)]
			want, in := round(v, s, float32(lo), float32(hi))
			if float32(s8[i]) != want || mask[i/8]>>(i%8)&1 == 1 != in || values[i] != float32(want*s) {
				t.Fatalf("%v / %v = %v: code %d, value %v, want %v", v, s, v/s, s8[i], values[i], want)
			}
			if want, _ := round(v, scale[0], float32(lo), float32(hi)); float32(u8[i])-128 != want {
				t.Fatalf("%v / %v = %v: code %d, want %v", v, scale[0], v/scale[0], int(u8[i])-128, want)
			}
		}
		trained := qtest.Guarded[uint8](n, 3)
		trainMask, wantMask := qtest.Guarded[uint8](MaskLen(n), 1), make([]uint8, MaskLen(n))
		st, nan := kern.quantizeTrain(trained.Data, trainMask.Data, x, scale[0], 128, lo+128, hi+128)
		if at := generic().quantizeU8(u8, wantMask, x, scale[0], 128, lo+128, hi+128); at >= 0 { // beside infinity
			if nan != at {
				t.Fatalf("scale %v: NaN at %d, want %d", scale[0], nan, at)
			}
			return
		}
		least, most, _ := minMaxGeneric(x)
		if err := errors.Join(qtest.Same("codes in training", trained.Data, u8), qtest.Same("their mask", trainMask.Data, wantMask),
			trained.Check(), trainMask.Check()); err != nil || nan >= 0 || st.Min != least || st.Max != most {
			t.Fatalf("scale %v: NaN at %d, extremes %v, want %v and %v: %v", scale[0], nan, st, least, most, err)
		}
		norm := NormAct{Norm: plainNorm(16)}
		x16 := x[:n/16*16]
		st, nan = kern.normQuantize(&norm, trained.Data[:len(x16)], trainMask.Data[:MaskLen(len(x16))], x16, scale[0], 128, lo+128, hi+128)
		if err := errors.Join(qtest.Same("codes behind a norm", trained.Data, u8), qtest.Same("their mask", trainMask.Data, wantMask)); err != nil || nan >= 0 {
			t.Fatalf("scale %v: NaN at %d, extremes %v: %v", scale[0], nan, st, err)
		}
	})
}

func TestObservers(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, channels := range []int{1, 3, 10, 16, 17, 40, 100, 1000} {
			for _, r := range []int{0, 1, 2, 7, 50} {
				n := channels * r
				x := make([]float32, n)
				randomF32(newRand(uint64(n)), x, n%2 == 0)
				lo, hi := qtest.Guarded[float32](channels, 1), qtest.Guarded[float32](channels, 2)
				top := qtest.Guarded[float32](channels, 3)
				kern.minMaxChannels(lo.Data, hi.Data, x, channels)
				kern.absMaxChannels(top.Data, x, channels)
				allLo, allHi, _ := kern.minMax(x)
				var wantAllLo, wantAllHi float32
				for c := range channels {
					var wantLo, wantHi float32
					for i := range r {
						v := x[i*channels+c] + 0
						if i == 0 {
							wantLo, wantHi = v, v
						}
						wantLo, wantHi = min(wantLo, v), max(wantHi, v)
					}
					if c == 0 {
						wantAllLo, wantAllHi = wantLo, wantHi
					}
					wantAllLo, wantAllHi = min(wantAllLo, wantLo), max(wantAllHi, wantHi)
					wantTop := max(-wantLo, wantHi) + 0
					got := []float32{lo.Data[c], hi.Data[c], top.Data[c]}
					if err := qtest.SameBits("lo, hi, top", got, []float32{wantLo + 0, wantHi + 0, wantTop}); err != nil {
						t.Fatalf("channels=%d rows=%d: %v", channels, r, err)
					}
				}
				if err := qtest.SameBits("extremes", []float32{allLo, allHi}, []float32{wantAllLo + 0, wantAllHi + 0}); err != nil {
					t.Fatalf("channels=%d rows=%d: %v", channels, r, err)
				}
				for _, err := range []error{lo.Check(), hi.Check(), top.Check()} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		lo, hi, _ := kern.minMax([]float32{float32(math.Copysign(0, -1))})
		if math.Signbit(float64(lo)) || math.Signbit(float64(hi)) {
			t.Error("the extremes of -0 carry a sign")
		}
	})
	if top, nan := AbsMax([]float32{1, -3, 2}); top != 3 || nan != -1 {
		t.Errorf("AbsMax = %v, %d", top, nan)
	}
}

func TestScaleGradChannelsIsScaleGradPerChannel(t *testing.T) {
	const channels, r = 5, 40
	rng := newRand(2)
	x, dy, scale := make([]float32, channels*r), make([]float32, channels*r), make([]float32, channels)
	randomF32(rng, x, false)
	randomF32(rng, dy, false)
	for c := range scale {
		scale[c] = 0.01 * float32(c+1)
	}
	got := make([]float64, channels)
	ScaleGradChannels(got, dy, x, scale, -7, 7)
	for c := range channels {
		var one, g []float32
		for i := range r {
			one, g = append(one, x[i*channels+c]), append(g, dy[i*channels+c])
		}
		if want := ScaleGrad(g, one, scale[c], -7, 7); math.Abs(got[c]-want) > 1e-4*math.Max(1, math.Abs(want)) {
			t.Errorf("channel %d: %v, want %v", c, got[c], want)
		}
	}
}

func TestDequantize(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		y := make([]float32, 4)
		kern.dequantizeU8(y, []uint8{0, 128, 255, 130}, []float32{0.5}, 128)
		if err := qtest.SameBits("u8", y, []float32{-64, 0, 63.5, 1}); err != nil {
			t.Error(err)
		}
		kern.dequantizeS8(y, []int8{-127, 2, 3, 4}, []float32{1, 0.25})
		if err := qtest.SameBits("s8", y, []float32{-127, 0.5, 3, 1}); err != nil {
			t.Error(err)
		}
		for _, channels := range []int{1, 7, 16, 48, 70} {
			r := newRand(uint64(channels))
			n := channels * 9
			u, s, scale := make([]uint8, n), make([]int8, n), make([]float32, channels)
			randomCodes(r, u)
			randomCodes(r, s)
			randomF32(r, scale, false)
			fromU, fromS := qtest.Guarded[float32](n, 1), qtest.Guarded[float32](n, 2)
			kern.dequantizeU8(fromU.Data, u, scale, 77)
			kern.dequantizeS8(fromS.Data, s, scale)
			for i := range n {
				f := scale[i%channels]
				if got, want := fromU.Data[i], float32(int32(u[i])-77)*f; got != want {
					t.Fatalf("channels=%d: u8 %d became %v, want %v", channels, u[i], got, want)
				}
				if got, want := fromS.Data[i], float32(s[i])*f; got != want {
					t.Fatalf("channels=%d: s8 %d became %v, want %v", channels, s[i], got, want)
				}
			}
			columns := 1 + r.IntN(channels)
			cut := qtest.Guarded[float32](9*columns, 3)
			kern.dequantizeColumns(cut.Data, u[channels-columns:], channels, columns, 9, 0.3, 77)
			for i, v := range cut.Data {
				q := u[i/columns*channels+channels-columns+i%columns]
				if want := float32(int32(q)-77) * 0.3; v != want {
					t.Fatalf("%d of %d columns: %d became %v, want %v", columns, channels, q, v, want)
				}
			}
			if err := errors.Join(fromU.Check(), fromS.Check(), cut.Check()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Halves go to even, the mask is on the rounded value, infinities saturate.
func ExampleFakeQuant() {
	x := []float32{0.25, 0.75, 127.74, 200, float32(math.Inf(-1))}
	y, mask := make([]float32, len(x)), make([]uint8, MaskLen(len(x)))
	nan := FakeQuant(y, mask, x, 0.5, 0, -255, 255)
	fmt.Printf("%v %05b %d\n", y, mask[0], nan)
	// Output: [0 1 127.5 127.5 -127.5] 00111 -1
}
