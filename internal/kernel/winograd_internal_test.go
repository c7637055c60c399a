package kernel

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

// The transforms in plain Go: each is a pair of functions of a column, applied along columns and then along rows.

func tapsColumn(d []float32) []float32 {
	return []float32{d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]}
}

func pointsColumn(d []float32) []float32 { return []float32{d[0], d[0] + d[1], d[0] - d[1], d[1]} }

func sumsColumn(m []float32) []float32 {
	return []float32{m[0] + m[1] + m[2], m[1] - m[2] + m[3]}
}

func filterColumn(w []float32) []float32 {
	return []float32{w[0], 0.5 * (w[0] + w[2] + w[1]), 0.5 * (w[0] + w[2] - w[1]), w[2]}
}

func gradientColumn(m []float32) []float32 {
	sum, difference := 0.5*(m[1]+m[2]), 0.5*(m[1]-m[2])
	return []float32{m[0] + sum, difference, sum + m[3]}
}

// transformed applies a transform of columns to the columns of an n by n matrix and then to the rows of the result.
func transformed(f func([]float32) []float32, n int, get func(i, j int) float32, set func(i, j int, v float32)) {
	columns := make([][]float32, n)
	for j := range columns {
		column := make([]float32, n)
		for i := range column {
			column[i] = get(i, j)
		}
		columns[j] = f(column)
	}
	for i := range columns[0] {
		row := make([]float32, n)
		for j := range row {
			row[j] = columns[j][i]
		}
		for j, v := range f(row) {
			set(i, j, v)
		}
	}
}

func TestWinogradTransforms(t *testing.T) {
	r := newRand(3)
	for i := range 60 {
		tiles, channels := 1+r.IntN(5), winogradLanes*(1+r.IntN(3))
		line := channels*(2*tiles+2) + 16*r.IntN(3) // of an image
		plane := channels*tiles + 16*r.IntN(3)
		image, points := make([]float32, 4*line), make([]float32, winogradPlanes*plane)
		randomF32(r, image, true)
		randomF32(r, points, true)
		eachTier(t, func(t *testing.T, kern *isa) {
			if kern.f32 == nil {
				return // the definition is this test's
			}
			w := kern.f32.winograd
			check := func(name string, n int, run func(dst []float32), define func(dst []float32)) {
				t.Helper()
				got, want := qtest.Guarded[float32](n, i), make([]float32, n)
				run(got.Data)
				define(want)
				for _, err := range []error{qtest.SameBits(name, got.Data, want), got.Check()} {
					if err != nil {
						t.Fatalf("%d tiles, %d channels: %v", tiles, channels, err)
					}
				}
			}
			eachTile := func(f func(at, c int)) {
				for at := range tiles {
					for c := range channels {
						f(at, c)
					}
				}
			}
			check("taps", len(points), func(dst []float32) {
				w.taps(&dst[0], &image[0], tiles, 4*channels, 4*line, 4*plane)
			}, func(dst []float32) {
				eachTile(func(at, c int) {
					transformed(tapsColumn, 4, func(i, j int) float32 { return image[i*line+(2*at+j)*channels+c] },
						func(i, j int, v float32) { dst[(4*i+j)*plane+at*channels+c] = v })
				})
			})
			check("points", len(points), func(dst []float32) {
				w.points(&dst[0], &image[0], tiles, 4*channels, 4*line, 4*plane)
			}, func(dst []float32) {
				eachTile(func(at, c int) {
					transformed(pointsColumn, 2, func(i, j int) float32 { return image[i*line+(2*at+j)*channels+c] },
						func(i, j int, v float32) { dst[(4*i+j)*plane+at*channels+c] = v })
				})
			})
			check("sums", 2*line, func(dst []float32) {
				w.sums(&dst[0], &points[0], tiles, 4*channels, 4*line, 4*plane)
			}, func(dst []float32) {
				eachTile(func(at, c int) {
					transformed(sumsColumn, 4, func(i, j int) float32 { return points[(4*i+j)*plane+at*channels+c] },
						func(i, j int, v float32) { dst[i*line+(2*at+j)*channels+c] = v })
				})
			})
			n := channels * tiles
			check("filter", len(points), func(dst []float32) {
				w.filter(&dst[0], &points[0], n/kern.f32.lanes, 4*plane, 4*plane)
			}, func(dst []float32) {
				for e := range n {
					transformed(filterColumn, 3, func(i, j int) float32 { return points[(3*i+j)*plane+e] },
						func(i, j int, v float32) { dst[(4*i+j)*plane+e] = v })
				}
			})
			n -= r.IntN(20) % n // not whole registers
			check("gradient", 9*plane, func(dst []float32) {
				kern.winogradJoin(dst, plane, points[:winogradPlanes*n], n)
			}, func(dst []float32) {
				for e := range n {
					transformed(gradientColumn, 4, func(i, j int) float32 { return points[(4*i+j)*n+e] },
						func(i, j int, v float32) { dst[(3*i+j)*plane+e] = v })
				}
			})
		})
	}
}

// Fewer products cost little accuracy: these sums are shorter than those in the order of the definition.
func TestWinogradError(t *testing.T) {
	for _, g := range []ConvGeom{
		{H: 14, W: 14, Cin: 32, Cout: 64}, {H: 32, W: 32, Cin: 16, Cout: 16}, {H: 8, W: 8, Cin: 64, Cout: 64},
	} {
		g.KH, g.KW, g.StrideH, g.StrideW, g.Groups = 3, 3, 1, 1, 1
		g.PadTop, g.PadLeft, g.PadBottom, g.PadRight = 1, 1, 1, 1
		r := newRand(5)
		x, w, dy := make([]float32, g.inSize()), make([]float32, g.weightSize()), make([]float32, g.outSize())
		for _, v := range [][]float32{x, w, dy} {
			for i := range v {
				v[i] = float32(r.NormFloat64())
			}
		}
		dx64, dw64 := make([]float64, len(x)), make([]float64, len(w))
		dx32, dw32 := make([]float32, len(x)), make([]float32, len(w))
		eachProduct(1, g, func(xi, yi, wi int) {
			if xi >= 0 {
				dx64[xi] += float64(dy[yi]) * float64(w[wi])
				dw64[wi] += float64(dy[yi]) * float64(x[xi])
				dx32[xi] += dy[yi] * w[wi]
				dw32[wi] += dy[yi] * x[xi]
			}
		})
		eachTier(t, func(t *testing.T, kern *isa) {
			var s Scratch
			dx, dw := make([]float32, len(x)), make([]float32, len(w))
			kern.convBackwardInput(dx, dy, w, 1, g, &s)
			kern.weightGrad(dw, x, dy, 1, g, &s)
			for _, c := range []struct {
				name       string
				got, plain []float32
				want       []float64
			}{{"dx", dx, dx32, dx64}, {"dw", dw, dw32, dw64}} {
				got, plain := relativeError(c.got, c.want), relativeError(c.plain, c.want)
				t.Logf("%dx%dx%d-%d %s: error %.2g of the values, sums in order %.2g", g.H, g.W, g.Cin, g.Cout, c.name, got, plain)
				if got > 1.25*plain {
					t.Errorf("%s: error %.2g of the values, more than 1.25 times that of sums in order, %.2g", c.name, got, plain)
				}
			}
		})
	}
}

// relativeError is the root of the mean square error, divided by that of the values.
func relativeError(got []float32, want []float64) float64 {
	var e, v float64
	for i, w := range want {
		e += (float64(got[i]) - w) * (float64(got[i]) - w)
		v += w * w
	}
	return math.Sqrt(e / v)
}

// Which geometries are computed so is part of the arithmetic of a tier.
func TestWinogradGeometries(t *testing.T) {
	same := ConvGeom{H: 8, W: 8, Cin: 16, KH: 3, KW: 3, Cout: 32, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1}
	for name, change := range map[string]func(*ConvGeom){
		"odd height":  func(g *ConvGeom) { g.H = 7 },
		"odd result":  func(g *ConvGeom) { g.PadRight = 0 },
		"wide pad":    func(g *ConvGeom) { g.PadTop, g.PadBottom = 3, 3 },
		"channels":    func(g *ConvGeom) { g.Cin = 24 },
		"filters":     func(g *ConvGeom) { g.Cout = 8 },
		"kernel":      func(g *ConvGeom) { g.KH = 5 },
		"stride":      func(g *ConvGeom) { g.StrideW = 2 },
		"dilation":    func(g *ConvGeom) { g.DilationH = 2 },
		"groups of 2": func(g *ConvGeom) { g.Groups = 2 },
	} {
		g := same
		change(&g)
		eachTier(t, func(t *testing.T, kern *isa) {
			if kern.winograd(g) || kern.winograd(same) != (kern.f32 != nil) {
				t.Errorf("%s: %v, and without it %v", name, kern.winograd(g), kern.winograd(same))
			}
		})
	}
}
