package kernel

// GemmRow is Gemm of one row, y = a*B with B a [k,n] matrix, for the dense
// layers of a single example: most of its time goes to reading B. half may
// hold the same matrix in 16 bits, of format f, which is read instead where
// the tier can. The bits are Gemm's.
func GemmRow(y, a, b []float32, half []uint16, f Rounding, n, k int, s *Scratch) {
	active.gemmRow(y, a, b, half, f, n, k, s)
}

func (t *isa) gemmRow(y, a, b []float32, half []uint16, f Rounding, n, k int, s *Scratch) {
	if n <= 0 || k <= 0 {
		t.gemm(y, n, a, k, false, b, n, false, 1, n, k, false, s)
		return
	}
	y, a, b = y[:n], a[:k], b[:n*k]
	if half != nil {
		half = half[:n*k]
	}
	done := t.oneRowVec(y, a, b, half, f, n, k)
	if done < n {
		t.gemm(y[done:], n, a, k, false, b[done:], n, false, 1, n-done, k, false, s)
	}
}
