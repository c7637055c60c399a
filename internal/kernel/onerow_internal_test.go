package kernel

import (
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
	"github.com/narrow-ml/narrow/quant"
)

// One row has the bits that it has among others, and those of the decoded
// weights when they are read in 16 bits.
func TestGemmRowIsARowOfGemm(t *testing.T) {
	r := newRand(5)
	for i, n := range []int{1, 63, 64, 65, 128, 200, 300} {
		for _, k := range []int{1, 7, 512, 513, 1100} {
			for _, f := range []Rounding{RoundNone, RoundF16, RoundBF16} {
				a, b := make([]float32, 3*k), make([]float32, n*k)
				randomF32(r, a, false)
				randomF32(r, b, false)
				var half []uint16
				if f != RoundNone {
					format := map[Rounding]quant.Format{RoundF16: quant.FP16, RoundBF16: quant.BF16}[f]
					half = make([]uint16, len(b))
					for j, v := range b {
						half[j] = quant.Encode16(v, format)
						b[j] = quant.Decode16(half[j], format)
					}
				}
				eachTier(t, func(t *testing.T, kern *isa) {
					var s Scratch
					want, got := make([]float32, 3*n), qtest.Guarded[float32](n, i)
					kern.gemm(want, n, a, k, false, b, n, false, 3, n, k, false, &s)
					kern.gemmRow(got.Data, a[k:2*k], b, half, f, n, k, &s)
					for _, err := range []error{qtest.SameBits("row", got.Data, want[n:2*n]), got.Check()} {
						if err != nil {
							t.Fatalf("n=%d k=%d format %d: %v", n, k, f, err)
						}
					}
				})
			}
		}
	}
}
