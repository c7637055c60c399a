package kernel

// Gemm computes dst = A*B, or dst += A*B when accumulate is set, in float32:
//
//	dst[i*ldc+j] (+)= sum_k A(i,k) * B(k,j)        i < m, j < n, k < K
//
// A(i,k) is a[i*lda+k], or a[k*lda+i] when transA is set; B(k,j) is b[k*ldb+j],
// or b[j*ldb+k] when transB is set. Strides may be larger than the width. The
// order of the sum depends on K alone, so callers may cut m and n freely. The
// fast forms are NN and TN; transB copies B first.
func Gemm(dst []float32, ldc int, a []float32, lda int, transA bool, b []float32, ldb int, transB bool, m, n, k int, accumulate bool, scratch *Scratch) {
	active.gemm(dst, ldc, a, lda, transA, b, ldb, transB, m, n, k, accumulate, scratch)
}

func (t *isa) gemm(dst []float32, ldc int, a []float32, lda int, transA bool, b []float32, ldb int, transB bool, m, n, k int, accumulate bool, s *Scratch) {
	if m <= 0 || n <= 0 {
		return
	}
	dst = matrix(dst, ldc, m, n)
	if k <= 0 {
		if !accumulate {
			for i := range m {
				clear(dst[i*ldc : i*ldc+n])
			}
		}
		return
	}
	rs, cs := lda, 1 // distances of A's rows and columns
	if transA {
		a = matrix(a, lda, k, m)
		rs, cs = 1, lda
	} else {
		a = matrix(a, lda, m, k)
	}
	if transB {
		b = matrix(b, ldb, n, k)
		if t.f32 != nil && m*(n+k) < n*k {
			t.gemmSwapped(dst, ldc, a, rs, cs, b, ldb, m, n, k, accumulate, s)
			return
		}
		packed := grow(&s.pack, k*n)
		t.transpose(packed, n, b, ldb, n, k)
		b, ldb = packed, n
	} else {
		b = matrix(b, ldb, k, n)
	}
	if t.f32 != nil {
		t.f32.gemm(dst, ldc, a, rs, cs, b, ldb, m, n, k, accumulate, s)
		return
	}
	gemmGeneric(dst, ldc, a, rs, cs, b, ldb, m, n, k, accumulate)
}

// gemmSwapped computes A*B^T for few rows of A as (B*A^T)^T, which transposes
// A and the result instead of B. Products commute and sums keep their order,
// so the bits are those of the other way.
func (t *isa) gemmSwapped(dst []float32, ldc int, a []float32, rs, cs int, b []float32, ldb, m, n, k int, accumulate bool, s *Scratch) {
	at, out := grow(&s.pack, k*m), grow(&s.tile, n*m)
	if cs == 1 {
		t.transpose(at, m, a, rs, m, k)
	} else {
		for p := range k {
			copy(at[p*m:][:m], a[p*cs:])
		}
	}
	if accumulate {
		t.transpose(out, m, dst, ldc, m, n)
	}
	t.f32.gemm(out, m, b, ldb, 1, at, m, n, m, k, accumulate, s)
	t.transpose(dst, ldc, out, m, n, m)
}

// matrix returns x cut to the end of its last row; a row longer than its
// stride or a slice too short is a bounds panic here, before any work.
func matrix[T any](x []T, stride, rows, cols int) []T {
	if stride < cols && rows > 1 {
		panic("kernel: row stride is smaller than the row")
	}
	return x[:(rows-1)*stride+cols]
}

// transpose writes dst[j*ldd+i] = src[i*lds+j] for i < rows, j < cols.
func (t *isa) transpose(dst []float32, ldd int, src []float32, lds, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	src, dst = src[:(rows-1)*lds+cols], dst[:(cols-1)*ldd+rows]
	r, c := t.transposeVec(dst, ldd, src, lds, rows, cols)
	if c < cols {
		transposeGeneric(dst[c*ldd:], ldd, src[c:], lds, rows, cols-c)
	}
	if r < rows {
		transposeGeneric(dst[r:], ldd, src[r*lds:], lds, rows-r, c)
	}
}

// transposeGeneric is transpose in blocks that stay in the first-level cache.
func transposeGeneric[T any](dst []T, ldd int, src []T, lds, rows, cols int) {
	const block = 16
	for i0 := 0; i0 < rows; i0 += block {
		i1 := min(i0+block, rows)
		for j0 := 0; j0 < cols; j0 += block {
			j1 := min(j0+block, cols)
			for j := j0; j < j1; j++ {
				out := dst[j*ldd+i0 : j*ldd+i1]
				for i := range out {
					out[i] = src[(i0+i)*lds+j]
				}
			}
		}
	}
}

// gemmGeneric is the definition of Gemm with B not transposed: one rounding
// per product, one per sum, k ascending.
func gemmGeneric(dst []float32, ldc int, a []float32, rs, cs int, b []float32, ldb, m, n, k int, accumulate bool) {
	for i := range m {
		row := dst[i*ldc : i*ldc+n]
		if !accumulate {
			clear(row)
		}
		p := 0
		for ; p+4 <= k; p += 4 {
			a0, a1 := a[i*rs+p*cs], a[i*rs+(p+1)*cs]
			a2, a3 := a[i*rs+(p+2)*cs], a[i*rs+(p+3)*cs]
			b0, b1 := b[p*ldb:][:n], b[(p+1)*ldb:][:n]
			b2, b3 := b[(p+2)*ldb:][:n], b[(p+3)*ldb:][:n]
			for j, c := range row {
				c += float32(a0 * b0[j])
				c += float32(a1 * b1[j])
				c += float32(a2 * b2[j])
				row[j] = c + float32(a3*b3[j])
			}
		}
		for ; p < k; p++ {
			ap := a[i*rs+p*cs]
			for j, bp := range b[p*ldb:][:n] {
				row[j] += float32(ap * bp)
			}
		}
	}
}
