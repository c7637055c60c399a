package ptq

import (
	"math"

	"github.com/narrow-ml/narrow/internal/elementary"
	"github.com/narrow-ml/narrow/quant"
)

// The settings of the kl method (D8): the number of magnitude bins is at most 2048 and the search begins at 128 of them.
const (
	klMerge = sideBins / 2048
	klStart = 128
)

// leastDivergence is the range [-a, a], or [0, a] of a tensor with one sign, whose a loses the least information: of all a
// that are bin edges, the one with the smallest Kullback-Leibler divergence of the clipped histogram from the same
// histogram merged into the levels of the grid. Of equals the widest wins.
func (h *histogram) leastDivergence(spec quant.Spec) (lo, hi float32) {
	bins := make([]float64, 2048)
	used := 0
	for i := range sideBins {
		if c := h.pos[i] + h.neg[i]; c != 0 {
			bins[i/klMerge] += float64(c)
			used = i/klMerge + 1
		}
	}
	glo, ghi := spec.Grid()
	levels := int(ghi - glo + 1)
	if h.min < 0 && h.max > 0 {
		levels /= 2
	}
	a := float32(float64(divergenceEdge(bins[:used], max(levels, 1))) * klMerge * h.width())
	return max(h.min, -a), min(h.max, a)
}

// divergenceEdge is how many of the bins the range should keep. With r the bins, the first replaced by the second (it holds
// the zeros, which every grid represents), n kept and the tail added to the last of them,
//
//	p_i = r_i / sum r      q_i = mean of the r_j that are not zero in the level of i, where r_i is not zero
//	KL  = sum p_i * log(p_i / (q_i / sum q))
//
// Sums over prefixes give the terms of one n from its levels alone.
func divergenceEdge(bins []float64, levels int) int {
	n := len(bins)
	if n <= max(klStart, levels) {
		return n
	}
	r := append([]float64(nil), bins...)
	r[0] = r[1]
	sum, filled, self := make([]float64, n+1), make([]int, n+1), make([]float64, n+1)
	for i, v := range r {
		sum[i+1], filled[i+1], self[i+1] = sum[i]+v, filled[i], self[i]
		if v > 0 {
			filled[i+1]++
			self[i+1] += float64(v * elementary.Log(v))
		}
	}
	best, least := n, math.Inf(1)
	for keep := max(klStart, levels); keep <= n; keep++ {
		last, tail := r[keep-1], sum[n]-sum[keep]
		if last == 0 || sum[keep] == 0 { // the tail meets an empty bin: the divergence is infinite
			continue
		}
		cross, from := 0.0, 0
		for level := 1; level <= levels; level++ {
			to := (level*keep + levels - 1) / levels
			mass, count := sum[to]-sum[from], filled[to]-filled[from]
			if level == levels {
				cross += float64(tail * elementary.Log(mass/float64(count)))
			}
			if count > 0 {
				cross += float64(mass * elementary.Log(mass/float64(count)))
			}
			from = to
		}
		own := self[keep-1] + float64((last+tail)*elementary.Log(last+tail))
		kl := (own-cross)/sum[n] - elementary.Log(sum[n]) + elementary.Log(sum[keep])
		if kl <= least {
			best, least = keep, kl
		}
	}
	return best
}
