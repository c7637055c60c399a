package kernel

import (
	"slices"
	"testing"
)

// A matrix packed by columns, in any order, is the matrix packed at once, also where the memory held another one before.
func TestPackByColumns(t *testing.T) {
	eachTier(t, func(t *testing.T, kern *isa) {
		r := newRand(5)
		var cut PackedS8
		for _, shape := range [][2]int{{7, 130}, {784, 96}, {3, 33}, {64, 10}, {1, 1}, {16, 33}, {30, 64}} {
			k, n := shape[0], shape[1]
			w := make([]int8, k*n)
			randomCodes(r, w)
			if k%2 == 0 && k < 64 {
				fewBits(w)
			}
			var whole PackedS8
			kern.packS8(&whole, w, k, n)
			kern.beginPack(&cut, w, k, n)
			for from := (n - 1) / ColumnUnit * ColumnUnit; from >= 0; from -= ColumnUnit {
				kern.packColumns(&cut, from, min(from+ColumnUnit, n))
			}
			if !slices.Equal(cut.ColSums, whole.ColSums) || !slices.Equal(cut.panels, whole.panels) {
				t.Errorf("%d x %d: packed by columns, it is not the same", k, n)
			}
		}
	})
}
