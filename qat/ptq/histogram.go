package ptq

import (
	"fmt"
	"math"
)

// sideBins is the number of bins for each sign. The largest magnitude falls into the upper half of them, so a range is
// covered by at least 4096 bins: 16 or more within one step of an 8-bit grid.
const sideBins = 1 << 13

// minExp keeps bin edges exact in float32 arithmetic: below it lie only subnormal bin widths.
const minExp = -126

// histogram counts values by sign and magnitude. Bin i of a side holds i*w <= |x| < (i+1)*w with w = 2^exp, the smallest
// power of two for which the largest magnitude fits. Doubling w merges bins 2i and 2i+1 into i without any error.
type histogram struct {
	exp      int
	pos, neg []int64
	zeros    int64 // exact zeros, counted apart: after a ReLU they are many, and every grid represents them
	n        int64
	min, max float32
}

func newHistogram() *histogram {
	return &histogram{exp: minExp, pos: make([]int64, sideBins), neg: make([]int64, sideBins)}
}

// valueError reports a value that has no place in a range.
type valueError struct {
	index int
	value float32
}

func (e *valueError) Error() string { return fmt.Sprintf("value[%d] is %v", e.index, e.value) }

// add counts the values of one batch. NaN and infinities are a valueError; the histogram is then unchanged.
func (h *histogram) add(x []float32) error {
	if len(x) == 0 {
		return nil
	}
	lo, hi := x[0], x[0]
	for i, v := range x {
		if v != v || v > math.MaxFloat32 || v < -math.MaxFloat32 {
			return &valueError{i, v}
		}
		lo, hi = min(lo, v), max(hi, v)
	}
	if h.n == 0 {
		h.min, h.max = lo, hi
	} else {
		h.min, h.max = min(h.min, lo), max(h.max, hi)
	}
	h.n += int64(len(x))
	h.grow(max(hi, -lo))
	inv := math.Ldexp(1, -h.exp) // a power of two: the product below is exact
	for _, v := range x {
		switch {
		case v > 0:
			h.pos[int(float64(v)*inv)]++
		case v < 0:
			h.neg[int(-float64(v)*inv)]++
		default:
			h.zeros++
		}
	}
	return nil
}

// grow widens the bins until magnitude a fits.
func (h *histogram) grow(a float32) {
	_, e := math.Frexp(float64(a)) // a < 2^e
	want := max(e-13, minExp)      // sideBins = 2^13
	if a == 0 || want <= h.exp {
		return
	}
	shift := want - h.exp
	h.exp = want
	for _, side := range [][]int64{h.pos, h.neg} {
		for i, c := range side {
			if c == 0 {
				continue
			}
			side[i] = 0
			if j := i >> min(shift, 63); j < i {
				side[j] += c
			} else {
				side[i] = c // only bin 0 stays where it is
			}
		}
	}
}

// width is the extent of one bin.
func (h *histogram) width() float64 { return math.Ldexp(1, h.exp) }

// clipped is the range of method percentile: no more than a share 1-p/100 of the values lies outside it. The bounds are
// bin edges, or the extremes where nothing has to be clipped.
func (h *histogram) clipped(p float64) (lo, hi float32) {
	tail := float64(100-p) / 100 * float64(h.n)
	if h.min < 0 && h.max > 0 {
		tail /= 2
	}
	return -h.edge(h.neg, -h.min, int64(tail)), h.edge(h.pos, h.max, int64(tail))
}

// edge is the smallest upper bin edge with at most tail values of the side above it. extreme is the side's largest
// magnitude; a side without values ends at 0.
func (h *histogram) edge(side []int64, extreme float32, tail int64) float32 {
	if extreme <= 0 {
		return 0
	}
	var above int64
	for i := len(side) - 1; i >= 0; i-- {
		if above+side[i] > tail {
			return min(extreme, float32(float64(i+1)*h.width()))
		}
		above += side[i]
	}
	return 0
}

// bins calls visit with the middle and the count of every bin that holds values other than exact zeros.
func (h *histogram) bins(visit func(x float32, count int64)) {
	w := h.width()
	for i, c := range h.neg {
		if c != 0 {
			visit(float32(-(float64(i)+0.5)*w), c)
		}
	}
	for i, c := range h.pos {
		if c != 0 {
			visit(float32((float64(i)+0.5)*w), c)
		}
	}
}
