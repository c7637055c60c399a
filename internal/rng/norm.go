package rng

// Norm returns a deviate of the normal distribution with mean 0 and variance 1.
//
// It is algorithm N of Karney, "Sampling exactly from the normal distribution" (arXiv:1303.6257, section 3): the
// deviate is +-(k + x), k a whole number and x in [0, 1) with 53 bits. Only comparisons and one correctly rounded
// division decide, so every CPU accepts and rejects alike. The comparisons use 32-bit uniforms: probabilities are off
// by about 2^-32, far below what any sample could show.
//
//	k with probability proportional to exp(-k/2), then kept with probability exp(-k(k-1)/2)
//	x uniform, kept with probability exp(-x(2k+x)/2)
func (s *Stream) Norm() float64 {
	for {
		k := 0
		for s.expHalf() {
			k++
		}
		if !s.expHalves(k * (k - 1)) {
			continue
		}
		x := s.Float64()
		if !s.expTail(k, x) {
			continue
		}
		y := float64(k) + x
		if s.Uint32()&1 != 0 {
			return -y
		}
		return y
	}
}

// expHalf is true with probability exp(-1/2): von Neumann's trick. The length n of the run 1/2 > u1 > u2 > ... > un
// is even with that probability.
func (s *Stream) expHalf() bool {
	bound, even := uint32(1)<<31, true
	for {
		u := s.Uint32()
		if u >= bound {
			return even
		}
		bound, even = u, !even
	}
}

// expHalves is true with probability exp(-n/2).
func (s *Stream) expHalves(n int) bool {
	for range n {
		if !s.expHalf() {
			return false
		}
	}
	return true
}

// expTail is true with probability exp(-x(2k+x)/2): k+1 independent trials, each true with probability exp(-x*p),
// p = (2k+x)/(2k+2). A trial is von Neumann's run starting at x, every link of which also survives with probability p.
func (s *Stream) expTail(k int, x float64) bool {
	p := (float64(2*k) + x) / float64(2*k+2)
	for range k + 1 {
		bound, even := x, true
		for {
			u := s.unit()
			if u >= bound || s.unit() >= p {
				break
			}
			bound, even = u, !even
		}
		if !even {
			return false
		}
	}
	return true
}

// unit is one word as a number in [0, 1).
func (s *Stream) unit() float64 { return float64(s.Uint32()) * 0x1p-32 }
