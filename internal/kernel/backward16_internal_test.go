package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

// backward16Case is a layer with random codes, scales and gradients.
type backward16Case struct {
	g      ConvGeom
	n      int // images or rows
	x      []uint8
	zero   int32
	w      []int8
	scale  []float32
	sx     float32
	dy     []float32
	spread float64 // of the gradients' magnitudes, in powers of e
}

func newBackward16Case(g ConvGeom, n int, seed uint64) *backward16Case {
	r := newRand(seed)
	k := &backward16Case{
		g: g, n: n, x: make([]uint8, n*g.inSize()), zero: int32(r.IntN(256)), w: make([]int8, g.weightSize()),
		scale: make([]float32, g.Cout), sx: 0.02, dy: make([]float32, n*g.outSize()), spread: 2,
	}
	randomCodes(r, k.x)
	for i := range k.w {
		k.w[i] = int8(r.IntN(255) - 127)
	}
	for i := range k.scale {
		k.scale[i] = float32(0.001 + 0.02*r.Float64())
	}
	for i := range k.dy {
		if r.IntN(3) > 0 {
			k.dy[i] = float32(1e-3 * r.NormFloat64() * math.Exp(k.spread*r.NormFloat64()))
		}
	}
	return k
}

func (k *backward16Case) plan(t *testing.T, dense, needDX bool) *Backward16 {
	t.Helper()
	batch := 0
	if dense {
		batch = k.n
	}
	p, err := NewBackward16(k.g, batch, 255, 127, needDX)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run gives dw and dx of all images or rows; the cut of a dense layer's inputs is at.
func (k *backward16Case) run(t *testing.T, kern *isa, dense bool, at int) (dw, dx []float32) {
	t.Helper()
	p := k.plan(t, dense, true)
	gw, gx := qtest.Guarded[float32](len(k.w), 1), qtest.Guarded[float32](len(k.x), 3)
	dw, dx = gw.Data, gx.Data
	var s Scratch
	for range 2 { // memory is used again
		kern.begin16(p, k.w, k.scale, k.sx, &s)
		if dense {
			if !kern.rows16(p, k.dy, k.n) {
				t.Fatal("gradients are not finite")
			}
			kern.features16(p, 1, dw, dx, k.x, k.zero, k.w, 0, at)
			kern.features16(p, 0, dw, dx, k.x, k.zero, k.w, at, k.g.Cin)
			continue
		}
		in, out := k.g.inSize(), k.g.outSize()
		for i := range k.n {
			if !kern.image16(p, 0, dw, dx[i*in:(i+1)*in], k.x[i*in:(i+1)*in], k.zero, k.dy[i*out:(i+1)*out], i > 0, &s) {
				t.Fatal("gradients are not finite")
			}
		}
	}
	for _, err := range []error{gw.Check(), gx.Check()} {
		if err != nil {
			t.Error(err)
		}
	}
	return dw, dx
}

// eachTerm calls f for every product of the definition, output pixels in order: the indices of x, y and w and the pixel of
// its image (a dense layer's batch is one image).
func (k *backward16Case) eachTerm(dense bool, f func(image, pixel, x, y, w int)) {
	g := k.g
	outH, outW := g.OutH(), g.OutW()
	for i := range k.n {
		for p := range outH * outW {
			for tap := range g.KH * g.KW {
				iy, ix := p/outW*g.StrideH-g.PadTop+tap/g.KW, p%outW*g.StrideW-g.PadLeft+tap%g.KW
				if iy < 0 || iy >= g.H || ix < 0 || ix >= g.W {
					continue
				}
				for c := range g.Cin {
					for o := range g.Cout {
						image, pixel := i, p
						if dense {
							image, pixel = 0, i
						}
						f(image, pixel, ((i*g.H+iy)*g.W+ix)*g.Cin+c, (i*outH*outW+p)*g.Cout+o, (tap*g.Cin+c)*g.Cout+o)
					}
				}
			}
		}
	}
}

// definition is the same by the formulas: codes of the gradients, sums in int64, scales as documented. most is the
// greatest magnitude of a sum, and of what each gradient may be off by rounding, exactly, errW and errX.
func (k *backward16Case) definition(p *Backward16) (dw, dx []float32, most int64, dw64, dx64, errW, errX []float64) {
	g := k.g
	images, out := k.n, g.outSize()
	if p.dense {
		images, out = 1, k.n*g.Cout
	}
	codes, unit := make([]int64, len(k.dy)), make([]float32, images)
	for i := range images {
		m := float32(0x1p-100)
		for j, v := range k.dy[i*out : (i+1)*out] {
			m = max(m, float32(math.Abs(float64(v)))*k.scale[j%g.Cout])
		}
		unit[i] = m / float32(p.max)
		for j, v := range k.dy[i*out : (i+1)*out] {
			codes[i*out+j] = int64(math.RoundToEven(float64(v * (k.scale[j%g.Cout] * (float32(p.max) / m)))))
		}
	}
	dw, dx = make([]float32, len(k.w)), make([]float32, len(k.x))
	dw64, dx64 = make([]float64, len(k.w)), make([]float64, len(k.x))
	errW, errX = make([]float64, len(k.w)), make([]float64, len(k.x))
	sumW, sumX := make([]int64, len(k.w)), make([]int64, len(k.x))
	blockOf := func(image, pixel int) int { return image<<32 + pixel/(p.g.OutW()*p.lines) }
	block, of := 0, 0
	flushW := func() {
		for i, v := range sumW {
			most = max(most, v, -v)
			dw[i] += float32(float32(v) * (unit[of] * (k.sx / k.scale[i%g.Cout])))
		}
		clear(sumW)
	}
	k.eachTerm(p.dense, func(image, pixel, x, y, w int) {
		if b := blockOf(image, pixel); b != block {
			flushW()
			block = b
		}
		of = image
		q := int64(k.x[x]) - int64(k.zero)
		sumW[w] += codes[y] * q
		sumX[x] += codes[y] * int64(k.w[w])
		if !p.whole && y%g.Cout == g.Cout-1 { // the end of a tap
			most = max(most, sumX[x], -sumX[x])
			dx[x] += float32(float32(sumX[x]) * unit[image])
			sumX[x] = 0
		}
		c := w % g.Cout
		dw64[w] += float64(k.dy[y]) * float64(k.sx) * float64(q)
		dx64[x] += float64(k.dy[y]) * float64(k.scale[c]) * float64(k.w[w])
		step := 0.51*float64(unit[image]) + 1e-6*math.Abs(float64(k.dy[y]*k.scale[c]))
		errW[w] += step * math.Abs(float64(q)) * float64(k.sx) / float64(k.scale[c])
		errX[x] += step * math.Abs(float64(k.w[w]))
	})
	flushW()
	for x, v := range sumX {
		if most = max(most, v, -v); p.whole {
			dx[x] = float32(v) * unit[x*images/len(sumX)]
		}
	}
	return dw, dx, most, dw64, dx64, errW, errX
}

// relative is the relative distance of two vectors.
func relative(got []float32, want []float64) float64 {
	var d, n float64
	for i, v := range want {
		d += (float64(got[i]) - v) * (float64(got[i]) - v)
		n += v * v
	}
	return math.Sqrt(d / max(n, 1e-300))
}

func (k *backward16Case) check(t *testing.T, dense bool) {
	t.Helper()
	p := k.plan(t, dense, true)
	dw, dx, most, dw64, dx64, errW, errX := k.definition(p)
	if most > math.MaxInt32 {
		t.Fatalf("a sum reaches %d", most)
	}
	for i, v := range dw64 {
		if math.Abs(float64(dw[i])-v) > errW[i]*1.01 {
			t.Fatalf("dw[%d] = %v, want %v within %v", i, dw[i], v, errW[i])
		}
	}
	for i, v := range dx64 {
		if math.Abs(float64(dx[i])-v) > errX[i]*1.01 {
			t.Fatalf("dx[%d] = %v, want %v within %v", i, dx[i], v, errX[i])
		}
	}
	t.Logf("max %d, lines %d, greatest sum 2^%.1f, distance from float64: dw %.1e, dx %.1e", p.max, p.lines, math.Log2(float64(most)), relative(dw, dw64), relative(dx, dx64))
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, at := range []int{0, k.g.Cin / 2} {
			gotW, gotX := k.run(t, kern, dense, at)
			if err := qtest.SameBits("dw", gotW, dw); err != nil {
				t.Errorf("%+v: %v", k.g, err)
			}
			if err := qtest.SameBits("dx", gotX, dx); err != nil {
				t.Errorf("%+v: %v", k.g, err)
			}
		}
	})
}

// Every tier gives the bits of the definition, which is within the rounding of the gradients of float64.
func TestBackward16AgainstDefinition(t *testing.T) {
	cases := append([]ConvGeom{
		{H: 1, W: 1, Cin: 7, KH: 1, KW: 1, Cout: 3, StrideH: 1, StrideW: 1, Groups: 1},
		{H: 9, W: 10, Cin: 1, KH: 3, KW: 3, Cout: 32, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
		{H: 9, W: 9, Cin: 3, KH: 3, KW: 3, Cout: 16, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
		{H: 14, W: 14, Cin: 32, KH: 3, KW: 3, Cout: 64, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
		{H: 7, W: 7, Cin: 16, KH: 1, KW: 1, Cout: 48, StrideH: 1, StrideW: 1, Groups: 1},
		{H: 16, W: 16, Cin: 16, KH: 3, KW: 3, Cout: 16, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
		{H: 6, W: 10, Cin: 48, KH: 3, KW: 3, Cout: 32, StrideH: 1, StrideW: 1, PadTop: 2, PadLeft: 0, PadBottom: 0, PadRight: 2, Groups: 1},
		{H: 4, W: 4, Cin: 32, KH: 3, KW: 3, Cout: 48, StrideH: 1, StrideW: 1, Groups: 1}, // one tile
		{H: 8, W: 6, Cin: 16, KH: 3, KW: 3, Cout: 32, StrideH: 1, StrideW: 1, PadTop: 2, PadLeft: 2, PadBottom: 2, PadRight: 2, Groups: 1},
		{H: 60, W: 40, Cin: 16, KH: 3, KW: 3, Cout: 16, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},  // blocks of 6 lines
		{H: 2, W: 260, Cin: 16, KH: 3, KW: 3, Cout: 112, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1}, // parts of rows
		{H: 4, W: 4, Cin: 16, KH: 3, KW: 3, Cout: 128, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},   // too many filters
		{H: 40, W: 36, Cin: 2, KH: 3, KW: 3, Cout: 4, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},    // dw in blocks
	}, convCases...)
	for i, g := range cases {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if _, err := NewBackward16(g, 0, 255, 127, true); err != nil {
				if g.Groups == 1 && g.DilationH < 2 && g.DilationW < 2 {
					t.Fatal(err)
				}
				return
			}
			newBackward16Case(g, 2, uint64(i)).check(t, false)
		})
	}
}

func TestDenseBackward16AgainstDefinition(t *testing.T) {
	for i, c := range []struct{ rows, in, out int }{{1, 1, 1}, {2, 16, 16}, {3, 5, 7}, {64, 40, 10}, {63, 300, 32}, {17, 130, 48}, {1100, 33, 3}} {
		g := ConvGeom{H: 1, W: 1, Cin: c.in, KH: 1, KW: 1, Cout: c.out, StrideH: 1, StrideW: 1, Groups: 1}
		t.Run(fmt.Sprint(c), func(t *testing.T) { newBackward16Case(g, c.rows, uint64(i)).check(t, true) })
	}
}

// Gradients of any magnitude: the rounding follows the largest, and what is lost beside it is below its half step.
func TestBackward16OfExtremeGradients(t *testing.T) {
	g := ConvGeom{H: 5, W: 5, Cin: 16, KH: 3, KW: 3, Cout: 16, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1}
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		name   string
		fill   func(i int) float32
		finite bool
		zero   bool
	}{
		{"zeros", func(int) float32 { return 0 }, true, true},
		{"negative zeros", func(int) float32 { return float32(math.Copysign(0, -1)) }, true, true},
		{"denormal", func(int) float32 { return math.SmallestNonzeroFloat32 }, true, true},
		{"tiny", func(int) float32 { return 0x1p-90 }, true, false},
		{"one huge", func(i int) float32 {
			if i == 7 {
				return 1e30
			}
			return 1e-3
		}, true, false},
		{"huge", func(int) float32 { return -1e34 }, true, false},
		{"infinite", func(i int) float32 { return []float32{1, inf}[i%2] }, false, false},
		{"NaN", func(i int) float32 { return []float32{1, nan}[i/399] }, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newBackward16Case(g, 1, 5)
			for i := range k.dy {
				k.dy[i] = c.fill(i)
			}
			if !c.finite {
				eachTier(t, func(t *testing.T, kern *isa) {
					p := k.plan(t, false, true)
					var s Scratch
					kern.begin16(p, k.w, k.scale, k.sx, &s)
					if kern.image16(p, 0, make([]float32, len(k.w)), make([]float32, len(k.x)), k.x, k.zero, k.dy, false, &s) {
						t.Error("reported as finite")
					}
				})
				return
			}
			k.check(t, false)
			dw, dx := k.run(t, generic(), false, 0)
			for _, v := range append(dw, dx...) {
				if c.zero && v != 0 {
					t.Fatalf("gradient %v of nothing", v)
				}
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Fatalf("gradient %v", v)
				}
			}
		})
	}
}

// Images of any even size and any padding, channels in any sixteens: tiles in odd and even numbers of rows and columns.
func TestWinograd16OfAnyShape(t *testing.T) {
	r := newRand(17)
	for range 120 {
		g := ConvGeom{
			H: 2 + 2*r.IntN(6), W: 2 + 2*r.IntN(6), Cin: 16 + 16*r.IntN(3), KH: 3, KW: 3, Cout: 16 + 16*r.IntN(3), StrideH: 1, StrideW: 1, Groups: 1,
			PadTop: r.IntN(3), PadLeft: r.IntN(3), PadBottom: r.IntN(3), PadRight: r.IntN(3),
		}
		if !g.winograd() || g.OutH() < 2 || g.OutW() < 2 {
			continue
		}
		newBackward16Case(g, 1, r.Uint64()).check(t, false)
	}
}

// Codes that are all as great as they can be bring sums to their bounds and not beyond.
func TestBackward16AtItsBounds(t *testing.T) {
	for _, g := range []ConvGeom{
		{H: 14, W: 14, Cin: 16, Cout: 64}, {H: 16, W: 32, Cin: 16, Cout: 16}, {H: 9, W: 9, Cin: 5, Cout: 64}, {H: 32, W: 32, Cin: 2, Cout: 3},
	} {
		g.KH, g.KW, g.StrideH, g.StrideW, g.Groups = 3, 3, 1, 1, 1
		g.PadTop, g.PadLeft, g.PadBottom, g.PadRight = 1, 1, 1, 1
		for _, sign := range []int{1, -1} {
			k := newBackward16Case(g, 1, 7)
			k.zero = int32(255 * (1 - sign) / 2)
			fill(k.x, uint8(255-k.zero))
			fill(k.w, int8(127*sign))
			fill(k.scale, 0.01)
			fill(k.dy, 1)
			k.check(t, false)
			p := k.plan(t, false, true)
			_, _, most, _, _, _, _ := k.definition(p)
			for _, odd := range []func(y, x int) int{ // signs that the transforms' differences add up
				func(_, x int) int { return x },
				func(y, x int) int { return y + x },
				func(_, x int) int { return x / 2 },
				func(y, x int) int { return y/2 + x/2 },
				func(y, x int) int { return y/2 + x },
			} {
				for i := range k.dy {
					k.dy[i] = float32(1 - 2*(odd(i/g.Cout/g.W, i/g.Cout%g.W)&1))
				}
				for i := range k.x {
					k.x[i] = uint8(255 * (odd(i/g.Cin/g.W, i/g.Cin%g.W) & 1))
				}
				k.check(t, false)
			}
			bound := float64(math.MaxInt32)
			if p.winograd {
				bound /= winogradScale
			}
			if got := float64(most) / bound; got < 0.8 {
				t.Errorf("%+v: the greatest sum is %.2f of the bound", g, got)
			}
		}
	}
}

// The greatest code is what the bounds allow, and too little of it is an error.
func TestBackward16Bounds(t *testing.T) {
	same := func(h, cin, cout int) ConvGeom {
		return ConvGeom{H: h, W: h, Cin: cin, KH: 3, KW: 3, Cout: cout, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1}
	}
	dense := func(in, out int) ConvGeom {
		return ConvGeom{H: 1, W: 1, Cin: in, KH: 1, KW: 1, Cout: out, StrideH: 1, StrideW: 1, Groups: 1}
	}
	for _, c := range []struct {
		g          ConvGeom
		batch      int
		topX, topW int32
		needDX     bool
		max        int32
		lines      int
		err        bool
	}{
		{same(28, 1, 32), 0, 255, 127, false, 10741, 28, false}, // 255*784 terms of dw
		{same(14, 32, 65), 0, 255, 127, true, 28904, 14, false}, // 127*585 of dx
		{same(14, 32, 65), 0, 15, 7, true, 32767, 14, false},
		{same(14, 32, 64), 0, 255, 127, true, 7339, 14, false}, // 4*127*576 of a Winograd convolution
		{same(14, 32, 64), 0, 255, 127, false, 8191, 14, false},
		{same(14, 32, 64), 0, 15, 7, true, 8191, 14, false},
		{same(14, 32, 128), 0, 255, 127, true, 14678, 14, false}, // too many filters for one
		{same(56, 64, 65), 0, 255, 127, true, 8354, 18, false},   // dw in blocks of 18 lines
		{same(56, 64, 64), 0, 255, 127, true, 7339, 4, false},
		{same(258, 16, 16), 0, 255, 127, true, 10880, 3, false}, // lines too long for one
		{same(4, 512, 512), 0, 255, 127, true, 3669, 4, false},
		{dense(3136, 128), 64, 255, 127, true, 32767, 64, false},
		{dense(10, 10), 4096, 255, 127, true, 8192, 1028, false},
		{dense(8, 20000), 64, 255, 127, true, 0, 0, true},
		{ConvGeom{H: 5, W: 5, Cin: 4, KH: 3, KW: 3, Cout: 4, StrideH: 1, StrideW: 1, Groups: 4}, 0, 255, 127, true, 0, 0, true},
	} {
		p, err := NewBackward16(c.g, c.batch, c.topX, c.topW, c.needDX)
		if (err != nil) != c.err {
			t.Errorf("%+v: error %v", c.g, err)
		}
		if err == nil && (p.max != c.max || p.lines != c.lines) {
			t.Errorf("%+v: max %d in %d lines, want %d in %d", c.g, p.max, p.lines, c.max, c.lines)
		}
	}
}
