package kernel

import (
	"math"
	"slices"
	"testing"
)

var tilings = []PoolGeom{
	{H: 4, W: 6, C: 16, KH: 2, KW: 2, StrideH: 2, StrideW: 2},
	{H: 6, W: 6, C: 48, KH: 3, KW: 2, StrideH: 3, StrideW: 2},
	{H: 2, W: 4, C: 5, KH: 1, KW: 4, StrideH: 1, StrideW: 4},
	{H: 3, W: 3, C: 32, KH: 1, KW: 1, StrideH: 1, StrideW: 1},
	{H: 28, W: 28, C: 32, KH: 2, KW: 2, StrideH: 2, StrideW: 2},
}

func bitsOfF32(x []float32) []uint32 {
	out := make([]uint32, len(x))
	for i, v := range x {
		out[i] = math.Float32bits(v + 0) // signs of zeros are nobody's business: they end in sums
	}
	return out
}

// The fused passes give what the passes they join give, to the bit, on every tier; ties and NaN included.
func TestBlockPasses(t *testing.T) {
	eachTier(t, func(t *testing.T, k *isa) {
		r := newRand(3)
		for _, g := range tilings {
			if err := g.Check(); err != nil || !g.Tiles() {
				t.Fatal(g, err)
			}
			in, out, row := g.inSize(), g.outSize(), g.W*g.C+7
			v, dy := make([]float32, in), make([]float32, out)
			randomF32(r, v, false)
			randomF32(r, dy, false)
			for i := range v {
				v[i] = float32(math.Round(float64(v[i]) * 2)) // ties
			}
			mean, inv, gamma, beta := make([]float32, g.C), make([]float32, g.C), make([]float32, g.C), make([]float32, g.C)
			dgamma, dbeta := make([]float64, g.C), make([]float64, g.C)
			randomF32(r, mean, false)
			randomF32(r, gamma, false)
			randomF32(r, beta, false)
			for c := range inv {
				inv[c], dgamma[c], dbeta[c] = 0.5+r.Float32(), r.NormFloat64(), r.NormFloat64()
			}
			gamma[0] = 0

			norm, want, wantArg := make([]float32, in), make([]float32, out), make([]uint8, out)
			generic().normalize(norm, v, mean, inv, gamma, beta, g.C)
			generic().maxPoolF32(want, wantArg, norm, 1, g)
			var p NormParams
			p.Set(mean, inv, gamma, beta)
			y, arg, win := make([]float32, out), make([]uint8, out), make([]float32, out)
			k.normPool(y, arg, win, v, &p, g)
			if !slices.Equal(bitsOfF32(y), bitsOfF32(want)) || !slices.Equal(arg, wantArg) {
				t.Errorf("%+v: normPool differs from normalize and pool", g)
			}
			picked := make([]float32, in)
			copy(picked, win)
			generic().normalize(picked[:out], win, mean, inv, gamma, beta, g.C)
			if !slices.Equal(bitsOfF32(picked[:out]), bitsOfF32(y)) {
				t.Errorf("%+v: the winners do not give the maxima", g)
			}

			full := make([]float32, in)
			MaxPoolGrad(full, dy, arg, 1, g)
			scattered := make([]float32, g.H*row)
			fill(scattered, 99)
			k.poolScatter(scattered, row, dy, arg, g)
			compareRows(t, "poolScatter", g, scattered, row, full)
			p.SetGrad(mean, inv, gamma, dgamma, dbeta, 77)
			generic().normalizeGrad(full, full, nil, v, &p)
			fill(scattered, 99)
			k.normPoolGrad(scattered, row, v, dy, arg, &p, g)
			compareRows(t, "normPoolGrad", g, scattered, row, full)

			acc, sign := make([]int32, in), make([]int8, g.C)
			for i := range acc {
				acc[i] = r.Int32N(9) - 4
			}
			for c := range sign {
				sign[c] = int8(c%3 - 1)
			}
			for _, s := range [][]int8{nil, sign} {
				var signs Signs
				signs.Set(s, g.C)
				won, place := make([]int32, out), make([]uint8, out)
				k.maxPoolAcc(won, place, acc, &signs, g)
				folded := make([]float32, in)
				for i, a := range acc {
					f := int32(1)
					if s != nil {
						f = int32(s[i%g.C])
					}
					folded[i] = float32(f * a)
				}
				generic().maxPoolF32(want, wantArg, folded, 1, g)
				if !slices.Equal(place, wantArg) {
					t.Errorf("%+v: maxPoolAcc finds other places", g)
				}
				eachCell(g, g.W*g.C, func(o, cell, _ int, i uint8) {
					if place[o] == i && won[o] != acc[cell] {
						t.Errorf("%+v: winner %d, accumulator %d", g, won[o], acc[cell])
					}
				})
			}
		}
	})
}

func compareRows(t *testing.T, what string, g PoolGeom, got []float32, row int, want []float32) {
	t.Helper()
	line := g.W * g.C
	for y := range g.H {
		if !slices.Equal(bitsOfF32(got[y*row:y*row+line]), bitsOfF32(want[y*line:(y+1)*line])) {
			t.Errorf("%+v: %s: row %d differs", g, what, y)
			return
		}
		for _, v := range got[y*row+line : (y+1)*row] {
			if v != 99 {
				t.Errorf("%+v: %s wrote behind row %d", g, what, y)
				return
			}
		}
	}
}

func TestPoolGeomTiles(t *testing.T) {
	yes := tilings[0]
	for _, change := range []func(*PoolGeom){
		func(g *PoolGeom) { g.H++ }, func(g *PoolGeom) { g.W++ }, func(g *PoolGeom) { g.StrideH = 1 }, func(g *PoolGeom) { g.StrideW = 3 }, func(g *PoolGeom) { g.PadRight = 1 },
	} {
		g := yes
		change(&g)
		if g.Tiles() {
			t.Errorf("%+v tiles", g)
		}
	}
}

func BenchmarkBlockPasses(b *testing.B) {
	g := tilings[4]
	v, dv := make([]float32, g.inSize()), make([]float32, g.inSize())
	y, win, arg := make([]float32, g.outSize()), make([]float32, g.outSize()), make([]uint8, g.outSize())
	randomF32(newRand(1), v, false)
	c := make([]float32, g.C)
	fill(c, 0.5)
	var p NormParams
	p.Set(c, c, c, c)
	b.Run("normPool", func(b *testing.B) {
		for b.Loop() {
			NormPool(y, arg, win, v, &p, g)
		}
	})
	b.Run("normPoolGrad", func(b *testing.B) {
		for b.Loop() {
			NormPoolGrad(dv, g.W*g.C, v, y, arg, &p, g)
		}
	})
	b.Run("poolScatter", func(b *testing.B) {
		for b.Loop() {
			PoolScatter(dv, g.W*g.C, y, arg, g)
		}
	})
}
