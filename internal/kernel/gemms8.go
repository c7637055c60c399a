package kernel

// GemmU8S8 computes the exact integer product acc = A*B of u8 codes and packed
// s8 weights:
//
//	acc[i*ldc+j] = sum_k a[i*lda+k] * w[k,j]        i < m, j < b.N, k < b.K
//
// The caller keeps K*255*127 below 2^31 (K <= 66311), or bounds the sums as
// the model's overflow rule does.
func GemmU8S8(acc []int32, ldc int, a []uint8, lda int, b *PackedS8, m int, s *Scratch) {
	active.gemmU8S8(acc, ldc, a, lda, b, m, 0, b.N, s)
}

// ColumnUnit is what the cuts of a product's columns are multiples of: the
// widest tile, so that a cut costs nothing.
const ColumnUnit = 32

// GemmU8S8Columns is the columns [from, to) of GemmU8S8; from is a multiple of
// ColumnUnit, and so is to unless it is b.N. Cutting columns reads every weight
// once, where cutting a few rows reads all weights for each cut.
func GemmU8S8Columns(acc []int32, ldc int, a []uint8, lda int, b *PackedS8, m, from, to int, s *Scratch) {
	active.gemmU8S8(acc, ldc, a, lda, b, m, from, to, s)
}

// GemmU8S8Requant is GemmU8S8 followed by RequantRows, a few rows at a time so
// that the accumulators stay in cache. dst is dense, [m, b.N].
func GemmU8S8Requant(dst []uint8, a []uint8, lda int, b *PackedS8, bias []int32, mult []float32, zero, lo, hi int32, m int, s *Scratch) {
	active.gemmU8S8Requant(dst, a, lda, b, bias, mult, zero, lo, hi, m, s)
}

func (t *isa) gemmU8S8(acc []int32, ldc int, a []uint8, lda int, b *PackedS8, m, from, to int, s *Scratch) {
	if m <= 0 || from >= to {
		return
	}
	if from%ColumnUnit != 0 || to > b.N || (to%ColumnUnit != 0 && to != b.N) {
		panic("kernel: a cut of columns is not a multiple of the widest tile")
	}
	if b.layout != t.tier {
		panic("kernel: weights were packed for another instruction tier")
	}
	acc = matrix(acc, ldc, m, b.N)
	if b.K == 0 {
		for i := range m {
			clear(acc[i*ldc:][from:to])
		}
		return
	}
	a = matrix(a, lda, m, b.K)
	if t.s8 != nil {
		t.s8.gemm(acc, nil, ldc, a, lda, b, m, from, to, s)
		return
	}
	gemmU8S8Generic(acc, ldc, a, lda, b.raw, m, b.N, b.K, from, to)
}

func gemmU8S8Generic(acc []int32, ldc int, a []uint8, lda int, w []int8, m, n, k, from, to int) {
	for i := range m {
		row := acc[i*ldc:][from:to]
		clear(row)
		for p, q := range a[i*lda:][:k] {
			if q == 0 {
				continue
			}
			for j, v := range w[p*n:][from:to] {
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
	if bias != nil && b.K > 0 && t.s8 != nil && b.layout == t.tier {
		t.s8.gemm(nil, s.requant(rowRequant{dst: dst, bias: bias[:n], m: mult[:n], zero: zero, lo: lo, hi: hi}), n, matrix(a, lda, m, b.K), lda, b, m, 0, n, s)
		return
	}
	rows := min(m, max(1, accumulatorBytes/(4*n)))
	acc := grow(&s.acc, rows*n)
	for i := 0; i < m; i += rows {
		r := min(rows, m-i)
		t.gemmU8S8(acc, n, a[i*lda:], lda, b, r, 0, n, s)
		t.requantRows(dst[i*n:][:r*n], acc[:r*n], bias, mult, zero, lo, hi, n)
	}
}
