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

// RowsU8 is a matrix of codes as the tier's integer tiles for all weights read
// it, for a product that is computed in pieces. The zero value is ready for Set.
type RowsU8 struct {
	m, k int

	codes []uint8 // the matrix as given, rows lda apart; or
	lda   int
	words []int16 // the same widened, rows of whole groups of four
}

// Set takes the matrix a, m rows of k codes that are lda apart. It may keep a,
// whose elements must not change until the product is done.
func (r *RowsU8) Set(a []uint8, lda, k, m int) { active.setRows(r, a, lda, k, m) }

func (t *isa) setRows(r *RowsU8, a []uint8, lda, k, m int) {
	r.m, r.k, r.codes, r.lda = m, k, a, lda
	if t.s8 != nil && t.s8.size == 2 && m > 0 {
		ld := (k + 3) &^ 3
		widenRows(grow(&r.words, m*ld), ld, matrix(a, lda, m, k), lda, k, m)
	}
}

// GemmU8S8Columns is the columns [from, to) of the product of a with b, as
// GemmU8S8 computes it; from is a multiple of ColumnUnit, and so is to unless
// it is b.N. Cutting columns reads every weight once, where cutting a few rows
// reads all weights for each cut.
func GemmU8S8Columns(acc []int32, ldc int, a *RowsU8, b *PackedS8, from, to int, s *Scratch) {
	active.gemmU8S8Columns(acc, ldc, a, b, from, to, s)
}

func (t *isa) gemmU8S8Columns(acc []int32, ldc int, a *RowsU8, b *PackedS8, from, to int, s *Scratch) {
	if a.k != b.K {
		panic("kernel: codes and weights do not have the same length")
	}
	if t.s8 == nil || b.tiles.size == 1 || a.m == 0 || a.k == 0 {
		t.gemmU8S8(acc, ldc, a.codes, a.lda, b, a.m, from, to, s)
		return
	}
	t.checkColumns(b, from, to)
	acc = matrix(acc, ldc, a.m, b.N)
	ld := (a.k + 3) &^ 3
	step := b.tiles.wideRows(ld)
	for i := 0; i < a.m; i += step {
		b.tiles.wide(acc, nil, ldc, a.words[i*ld:], b, i, min(step, a.m-i), from, to)
	}
}

// checkColumns stops a caller whose cut of columns or weights would make tiles
// read past them.
func (t *isa) checkColumns(b *PackedS8, from, to int) {
	if from%ColumnUnit != 0 || to > b.N || (to%ColumnUnit != 0 && to != b.N) {
		panic("kernel: a cut of columns is not a multiple of the widest tile")
	}
	if b.layout != t.tier {
		panic("kernel: weights were packed for another instruction tier")
	}
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
	t.checkColumns(b, from, to)
	acc = matrix(acc, ldc, m, b.N)
	if b.K == 0 {
		for i := range m {
			clear(acc[i*ldc:][from:to])
		}
		return
	}
	a = matrix(a, lda, m, b.K)
	if t.s8 != nil {
		b.tiles.gemm(acc, nil, ldc, a, lda, b, m, from, to, s)
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
		b.tiles.gemm(nil, s.requant(rowRequant{dst: dst, bias: bias[:n], m: mult[:n], zero: zero, lo: lo, hi: hi}), n, matrix(a, lda, m, b.K), lda, b, m, 0, n, s)
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
