package ptq

import (
	"fmt"
	"math"
	"slices"

	"github.com/narrow-ml/narrow/quant"
)

// The settings of PyTorch's HistogramObserver (D8), release 1.13.
const (
	searchStep = 1e-5 // of the values, left out at one end per step
	upsample   = 128  // bins per bin when a histogram is widened
)

// searchBins is a histogram over equal bins from min on.
type searchBins struct {
	min, width float64
	count      []float64
}

// search narrows the range of bins while the squared error of quantizing what is in it, and clipping the rest, falls: at
// each step the end that covers more bins for the same share of the values gives way, and the first step that raises the
// error ends it. levels is the number of codes. Values are taken to be spread evenly within a bin.
func (b *searchBins) search(levels int) (lo, hi float64) {
	total := 0.0
	below := make([]float64, len(b.count)) // up to and with each bin
	for i, c := range b.count {
		total += c
		below[i] = total
	}
	first, last := 0, len(b.count)-1
	alpha, beta, least := 0.0, 1.0, math.Inf(1)
	for alpha < beta {
		a, z := alpha+searchStep, beta-searchStep
		l, r := first, last
		for l < last && below[l] < float64(a*total) {
			l++
		}
		for r > first && below[r] > float64(z*total) {
			r--
		}
		nextFirst, nextLast := first, last
		if l-first > last-r {
			nextFirst, alpha = l, a
		} else {
			nextLast, beta = r, z
		}
		if nextFirst == first && nextLast == last {
			continue
		}
		e := b.squaredError(nextFirst, nextLast, levels)
		if e > least {
			break
		}
		least, first, last = e, nextFirst, nextLast
	}
	return b.min + float64(b.width*float64(first)), b.min + float64(b.width*float64(last+1))
}

// squaredError is the sum over the values of (x - its code's centre)^2 when bins first to last are cut into levels.
func (b *searchBins) squaredError(first, last, levels int) float64 {
	step := b.width * float64(last-first+1) / float64(levels)
	if step == 0 {
		return 0
	}
	level := func(x float64) float64 { return min(max(math.Floor(x/step), 0), float64(levels-1)) }
	cube := func(from, to float64) float64 { return (float64(to*to*to) - float64(from*from*from)) / 3 }
	sum := 0.0
	for i, c := range b.count {
		if c == 0 {
			continue
		}
		from := float64(float64(i-first) * b.width)
		to := from + b.width
		lf, lt := level(from), level(to)
		e := cube(from-float64((lf+0.5)*step), step/2) + float64((lt-lf-1)*cube(-step/2, step/2)) + cube(-step/2, to-float64((lt+0.5)*step))
		sum += float64(c / b.width * e)
	}
	return sum
}

// searched is the range of method histogram on the exact histogram, its bins merged to at most 2048 on each side.
func (h *histogram) searched(spec quant.Spec) (lo, hi float32) {
	const half = sideBins / klMerge
	all := make([]float64, 2*half)
	first, last := half, half
	for i := range sideBins {
		if c := h.neg[i]; c != 0 {
			all[half-1-i/klMerge] += float64(c)
			first = min(first, half-1-i/klMerge)
		}
		if c := h.pos[i]; c != 0 {
			all[half+i/klMerge] += float64(c)
			last = max(last, half+i/klMerge)
		}
	}
	all[half] += float64(h.zeros)
	width := klMerge * h.width()
	glo, ghi := spec.Grid()
	b := searchBins{min: float64(first-half) * width, width: width, count: all[first : last+1]}
	l, u := b.search(int(ghi - glo + 1))
	return max(h.min, float32(l)), min(h.max, float32(u))
}

// HistogramObserver finds a range as PyTorch's observer of that name does (release 1.13): a histogram of fixed bins that is
// widened, by upsampling, when a batch goes beyond it, and the search of method histogram on it. It is for comparison with
// models calibrated there: its histogram depends on the order of the batches, that of [Calibrate] does not. The zero value
// with Bins and Levels set is ready.
type HistogramObserver struct {
	Bins   int // 2048 in PyTorch
	Levels int // of the codes: 256 for 8 bits
	// Truncate counts as release 1.13 itself does: the bounds of the histogram lose their fractions, values beyond them are
	// not counted, and bins are taken to lie where they would have been. Later releases corrected this.
	Truncate bool

	min, max float64
	count    []float64
}

// Observe counts a batch. NaN and infinities are an error, and the state is then unchanged.
func (o *HistogramObserver) Observe(x []float32) error {
	if o.Bins < 1 || o.Levels < 2 {
		return fmt.Errorf("histogram observer: %d bins and %d levels; it needs at least 1 and 2", o.Bins, o.Levels)
	}
	if len(x) == 0 {
		return nil
	}
	lo, hi := float64(x[0]), float64(x[0])
	for i, v := range x {
		if v != v || math.IsInf(float64(v), 0) {
			return fmt.Errorf("histogram observer: %w", &valueError{i, v})
		}
		lo, hi = min(lo, float64(v)), max(hi, float64(v))
	}
	if o.count == nil || o.min == o.max {
		o.min, o.max = lo, hi
		o.count = o.counts(x)
		return nil
	}
	min0, max0, old := o.min, o.max, o.count
	fine := (max0 - min0) / float64(o.Bins*upsample)
	lo, hi = min(lo, min0), max(hi, max0)
	down := int(math.Ceil((hi - lo) / float64(float64(o.Bins)*fine)))
	o.min = lo
	o.max = hi + (float64(float64(down*o.Bins)*fine) - (hi - lo))
	o.count = o.counts(x)
	if o.min == min0 && o.max == max0 {
		for i, c := range old {
			o.count[i] += c
		}
		return nil
	}
	start := int(math.RoundToEven((min0 - lo) / fine))
	for i, c := range old {
		for j := range upsample {
			if at := (start + i*upsample + j) / down; at < o.Bins {
				o.count[at] += c / upsample
			}
		}
	}
	return nil
}

// counts is the histogram of x over the present range; the largest value belongs to the last bin.
func (o *HistogramObserver) counts(x []float32) []float64 {
	out := make([]float64, o.Bins)
	lo, hi := o.min, o.max
	if o.Truncate {
		if lo, hi = math.Trunc(lo), math.Trunc(hi); lo == hi {
			lo, hi = float64(slices.Min(x)), float64(slices.Max(x))
		}
	}
	if lo == hi {
		out[o.Bins/2] = float64(len(x))
		return out
	}
	for _, v := range x {
		if v := float64(v); v >= lo && v <= hi {
			out[min(int((v-lo)/(hi-lo)*float64(o.Bins)), o.Bins-1)]++
		}
	}
	return out
}

// Range is the range that the search chooses, [0, 0] before any value.
func (o *HistogramObserver) Range() (lo, hi float32) {
	if o.count == nil {
		return 0, 0
	}
	b := searchBins{min: o.min, width: (o.max - o.min) / float64(o.Bins), count: o.count}
	l, u := b.search(o.Levels)
	return float32(l), float32(u)
}
