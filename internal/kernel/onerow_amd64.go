package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// oneRowVec does the leading columns, cutting sums where tilesF32.gemm does.
func (t *isa) oneRowVec(y, a, b []float32, half []uint16, f Rounding, n, k int) (done int) {
	if t.tier == cpu.Generic {
		return 0
	}
	wide, step := t.tier == cpu.AVX512VNNI, 8*8
	if wide {
		step = 8 * 16
	}
	for ; done+step <= n; done += step {
		for k0 := 0; k0 < k; k0 += kBlock {
			at, part := k0*n+done, min(kBlock, k-k0)
			if half == nil {
				run := oneRowF32Y
				if wide {
					run = oneRowF32Z
				}
				run(&y[done], &a[k0], &b[at], part, 4*n, k0)
				continue
			}
			run := oneRowF16Y
			switch {
			case f == RoundBF16 && wide:
				run = oneRowBF16Z
			case f == RoundBF16:
				run = oneRowBF16Y
			case wide:
				run = oneRowF16Z
			}
			run(&y[done], &a[k0], &half[at], part, 2*n, k0)
		}
	}
	return done
}
