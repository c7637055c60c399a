package kernel

// GemmU8S8 computes the exact integer product acc = A*B of u8 codes and packed
// s8 weights:
//
//	acc[i*ldc+j] = sum_k a[i*lda+k] * w[k,j]        i < m, j < b.N, k < b.K
//
// The caller keeps K*255*127 below 2^31 (K <= 66311), or bounds the sums as
// the model's overflow rule does.
func GemmU8S8(acc []int32, ldc int, a []uint8, lda int, b *PackedS8, m int) {
	active.gemmU8S8(acc, ldc, a, lda, b, m)
}

// GemmU8S8Requant is GemmU8S8 followed by RequantRows, a few rows at a time so
// that the accumulators stay in cache. dst is dense, [m, b.N].
func GemmU8S8Requant(dst []uint8, a []uint8, lda int, b *PackedS8, bias []int32, mult []float32, zero, lo, hi int32, m int, s *Scratch) {
	active.gemmU8S8Requant(dst, a, lda, b, bias, mult, zero, lo, hi, m, s)
}

func (t *isa) gemmU8S8(acc []int32, ldc int, a []uint8, lda int, b *PackedS8, m int) {
	if m <= 0 || b.N == 0 {
		return
	}
	if b.layout != t.tier {
		panic("kernel: weights were packed for another instruction tier")
	}
	acc = matrix(acc, ldc, m, b.N)
	if b.K == 0 {
		for i := range m {
			clear(acc[i*ldc:][:b.N])
		}
		return
	}
	a = matrix(a, lda, m, b.K)
	if t.s8 != nil {
		t.s8.gemm(acc, ldc, a, lda, b, m)
		return
	}
	gemmU8S8Generic(acc, ldc, a, lda, b.raw, m, b.N, b.K)
}

func gemmU8S8Generic(acc []int32, ldc int, a []uint8, lda int, w []int8, m, n, k int) {
	for i := range m {
		row := acc[i*ldc:][:n]
		clear(row)
		for p, q := range a[i*lda:][:k] {
			if q == 0 {
				continue
			}
			for j, v := range w[p*n:][:n] {
				row[j] += int32(q) * int32(v)
			}
		}
	}
}

// accumulatorBytes is how much of a product the fused forms keep at a time: a
// share of the second-level cache.
const accumulatorBytes = 64 << 10

func (t *isa) gemmU8S8Requant(dst []uint8, a []uint8, lda int, b *PackedS8, bias []int32, mult []float32, zero, lo, hi int32, m int, s *Scratch) {
	n := b.N
	if m <= 0 || n == 0 {
		return
	}
	dst = dst[:m*n]
	rows := min(m, max(1, accumulatorBytes/(4*n)))
	acc := grow(&s.acc, rows*n)
	for i := 0; i < m; i += rows {
		r := min(rows, m-i)
		t.gemmU8S8(acc, n, a[i*lda:], lda, b, r)
		t.requantRows(dst[i*n:][:r*n], acc[:r*n], bias, mult, zero, lo, hi, n)
	}
}
