package ptq

import (
	"math"
	"testing"

	"github.com/narrow-ml/narrow/quant"
)

// literalEdge is D8 word for word: the candidate distribution is built for every number of bins, and scipy's entropy is
// written out.
func literalEdge(bins []float64, levels int) int {
	n := len(bins)
	r := append([]float64(nil), bins...)
	r[0] = r[1]
	best, least := n, math.Inf(1)
	for keep := max(klStart, levels); keep <= n; keep++ {
		sums, counts := make([]float64, levels), make([]float64, levels)
		for i, v := range r[:keep] {
			if v > 0 {
				sums[i*levels/keep] += v
				counts[i*levels/keep]++
			}
		}
		p, q := append([]float64(nil), r[:keep]...), make([]float64, keep)
		for _, v := range r[keep:] {
			p[keep-1] += v
		}
		var sp, sq float64
		for i := range q {
			if r[i] > 0 {
				q[i] = sums[i*levels/keep] / counts[i*levels/keep]
			}
			sp, sq = sp+p[i], sq+q[i]
		}
		kl := 0.0
		for i := range q {
			if p[i] > 0 {
				kl += p[i] / sp * math.Log(p[i]/sp/(q[i]/sq)) // +Inf where q is 0
			}
		}
		if kl <= least+1e-12 {
			best, least = keep, min(kl, least)
		}
	}
	return best
}

func TestDivergenceEdgeD8(t *testing.T) {
	for seed := range uint64(6) {
		for _, levels := range []int{2, 16, 128, 256} {
			x := normals(3000, 20+seed)
			bins := make([]float64, 400)
			for _, v := range x {
				if seed%2 == 0 {
					v *= v * v / 2 // a heavy tail, with holes
				}
				bins[min(int(math.Abs(float64(v))*60), len(bins)-1)]++
			}
			for bins[len(bins)-1] == 0 {
				bins = bins[:len(bins)-1]
			}
			if got, want := divergenceEdge(bins, levels), literalEdge(bins, levels); got != want && len(bins) > max(klStart, levels) {
				t.Errorf("seed %d, %d levels of %d bins: keeps %d, the definition %d", seed, levels, len(bins), got, want)
			}
		}
	}
	if got := divergenceEdge(make([]float64, 40), 256); got != 40 {
		t.Errorf("fewer bins than levels: keeps %d of 40", got)
	}
}

// TestDivergenceClipsATail: a few values far out do not take the grid from the many.
func TestDivergenceClipsATail(t *testing.T) {
	x := normals(50000, 3)
	for i := range x {
		x[i] = max(x[i], -x[i])
	}
	x[5] = 40
	for _, m := range []Method{KL, Histogram} {
		spec := quant.ActSpec(quant.Int4)
		s, z, err := filled(t, x).choose(spec, m, 99.99)
		if top := float64(s) * 15; err != nil || z != 0 || top > 12 || top < 1.5 {
			t.Errorf("%s: range [0, %v], zero %d, error %v, for |normal| values and one at 40", m, top, z, err)
		}
	}
	both := normals(50000, 4)
	lo, hi := filled(t, both).leastDivergence(quant.ActSpec(quant.Int4))
	if math.Abs(float64(lo+hi)) > 0.5 || hi < 1.5 {
		t.Errorf("both signs: [%v, %v]", lo, hi)
	}
}

// TestSquaredErrorIsTheIntegral compares the closed form with a sum over fine slices of each bin.
func TestSquaredErrorIsTheIntegral(t *testing.T) {
	b := searchBins{min: -1, width: 0.25, count: []float64{3, 0, 1, 7, 2, 2, 0, 1, 5, 1}}
	for _, tc := range [][3]int{{0, 9, 4}, {1, 8, 3}, {2, 5, 16}, {3, 9, 7}} {
		first, last, levels := tc[0], tc[1], tc[2]
		step := b.width * float64(last-first+1) / float64(levels)
		const slices = 20000
		want := 0.0
		for i, c := range b.count {
			for k := range slices {
				x := (float64(i-first) + (float64(k)+0.5)/slices) * b.width
				level := min(max(math.Floor(x/step), 0), float64(levels-1))
				d := x - (level+0.5)*step
				want += c / slices * d * d
			}
		}
		if got := b.squaredError(first, last, levels); math.Abs(got-want) > 1e-4*want {
			t.Errorf("bins %d to %d on %d levels: %v, the sum is %v", first, last, levels, got, want)
		}
	}
}
