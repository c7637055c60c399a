package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

func TestGemmU8S8IsExact(t *testing.T) {
	sizes := []int{0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 65}
	if testing.Short() {
		sizes = []int{0, 1, 5, 32, 33}
	}
	eachTier(t, func(t *testing.T, kern *isa) {
		i := 0
		for _, m := range sizes {
			for _, n := range sizes {
				for _, k := range sizes {
					i++
					checkGemmU8(t, kern, m, n, k, i%4, i%9)
				}
			}
		}
		checkGemmU8(t, kern, 64, 256, 784, 0, 0)
		checkGemmU8(t, kern, 37, 70, 1153, 3, 1)
	})
}

func checkGemmU8(t *testing.T, kern *isa, m, n, k, pad, shift int) {
	t.Helper()
	r := newRand(uint64(m*1000003 + n*1009 + k))
	lda, ldc := k+pad, n+pad
	ga := qtest.Guarded[uint8](max(0, (m-1)*lda+k), shift)
	gc := qtest.Guarded[int32](max(0, (m-1)*ldc+n), shift)
	w := make([]int8, k*n)
	randomCodes(r, ga.Data)
	randomCodes(r, w)
	if (m+n)%3 == 0 { // the extremes, which overflow int16 pair sums
		fill(ga.Data, 255)
		fill(w, -127)
	}
	if (m+k)%2 == 0 {
		fewBits(w)
	}
	for i := range gc.Data {
		gc.Data[i] = -77
	}
	var p PackedS8
	kern.packS8(&p, w, k, n)
	kern.gemmU8S8(gc.Data, ldc, ga.Data, lda, &p, m, 0, p.N, new(Scratch))
	if err := gc.Check(); err != nil {
		t.Fatalf("m=%d n=%d k=%d: %v", m, n, k, err)
	}
	for i, got := range gc.Data {
		row, col := i/ldc, i%ldc
		want := int64(-77)
		if col < n {
			want = 0
			for q := range k {
				want += int64(ga.Data[row*lda+q]) * int64(w[q*n+col])
			}
		}
		if int64(got) != want {
			t.Fatalf("m=%d n=%d k=%d pad=%d: acc[%d,%d] = %d, want %d", m, n, k, pad, row, col, got, want)
		}
	}
}

// fewBits brings codes to the greatest magnitudes that the tiles for few bits
// take.
func fewBits(w []int8) {
	for i, v := range w {
		w[i] = max(min(v, limitS6), -limitS6)
	}
}

// The tiles for few bits are for weights of at most limitS6, wherever the
// greatest one lies.
func TestFewBits(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		r := newRand(11)
		for _, n := range []int{1, 31, 32, 33, 100, 640} {
			w := make([]int8, 8*n)
			randomCodes(r, w)
			fewBits(w)
			at := r.IntN(len(w))
			for _, top := range []int8{limitS6, -limitS6, limitS6 + 1, -limitS6 - 1, 127, -128} {
				w[at] = top
				var p PackedS8
				kern.packS8(&p, w, 8, n)
				if few := p.tiles == kern.s6 && kern.s6 != nil; few != (kern.s6 != nil && top <= limitS6 && top >= -limitS6) {
					t.Errorf("%d columns, weight %d at %d: tiles for few bits: %t", n, top, at, few)
				}
			}
		}
	})
}

func TestPackS8ColumnSums(t *testing.T) {
	p := PackS8([]int8{1, -127, 3, 4, -127, 6}, 3, 2)
	if err := qtest.Same("column sums", p.ColSums, []int32{1 + 3 - 127, -127 + 4 + 6}); err != nil {
		t.Error(err)
	}
	p.Repack([]int8{5}, 1, 1) // smaller, into the same memory
	acc := make([]int32, 1)
	GemmU8S8(acc, 1, []uint8{200}, 1, p, 1, new(Scratch))
	if acc[0] != 1000 || p.ColSums[0] != 5 || len(p.ColSums) != 1 {
		t.Errorf("after Repack: acc %d, sums %v", acc, p.ColSums)
	}
}

// requantReference follows the definition step by step in the types it names.
func requantReference(acc, bias int32, m float32, zero, lo, hi int32) uint8 {
	t := float32(acc+bias) * m
	t = float32(math.Min(math.Max(float64(t), float64(lo-zero)), float64(hi-zero)))
	return uint8(int32(math.RoundToEven(float64(t))) + zero)
}

func TestRequantRowsMatchesTheDefinition(t *testing.T) {
	r := newRand(1)
	grids := [][3]int32{{0, 0, 255}, {128, 0, 255}, {128, 1, 255}, {3, 3, 200}, {255, 0, 255}, {7, 0, 15}, {128, 127, 129}}
	eachTier(t, func(t *testing.T, kern *isa) {
		for _, channels := range []int{1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100} {
			for trial := range 12 {
				grid := grids[trial%len(grids)]
				n := channels * (1 + r.IntN(20))
				acc, bias := make([]int32, n), make([]int32, channels)
				m := make([]float32, channels)
				for c := range m {
					m[c] = float32(math.Exp2(-10 * r.Float64()))
					bias[c] = r.Int32N(2001) - 1000
					if trial%3 == 0 { // many exact halves
						m[c], bias[c] = 0.5, 0
					}
				}
				for i := range acc {
					acc[i] = r.Int32N(1200) - 600
					if r.IntN(10) == 0 {
						acc[i] = []int32{0, 1 << 30, -1 << 30, 1<<24 + 1, -(1<<24 + 3)}[r.IntN(5)]
					}
				}
				useBias := bias
				if trial%4 == 0 {
					useBias = nil
					clear(bias)
				}
				dst := qtest.Guarded[uint8](n, trial)
				kern.requantRows(dst.Data, acc, useBias, m, grid[0], grid[1], grid[2], channels)
				scaled := qtest.Guarded[float32](n, trial)
				kern.scaleRows(scaled.Data, acc, useBias, m, channels)
				for i, got := range dst.Data {
					c := i % channels
					if want := requantReference(acc[i], bias[c], m[c], grid[0], grid[1], grid[2]); got != want {
						t.Fatalf("channels=%d grid=%v acc=%d bias=%d m=%v: %d, want %d", channels, grid, acc[i], bias[c], m[c], got, want)
					}
					if want := float32(acc[i]+bias[c]) * m[c]; scaled.Data[i] != want {
						t.Fatalf("ScaleRows: %v, want %v", scaled.Data[i], want)
					}
				}
				if err := dst.Check(); err != nil {
					t.Fatal(err)
				}
				if err := scaled.Check(); err != nil {
					t.Fatal(err)
				}
				checkRequantTrain(t, kern, acc, bias, m, grid, channels, trial%2 == 0)
			}
		}
	})
}

func checkRequantTrain(t *testing.T, kern *isa, acc, bias []int32, m []float32, grid [3]int32, channels int, relu bool) {
	t.Helper()
	zero, lo, hi := grid[0], grid[1], grid[2]
	dst, mask := qtest.Guarded[uint8](len(acc), 3), qtest.Guarded[uint8](MaskLen(len(acc)), 1)
	st := kern.requantTrain(dst.Data, mask.Data, acc, bias, m, zero, lo, hi, relu, channels)
	least, most := math.Inf(1), math.Inf(-1)
	for i := range acc {
		c := i % channels
		v := float64(float32(acc[i]+bias[c]) * m[c])
		least, most = math.Min(least, v), math.Max(most, v)
		q := math.RoundToEven(v)
		in := q >= float64(lo-zero) && q <= float64(hi-zero) && (!relu || v > 0)
		if got := mask.Data[i/8]>>(i%8)&1 == 1; got != in {
			t.Fatalf("grid %v relu %v t=%v: mask %v, want %v", grid, relu, v, got, in)
		}
		if want := requantReference(acc[i], bias[c], m[c], zero, lo, hi); dst.Data[i] != want {
			t.Fatalf("grid %v t=%v: code %d, want %d", grid, v, dst.Data[i], want)
		}
	}
	if float64(st.Min) != least || float64(st.Max) != most {
		t.Fatalf("extremes %v, want %v and %v", st, least, most)
	}
	if err := dst.Check(); err != nil {
		t.Fatal(err)
	}
	if err := mask.Check(); err != nil {
		t.Fatal(err)
	}
}

func TestGemmU8S8RequantIsTheTwoSteps(t *testing.T) {
	r := newRand(3)
	eachTier(t, func(t *testing.T, kern *isa) {
		shapes := [][3]int{{1, 1, 1}, {5, 33, 20}, {700, 40, 9}, {64, 256, 100}}
		for _, n := range []int{1, 7, 15, 16, 17, 31, 32, 47, 48, 49} { // every mask, height and tail
			for m := 1; m <= 30; m += 1 + m/15*13 {
				shapes = append(shapes, [3]int{m, n, 1 + r.IntN(11)})
			}
		}
		for _, s := range shapes {
			m, n, k := s[0], s[1], s[2]
			a, w := make([]uint8, m*k), make([]int8, k*n)
			randomCodes(r, a)
			randomCodes(r, w)
			if n%2 == 0 {
				fewBits(w)
			}
			bias, mult := make([]int32, n), make([]float32, n)
			for c := range mult {
				bias[c], mult[c] = r.Int32N(4000)-2000, float32(r.Float64())/100
			}
			var p PackedS8
			kern.packS8(&p, w, k, n)
			acc, want, got := make([]int32, m*n), make([]uint8, m*n), qtest.Guarded[uint8](m*n, m)
			kern.gemmU8S8(acc, n, a, k, &p, m, 0, p.N, new(Scratch))
			kern.requantRows(want, acc, bias, mult, 100, 0, 255, n)
			kern.gemmU8S8Requant(got.Data, a, k, &p, bias, mult, 100, 0, 255, m, new(Scratch))
			for _, err := range []error{qtest.Same("codes", got.Data, want), got.Check()} {
				if err != nil {
					t.Errorf("%v: %v", s, err)
				}
			}
		}
	})
}

func ExampleRequantRows() {
	acc := []int32{10, 11, 13, -500, 500} // halves: 5, 5.5, 6.5
	codes := make([]uint8, len(acc))
	RequantRows(codes, acc, nil, []float32{0.5}, 128, 0, 255, 1)
	fmt.Println(codes)
	// Output: [133 134 134 0 255]
}

// Columns computed apart, in any order and of codes set again and again, are
// those of the whole product.
func TestGemmU8S8ByColumns(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		r := newRand(8)
		var rows RowsU8
		for _, s := range [][3]int{{5, 70, 33}, {64, 96, 784}, {1, 10, 3}, {3, 33, 1}, {400, 40, 700}, {0, 32, 9}, {2, 32, 0}} {
			m, n, k := s[0], s[1], s[2]
			lda := k + r.IntN(3)
			a, w := make([]uint8, m*lda), make([]int8, k*n)
			randomCodes(r, a)
			randomCodes(r, w)
			if n%2 == 0 {
				fewBits(w)
			}
			var p PackedS8
			kern.packS8(&p, w, k, n)
			want, got := make([]int32, m*n), qtest.Guarded[int32](m*n, m)
			kern.gemmU8S8(want, n, a, lda, &p, m, 0, n, new(Scratch))
			kern.setRows(&rows, a, lda, k, m)
			for from := (n - 1) / ColumnUnit * ColumnUnit; from >= 0; from -= ColumnUnit {
				kern.gemmU8S8Columns(got.Data, n, &rows, &p, from, min(from+ColumnUnit, n), new(Scratch))
			}
			for _, err := range []error{qtest.Same("sums", got.Data, want), got.Check()} {
				if err != nil {
					t.Errorf("%v: %v", s, err)
				}
			}
		}
	})
}
