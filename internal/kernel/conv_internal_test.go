package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

// convCases cover kernel, stride, asymmetric padding, groups and dilation.
var convCases = []ConvGeom{
	{H: 1, W: 1, Cin: 1, KH: 1, KW: 1, Cout: 1, StrideH: 1, StrideW: 1, Groups: 1},
	{H: 6, W: 5, Cin: 3, KH: 1, KW: 1, Cout: 7, StrideH: 1, StrideW: 1, Groups: 1},
	{H: 6, W: 5, Cin: 3, KH: 1, KW: 1, Cout: 7, StrideH: 2, StrideW: 2, Groups: 1},
	{H: 5, W: 7, Cin: 4, KH: 3, KW: 3, Cout: 8, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
	{H: 14, W: 14, Cin: 16, KH: 3, KW: 3, Cout: 33, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
	{H: 7, W: 9, Cin: 1, KH: 3, KW: 2, Cout: 5, StrideH: 2, StrideW: 1, PadTop: 2, PadRight: 1, Groups: 1},
	{H: 9, W: 8, Cin: 5, KH: 5, KW: 3, Cout: 20, StrideH: 2, StrideW: 3, PadTop: 0, PadLeft: 2, PadBottom: 3, PadRight: 1, Groups: 1},
	{H: 9, W: 8, Cin: 8, KH: 3, KW: 3, Cout: 6, StrideH: 1, StrideW: 1, PadTop: 2, PadLeft: 2, PadBottom: 2, PadRight: 2, Groups: 1, DilationH: 2, DilationW: 2},
	{H: 8, W: 10, Cin: 4, KH: 3, KW: 3, Cout: 6, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, Groups: 1, DilationH: 1, DilationW: 3},
	{H: 7, W: 6, Cin: 6, KH: 3, KW: 3, Cout: 4, StrideH: 1, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 2},
	{H: 7, W: 6, Cin: 19, KH: 3, KW: 3, Cout: 19, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 19},
	{H: 7, W: 6, Cin: 4, KH: 3, KW: 3, Cout: 8, StrideH: 2, StrideW: 1, PadTop: 1, PadBottom: 1, PadRight: 2, Groups: 4},
	{H: 1, W: 20, Cin: 3, KH: 1, KW: 5, Cout: 4, StrideH: 1, StrideW: 2, PadLeft: 2, PadRight: 2, Groups: 1},
	{H: 4, W: 4, Cin: 2, KH: 4, KW: 4, Cout: 3, StrideH: 1, StrideW: 1, Groups: 1},
	{H: 2, W: 2, Cin: 4, KH: 3, KW: 3, Cout: 4, StrideH: 1, StrideW: 1, PadTop: 2, PadLeft: 2, PadBottom: 2, PadRight: 2, Groups: 1},
	{H: 12, W: 12, Cin: 32, KH: 3, KW: 3, Cout: 64, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
	{H: 14, W: 14, Cin: 32, KH: 3, KW: 3, Cout: 64, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
	{H: 6, W: 10, Cin: 48, KH: 3, KW: 3, Cout: 16, StrideH: 1, StrideW: 1, Groups: 1},
	{H: 4, W: 2, Cin: 16, KH: 3, KW: 3, Cout: 16, StrideH: 1, StrideW: 1, PadTop: 2, PadLeft: 2, PadBottom: 2, PadRight: 2, Groups: 1},
	{H: 4, W: 140, Cin: 16, KH: 3, KW: 3, Cout: 112, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
	{H: 2, W: 132, Cin: 16, KH: 3, KW: 3, Cout: 32, StrideH: 1, StrideW: 1, PadTop: 2, PadRight: 2, Groups: 1},
	{H: 3, W: 3, Cin: 130, KH: 3, KW: 3, Cout: 40, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
}

// groupedCases are kernels, strides, paddings and dilations, each with 2, 3, 4 and 8 groups of uneven numbers of channels.
func groupedCases() []ConvGeom {
	var cases []ConvGeom
	for _, kernel := range [][2]int{{1, 1}, {3, 3}, {5, 3}} {
		for stride := 1; stride <= 2; stride++ {
			for dil := 1; dil <= 2; dil++ {
				for _, same := range []bool{false, true} {
					for _, groups := range []int{2, 3, 4, 8} {
						i := len(cases)
						g := ConvGeom{
							H: 9 + i%2, W: 7 + i%5, Cin: groups * []int{3, 5, 16}[i%3], KH: kernel[0], KW: kernel[1], Cout: groups * []int{1, 7, 32}[i/3%3],
							StrideH: stride, StrideW: stride, Groups: groups, DilationH: dil, DilationW: dil,
						}
						if same {
							g.PadTop, g.PadLeft = dil*(g.KH-1)/2, dil*(g.KW-1)/2
							g.PadBottom, g.PadRight = g.PadTop, g.PadLeft
						}
						cases = append(cases, g)
					}
				}
			}
		}
	}
	return append(cases,
		ConvGeom{H: 14, W: 14, Cin: 64, KH: 3, KW: 3, Cout: 64, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 4},
		ConvGeom{H: 9, W: 9, Cin: 12, KH: 1, KW: 1, Cout: 12, StrideH: 3, StrideW: 2, PadTop: 1, PadLeft: 2, Groups: 4},
		ConvGeom{H: 3, W: 3, Cin: 66, KH: 3, KW: 3, Cout: 66, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 2},
		ConvGeom{H: 1, W: 20, Cin: 16, KH: 1, KW: 5, Cout: 32, StrideH: 1, StrideW: 2, PadLeft: 2, PadRight: 2, Groups: 16},
	)
}

// eachProduct calls f with the offsets of every x, y and w that meet in the
// definition of the convolution; x is -1 outside the image.
func eachProduct(n int, g ConvGeom, f func(x, y, w int)) {
	outH, outW := g.OutH(), g.OutW()
	gi, per := g.Cin/g.Groups, g.Cout/g.Groups
	for i := range n {
		for oy := range outH {
			for ox := range outW {
				for co := range g.Cout {
					y := ((i*outH+oy)*outW+ox)*g.Cout + co
					for kh := range g.KH {
						for kw := range g.KW {
							for ci := range gi {
								iy := oy*g.StrideH - g.PadTop + kh*max(1, g.DilationH)
								ix := ox*g.StrideW - g.PadLeft + kw*max(1, g.DilationW)
								x := -1
								if iy >= 0 && iy < g.H && ix >= 0 && ix < g.W {
									x = ((i*g.H+iy)*g.W+ix)*g.Cin + co/per*gi + ci
								}
								f(x, y, ((kh*g.KW+kw)*gi+ci)*g.Cout+co)
							}
						}
					}
				}
			}
		}
	}
}

// weightGrad is all of dw.
func (t *isa) weightGrad(dw, x, dy []float32, n int, g ConvGeom, s *Scratch) {
	part := make([]float32, t.flippedSize(g))
	t.convBackwardWeight(part, x, dy, n, g, false, s)
	t.joinWeightParts(dw, [][]float32{part}, g, 0, g.Cin/g.Groups*g.Cout, s)
}

func TestConvAgainstDefinition(t *testing.T) {
	const n = 3
	for i, g := range append(groupedCases(), convCases...) {
		if err := g.Check(); err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		r := newRand(uint64(i))
		x := make([]float32, n*g.inSize())
		w := make([]float32, g.weightSize())
		bias := make([]float32, g.Cout)
		dy := make([]float32, n*g.outSize())
		for _, v := range [][]float32{x, w, bias, dy} {
			randomF32(r, v, false)
		}
		y64, dx64, dw64 := make([]float64, len(dy)), make([]float64, len(x)), make([]float64, len(w))
		for j := range y64 {
			y64[j] = float64(bias[j%g.Cout])
		}
		eachProduct(n, g, func(xi, yi, wi int) {
			if xi >= 0 {
				y64[yi] += float64(x[xi]) * float64(w[wi])
				dx64[xi] += float64(dy[yi]) * float64(w[wi])
				dw64[wi] += float64(dy[yi]) * float64(x[xi])
			}
		})
		eachTier(t, func(t *testing.T, kern *isa) {
			var s Scratch
			y := qtest.Guarded[float32](len(dy), i)
			kern.convForward(y.Data, x, w, bias, n, g, &s)
			dx := qtest.Guarded[float32](len(x), i+1)
			randomF32(r, dx.Data, false) // must be overwritten
			kern.convBackwardInput(dx.Data, dy, w, n, g, &s)
			flipped, again := make([]float32, kern.flippedSize(g)), make([]float32, len(x))
			kern.flipWeights(flipped, w, g, &s)
			kern.convBackwardInputFlipped(again, dy, flipped, n, g, &s)
			if err := qtest.SameBits("dx of flipped weights", again, dx.Data); err != nil {
				t.Errorf("%+v: %v", g, err)
			}
			dw, part := qtest.Guarded[float32](len(w), i+2), qtest.Guarded[float32](kern.flippedSize(g), i+3)
			randomF32(r, dw.Data, false)
			randomF32(r, part.Data, false) // must be overwritten, too
			kern.convBackwardWeight(part.Data, x, dy, n, g, false, &s)
			join := func() { // in two pieces
				tap := len(w) / (g.KH * g.KW)
				for _, cut := range [][2]int{{0, tap / 3}, {tap / 3, tap}} {
					kern.joinWeightParts(dw.Data, [][]float32{part.Data}, g, cut[0], cut[1], &s)
				}
			}
			join()
			// sums of up to 1200 terms of magnitude one
			for _, err := range []error{
				qtest.Close("y", y.Data, y64, 1e-5, 3e-4), y.Check(),
				qtest.Close("dx", dx.Data, dx64, 1e-5, 3e-4), dx.Check(),
				qtest.Close("dw", dw.Data, dw64, 1e-5, 3e-4), dw.Check(), part.Check(),
			} {
				if err != nil {
					t.Errorf("%+v: %v", g, err)
				}
			}
			kern.convBackwardWeight(part.Data, x, dy, n, g, true, &s)
			join()
			for j := range dw64 {
				if math.Abs(float64(dw.Data[j])-2*dw64[j]) > 1e-3 {
					t.Fatalf("%+v: accumulated dw[%d] = %v, want %v", g, j, dw.Data[j], 2*dw64[j])
				}
			}
			// codes are their values
			codes, values, second := make([]uint8, g.inSize()), make([]float32, g.inSize()), make([]float32, kern.flippedSize(g))
			randomCodes(r, codes)
			scale := [1]float32{0.03}
			kern.dequantizeU8(values, codes, scale[:], 7)
			for _, accumulate := range []bool{false, true} {
				kern.convBackwardWeight(part.Data, values, dy, 1, g, accumulate, &s)
				kern.convBackwardWeightCodes(second, codes, scale[0], 7, dy, g, accumulate, &s)
				if err := qtest.SameBits("dw of codes", second, part.Data); err != nil {
					t.Errorf("%+v: %v", g, err)
				}
			}
			// images do not influence each other
			one := make([]float32, g.outSize())
			kern.convForward(one, x[g.inSize():], w, bias, 1, g, &s)
			if err := qtest.SameBits("image 1", one, y.Data[g.outSize():2*g.outSize()]); err != nil {
				t.Errorf("%+v: %v", g, err)
			}
		})
	}
}

// The gradient of a strided convolution's inputs, in all its phases: strides
// beyond the kernel, paddings beyond it, inputs that no window reads.
func TestStridedInputGradient(t *testing.T) {
	r := newRand(21)
	for i := range 200 {
		g := randomDepthwise(r)
		g.Cin, g.Cout, g.Groups = []int{1, 3, 16, 20}[r.IntN(4)], []int{1, 5, 16, 33}[r.IntN(4)], 1
		g.DilationH, g.DilationW = 1, 1
		g.W += 8
		if g.Check() != nil {
			continue
		}
		const n = 2
		w, dy := make([]float32, g.weightSize()), make([]float32, n*g.outSize())
		randomF32(r, w, false)
		randomF32(r, dy, false)
		want := make([]float64, n*g.inSize())
		eachProduct(n, g, func(xi, yi, wi int) {
			if xi >= 0 {
				want[xi] += float64(dy[yi]) * float64(w[wi])
			}
		})
		eachTier(t, func(t *testing.T, kern *isa) {
			var s Scratch
			dx := qtest.Guarded[float32](len(want), i)
			randomF32(newRand(9), dx.Data, false) // must be overwritten
			kern.convBackwardInput(dx.Data, dy, w, n, g, &s)
			for _, err := range []error{qtest.Close("dx", dx.Data, want, 1e-5, 1e-4), dx.Check()} {
				if err != nil {
					t.Fatalf("%+v: %v", g, err)
				}
			}
		})
	}
}

func TestConvU8S8AgainstDefinition(t *testing.T) {
	const n = 2
	cases := append(groupedCases(), convCases...)
	for i, g := range append(cases, cases...) {
		r := newRand(uint64(i))
		x := make([]uint8, n*g.inSize())
		w := make([]int8, g.weightSize())
		randomCodes(r, x)
		randomCodes(r, w)
		if i >= len(cases) {
			fewBits(w)
		}
		zero := uint8(r.Uint32())
		want := make([]int32, n*g.outSize())
		signed := make([]int32, len(want))
		eachProduct(n, g, func(xi, yi, wi int) {
			q := int32(zero)
			if xi >= 0 {
				q = int32(x[xi])
			}
			want[yi] += q * int32(w[wi])
			signed[yi] += (q - int32(zero)) * int32(w[wi])
		})
		bias, m := make([]int32, g.Cout), make([]float32, g.Cout)
		for c := range m {
			bias[c], m[c] = r.Int32N(1000)-500, float32(r.Float64())/500
		}
		wantU8 := make([]uint8, len(want))
		generic().requantRows(wantU8, want, bias, m, 12, 3, 250, g.Cout)
		eachTier(t, func(t *testing.T, kern *isa) {
			var s Scratch
			var p PackedS8
			kern.packS8(&p, w, g.Depth(), g.Cout)
			acc := qtest.Guarded[int32](len(want), i)
			kern.convU8S8(acc.Data, x, zero, &p, n, g, &s)
			if err := qtest.Same("acc", acc.Data, want); err != nil {
				t.Fatalf("%+v: %v", g, err)
			}
			if err := acc.Check(); err != nil {
				t.Fatalf("%+v: %v", g, err)
			}
			for j, v := range acc.Data {
				if got := v - int32(zero)*p.ColSums[j%g.Cout]; got != signed[j] {
					t.Fatalf("%+v: sum (q-z)*w [%d] = %d, want %d", g, j, got, signed[j])
				}
			}
			var conv PackedS8
			kern.packConv(&conv, w, g, &s)
			again := make([]int32, len(want))
			kern.convU8S8(again, x, zero, &conv, n, g, &s)
			if err := qtest.Same("acc of weights packed for the convolution", again, want); err != nil {
				t.Fatalf("%+v: %v", g, err)
			}
			for _, weights := range []*PackedS8{&p, &conv} {
				dst := qtest.Guarded[uint8](len(want), i)
				randomCodes(newRand(9), dst.Data) // must be overwritten
				kern.convU8S8Requant(dst.Data, x, zero, weights, bias, m, 12, 3, 250, n, g, &s)
				if err := qtest.Same("codes", dst.Data, wantU8); err != nil {
					t.Fatalf("%+v: %v", g, err)
				}
				if err := dst.Check(); err != nil {
					t.Fatalf("%+v: %v", g, err)
				}
			}
		})
	}
}

// One Scratch and one PackedS8 serve convolutions of any groups, one after the other.
func TestGroupsShareScratch(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		var s Scratch
		var p PackedS8
		for i, g := range append(groupedCases(), convCases...) {
			r := newRand(uint64(i))
			x, w, dy := make([]float32, g.inSize()), make([]float32, g.weightSize()), make([]float32, g.outSize())
			codes, s8 := make([]uint8, len(x)), make([]int8, len(w))
			randomF32(r, x, false)
			randomF32(r, w, false)
			randomF32(r, dy, false)
			randomCodes(r, codes)
			randomCodes(r, s8)
			run := func(s *Scratch, p *PackedS8) (y, dx, dw []float32, acc []int32) {
				y, dx, dw, acc = make([]float32, len(dy)), make([]float32, len(x)), make([]float32, len(w)), make([]int32, len(dy))
				kern.packConv(p, s8, g, s)
				kern.convU8S8(acc, codes, 200, p, 1, g, s)
				kern.convForward(y, x, w, nil, 1, g, s)
				kern.convBackwardInput(dx, dy, w, 1, g, s)
				kern.weightGrad(dw, x, dy, 1, g, s)
				return y, dx, dw, acc
			}
			y, dx, dw, acc := run(&s, &p)
			wantY, wantX, wantW, sums := run(new(Scratch), new(PackedS8))
			for _, err := range []error{
				qtest.SameBits("y", y, wantY), qtest.SameBits("dx", dx, wantX), qtest.SameBits("dw", dw, wantW), qtest.Same("sums", acc, sums),
			} {
				if err != nil {
					t.Fatalf("%+v: %v", g, err)
				}
			}
		}
	})
}

func TestConvGeomCheck(t *testing.T) {
	good := ConvGeom{H: 4, W: 4, Cin: 4, KH: 3, KW: 3, Cout: 4, StrideH: 1, StrideW: 1, Groups: 1}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	bad := map[string]func(*ConvGeom){
		"size":     func(g *ConvGeom) { g.H = 0 },
		"kernel":   func(g *ConvGeom) { g.KW = 0 },
		"stride":   func(g *ConvGeom) { g.StrideW = 0 },
		"padding":  func(g *ConvGeom) { g.PadLeft = -1 },
		"groups":   func(g *ConvGeom) { g.Groups = 3 },
		"groups 0": func(g *ConvGeom) { g.Groups = 0 },
		"fit":      func(g *ConvGeom) { g.KH = 5 },
		"dilation": func(g *ConvGeom) { g.DilationW = 2 },
	}
	for name, change := range bad {
		g := good
		change(&g)
		if g.Check() == nil {
			t.Errorf("%s: %+v was accepted", name, g)
		}
	}
}

func ExampleConvGeom() {
	g := ConvGeom{H: 28, W: 28, Cin: 1, KH: 3, KW: 3, Cout: 32, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, Groups: 1}
	fmt.Println(g.Check(), g.OutH(), g.OutW(), g.Depth())
	// Output: <nil> 14 14 9
}
