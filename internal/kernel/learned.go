package kernel

// Sums of upstream gradients over the elements that a learned range decides
// about, in units of the scale, t = x/s. They add over 16 float32 lanes in
// blocks of 4096 elements, blocks in float64, as ScaleGrad does.

// OutsideGrad returns the sum of dy over the elements whose rounded value is
// below lo or above hi, both relative to the zero point: what a learned zero
// point moves (arXiv:2004.09576, eq. 5).
func OutsideGrad(dy, x []float32, scale float32, lo, hi int32) float64 {
	flo, fhi := float32(lo), float32(hi)
	return laneSum(dy, x, func(v float32) bool {
		r := rintClamped(v/scale, flo, fhi)
		return r < flo || r > fhi
	})
}

// ReachGrad returns the sum of dy over the elements with x >= scale*hi: what
// the limit of a clipped activation moves (arXiv:1805.06085, eq. 3).
func ReachGrad(dy, x []float32, scale float32, hi int32) float64 {
	fhi := float32(hi)
	return laneSum(dy, x, func(v float32) bool { return v/scale >= fhi })
}

func laneSum(dy, x []float32, in func(v float32) bool) float64 {
	dy = dy[:len(x)]
	var total float64
	for len(x) > 0 {
		px, pdy := x[:min(laneBlock, len(x))], dy[:min(laneBlock, len(x))]
		x, dy = x[len(px):], dy[len(px):]
		var lane [16]float32
		for i, v := range px {
			if in(v) {
				lane[i%16] += pdy[i]
			}
		}
		total += float64(tree16(&lane))
	}
	return total
}
