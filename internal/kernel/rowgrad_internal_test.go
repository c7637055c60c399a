package kernel

import (
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

// The gradients of a depthwise convolution round each product and each sum in
// the order of output pixels, and so have the same bits in every tier.
func TestDepthwiseGradientsAreTheirDefinition(t *testing.T) {
	r := newRand(11)
	for i := range 300 {
		g := randomDepthwise(r)
		if i%3 > 0 {
			g.DilationH, g.DilationW = 1, 1
		}
		if g.Check() != nil {
			continue
		}
		n := 1 + i%3
		x, w, dy := make([]float32, n*g.inSize()), make([]float32, g.weightSize()), make([]float32, n*g.outSize())
		for _, v := range [][]float32{x, w, dy} {
			randomF32(r, v, false)
		}
		before := make([]float32, len(w))
		randomF32(r, before, false)
		wantDX, wantDW := make([]float32, len(x)), append([]float32(nil), before...)
		eachProduct(n, g, func(xi, yi, wi int) {
			if xi >= 0 {
				wantDX[xi] += float32(dy[yi] * w[wi])
				wantDW[wi] += float32(x[xi] * dy[yi])
			}
		})
		eachTier(t, func(t *testing.T, kern *isa) {
			var s Scratch
			dx, dw := qtest.Guarded[float32](len(x), i), qtest.Guarded[float32](len(w), i+1)
			randomF32(newRand(9), dx.Data, false) // must be overwritten
			copy(dw.Data, before)
			kern.convBackwardInput(dx.Data, dy, w, n, g, &s)
			kern.convBackwardWeight(dw.Data, x, dy, n, g, true, &s)
			for _, err := range []error{qtest.SameBits("dx", dx.Data, wantDX), dx.Check(), qtest.SameBits("dw", dw.Data, wantDW), dw.Check()} {
				if err != nil {
					t.Fatalf("%d: %+v: %v", i, g, err)
				}
			}
		})
	}
}
