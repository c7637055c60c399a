package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

// gemmCase is one shape; strides exceed widths by pad, data are misaligned by
// shift.
type gemmCase struct {
	m, n, k, pad, shift int
	ta, tb, acc         bool
}

func (c gemmCase) String() string {
	return fmt.Sprintf("m=%d n=%d k=%d pad=%d ta=%v tb=%v acc=%v", c.m, c.n, c.k, c.pad, c.ta, c.tb, c.acc)
}

func stored(rows, cols int, trans bool, pad int) (stride, size int) {
	if trans {
		rows, cols = cols, rows
	}
	return cols + pad, max(0, (rows-1)*(cols+pad)+cols)
}

func checkGemm(t *testing.T, kern *isa, c gemmCase) {
	t.Helper()
	r := newRand(uint64(c.m*1000003 + c.n*1009 + c.k))
	lda, na := stored(c.m, c.k, c.ta, c.pad)
	ldb, nb := stored(c.k, c.n, c.tb, c.pad)
	ldc, nc := stored(c.m, c.n, false, c.pad)
	ga, gb, gc := qtest.Guarded[float32](na, c.shift), qtest.Guarded[float32](nb, c.shift), qtest.Guarded[float32](nc, c.shift)
	a, b, dst := ga.Data, gb.Data, gc.Data
	randomF32(r, a, false)
	randomF32(r, b, false)
	randomF32(r, dst, false)
	before := append([]float32(nil), dst...)
	var s Scratch
	kern.gemm(dst, ldc, a, lda, c.ta, b, ldb, c.tb, c.m, c.n, c.k, c.acc, &s)
	for _, g := range []*qtest.Guard[float32]{ga, gb, gc} {
		if err := g.Check(); err != nil {
			t.Fatalf("%v: %v", c, err)
		}
	}
	for i := range dst {
		row, col := i/ldc, i%ldc
		if col >= c.n {
			if dst[i] != before[i] {
				t.Fatalf("%v: element %d between rows changed", c, i)
			}
			continue
		}
		var sum, mag float64
		if c.acc {
			sum = float64(before[i])
			mag = math.Abs(sum)
		}
		for p := range c.k {
			av, bv := a[row*lda*b2i(!c.ta)+p*lda*b2i(c.ta)+row*b2i(c.ta)+p*b2i(!c.ta)],
				b[p*ldb*b2i(!c.tb)+col*ldb*b2i(c.tb)+p*b2i(c.tb)+col*b2i(!c.tb)]
			sum += float64(av) * float64(bv)
			mag += math.Abs(float64(av) * float64(bv))
		}
		// error of a sum of k terms in float32: k*2^-24 of the sum of magnitudes
		if d := math.Abs(float64(dst[i]) - sum); d > float64(c.k+2)*mag/(1<<24) {
			t.Fatalf("%v: dst[%d,%d] = %v, want %v", c, row, col, dst[i], sum)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestGemmAllSmallShapes(t *testing.T) {
	sizes := []int{0, 1, 2, 3, 5, 8, 13, 15, 16, 17, 31, 32, 33}
	if testing.Short() {
		sizes = []int{0, 1, 3, 16, 33}
	}
	eachTier(t, func(t *testing.T, kern *isa) {
		i := 0
		for _, m := range sizes {
			for _, n := range sizes {
				for _, k := range sizes {
					i++
					checkGemm(t, kern, gemmCase{m, n, k, i % 3 * 5, i % 17, false, false, i%2 == 0})
					checkGemm(t, kern, gemmCase{m, n, k, i % 2 * 7, i % 5, true, false, i%3 == 0})
					checkGemm(t, kern, gemmCase{m, n, k, i % 2 * 3, i % 7, false, true, i%4 == 0})
				}
			}
		}
	})
}

func TestGemmBlockedShapes(t *testing.T) {
	shapes := [][3]int{{64, 64, 64}, {1, 10, 784}, {64, 10, 128}, {129, 65, 257}, {30, 100, 700}, {196, 64, 288}, {288, 64, 196}, {257, 33, 1030}}
	eachTier(t, func(t *testing.T, kern *isa) {
		for i, s := range shapes {
			for form := range 4 {
				checkGemm(t, kern, gemmCase{s[0], s[1], s[2], form * 4, i, form&1 == 1, form&2 == 2, i%2 == 0})
			}
		}
	})
}

// Any cut of the rows or columns of the result gives the same bits.
func TestGemmDoesNotDependOnTheCut(t *testing.T) {
	const m, n, k = 61, 83, 700
	r := newRand(5)
	a, b := make([]float32, m*k), make([]float32, k*n)
	randomF32(r, a, false)
	randomF32(r, b, false)
	eachTier(t, func(t *testing.T, kern *isa) {
		for form := range 4 {
			ta, tb := form&1 == 1, form&2 == 2
			lda, ldb := k, n
			if ta {
				lda = m
			}
			if tb {
				ldb = k
			}
			var s Scratch
			whole := make([]float32, m*n)
			kern.gemm(whole, n, a, lda, ta, b, ldb, tb, m, n, k, false, &s)
			for _, cut := range []int{1, 7, 29, 60} {
				parts := make([]float32, m*n)
				a2, b2 := a[cut*lda:], b[cut:]
				if ta {
					a2 = a[cut:]
				}
				if tb {
					b2 = b[cut*ldb:]
				}
				kern.gemm(parts, n, a, lda, ta, b, ldb, tb, cut, n, k, false, &s)
				kern.gemm(parts[cut*n:], n, a2, lda, ta, b, ldb, tb, m-cut, n, k, false, &s)
				if err := qtest.SameBits("rows", parts, whole); err != nil {
					t.Fatalf("ta=%v tb=%v cut %d: %v", ta, tb, cut, err)
				}
				kern.gemm(parts, n, a, lda, ta, b, ldb, tb, m, cut, k, false, &s)
				kern.gemm(parts[cut:], n, a, lda, ta, b2, ldb, tb, m, n-cut, k, false, &s)
				if err := qtest.SameBits("columns", parts, whole); err != nil {
					t.Fatalf("ta=%v tb=%v cut %d: %v", ta, tb, cut, err)
				}
			}
		}
	})
}

func TestGemmShortSliceStopsBeforeWriting(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		dst := []float32{7, 7, 7, 7}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("a B of 3 elements for a 2x2 matrix was accepted")
				}
			}()
			kern.gemm(dst, 2, make([]float32, 4), 2, false, make([]float32, 3), 2, false, 2, 2, 2, false, new(Scratch))
		}()
		for _, v := range dst {
			if v != 7 {
				t.Fatalf("dst = %v, want it untouched", dst)
			}
		}
	})
}

func TestGemmDoesNotAllocateAfterWarmUp(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		a, b, c := make([]float32, 40*50), make([]float32, 50*60), make([]float32, 40*60)
		var s Scratch
		f := func() { kern.gemm(c, 60, a, 50, false, b, 50, true, 40, 60, 50, false, &s) }
		f()
		if n := testing.AllocsPerRun(10, f); n != 0 {
			t.Errorf("%v allocations per call", n)
		}
	})
}

// Tile columns of B copied together give the bits of those in place.
func TestPackedColumnsSameBits(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		if kern.f32 == nil || kern.f32.pack == nil {
			return // this tier reads B in place
		}
		plain := *kern.f32
		plain.pack = nil
		inPlace := *kern
		inPlace.f32 = &plain
		for i, s := range [][4]int{{packRows, 256, 600, 256}, {40, 250, 1100, 512}, {500, 17, 130, 1024}, {33, 9, 700, 256}, {64, 64, 288, 64}} {
			m, n, k, ldb := s[0], s[1], s[2], s[3]
			if !collide(ldb, min(k, kBlock)) {
				t.Fatalf("%v: rows do not collide, so nothing is copied", s)
			}
			a, b := make([]float32, m*k), make([]float32, (k-1)*ldb+n)
			randomF32(newRand(uint64(i)), a, false)
			randomF32(newRand(uint64(i+9)), b, false)
			for _, add := range []bool{false, true} {
				got, want := qtest.Guarded[float32](m*n, i), make([]float32, m*n)
				fill(got.Data, 3)
				fill(want, 3)
				kern.gemm(got.Data, n, a, k, false, b, ldb, false, m, n, k, add, new(Scratch))
				inPlace.gemm(want, n, a, k, false, b, ldb, false, m, n, k, add, new(Scratch))
				for _, err := range []error{qtest.SameBits("c", got.Data, want), got.Check()} {
					if err != nil {
						t.Fatalf("%v: %v", s, err)
					}
				}
			}
		}
	})
}
