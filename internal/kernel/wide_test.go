package kernel_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/internal/kernel"
)

// TestConvWide compares with one sum per output, written output first, over strides, paddings and groups, with the extreme
// codes whose products only 64 bits can add up.
func TestConvWide(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, g := range []kernel.ConvGeom{
		{H: 1, W: 1, Cin: 700, KH: 1, KW: 1, Cout: 5, StrideH: 1, StrideW: 1, Groups: 1},
		{H: 5, W: 4, Cin: 4, KH: 3, KW: 2, Cout: 6, StrideH: 2, StrideW: 1, PadTop: 1, PadLeft: 0, PadBottom: 1, PadRight: 1, Groups: 2},
		{H: 4, W: 6, Cin: 3, KH: 3, KW: 3, Cout: 3, StrideH: 1, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 3},
	} {
		const n = 2
		per, out := g.Cin/g.Groups, g.Cout/g.Groups
		x, w := make([]int16, n*g.H*g.W*g.Cin), make([]int16, g.KH*g.KW*per*g.Cout)
		for _, v := range [][]int16{x, w} {
			for i := range v {
				if v[i] = int16(rnd.Uint32()); i%3 == 0 {
					v[i] = -32768
				}
			}
		}
		var want []int64
		for i := range n {
			for oy := range g.OutH() {
				for ox := range g.OutW() {
					for o := range g.Cout {
						sum := int64(0)
						for ky := range g.KH {
							for kx := range g.KW {
								iy, ix := oy*g.StrideH-g.PadTop+ky, ox*g.StrideW-g.PadLeft+kx
								if iy < 0 || iy >= g.H || ix < 0 || ix >= g.W {
									continue
								}
								for c := range per {
									sum += int64(x[((i*g.H+iy)*g.W+ix)*g.Cin+o/out*per+c]) * int64(w[((ky*g.KW+kx)*per+c)*g.Cout+o])
								}
							}
						}
						want = append(want, sum)
					}
				}
			}
		}
		got := make([]int64, len(want))
		got[0] = 7 // what was there before does not count
		kernel.ConvWide(got, x, w, n, g)
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %v, want %v", g, got, want)
		}
	}
}
