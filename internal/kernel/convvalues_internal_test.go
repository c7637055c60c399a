package kernel

import (
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

// Values of a convolution of codes are those of its sums.
func TestConvValuesAreScaledSums(t *testing.T) {
	const n = 2
	cases := append([]ConvGeom{
		{H: 28, W: 28, Cin: 1, KH: 3, KW: 3, Cout: 32, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
		{H: 14, W: 14, Cin: 32, KH: 3, KW: 3, Cout: 80, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
	}, append(groupedCases(), convCases...)...)
	for i, g := range append(cases, cases...) {
		r := newRand(uint64(i))
		x, w := make([]uint8, n*g.inSize()), make([]int8, g.weightSize())
		randomCodes(r, x)
		randomCodes(r, w)
		if i >= len(cases) {
			fewBits(w)
		}
		offset, m := make([]int32, g.Cout), make([]float32, g.Cout)
		for c := range m {
			offset[c], m[c] = int32(r.IntN(20000)-10000), float32(r.Float64())*1e-3
		}
		eachTier(t, func(t *testing.T, kern *isa) {
			var s Scratch
			var packed PackedS8
			kern.packS8(&packed, w, g.Depth(), g.Cout)
			acc, want := make([]int32, n*g.outSize()), make([]float32, n*g.outSize())
			kern.convU8S8(acc, x, 9, &packed, n, g, &s)
			kern.scaleRows(want, acc, offset, m, g.Cout)
			got := qtest.Guarded[float32](len(want), i)
			kern.convU8S8Values(got.Data, x, 9, &packed, offset, m, n, g, &s)
			if err := qtest.SameBits("values", got.Data, want); err != nil {
				t.Errorf("%+v: %v", g, err)
			}
			if err := got.Check(); err != nil {
				t.Errorf("%+v: %v", g, err)
			}
		})
	}
}
