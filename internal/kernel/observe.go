package kernel

// Observers. Each returns the index of the first NaN, -1 when there is none;
// with a NaN the extremes are those of the other elements. Of no elements they
// are zero. Extremes do not depend on the order of elements, so shards join by
// min and max.

// MinMax returns the least and the greatest element; -0 counts as 0.
func MinMax(x []float32) (lo, hi float32, nan int) { return active.minMax(x) }

// AbsMax returns the greatest magnitude.
func AbsMax(x []float32) (top float32, nan int) {
	lo, hi, nan := active.minMax(x)
	return max(-lo, hi), nan
}

// MinMaxChannels writes the extremes of every channel of the last axis.
func MinMaxChannels(lo, hi, x []float32, channels int) (nan int) {
	return active.minMaxChannels(lo, hi, x, channels)
}

// AbsMaxChannels writes the greatest magnitude in every channel of the last
// axis.
func AbsMaxChannels(dst, x []float32, channels int) (nan int) {
	return active.absMaxChannels(dst, x, channels)
}

func (t *isa) minMax(x []float32) (lo, hi float32, nan int) {
	if len(x) > 0 && x[0] == x[0] {
		lo, hi = x[0], x[0]
		done, seen := t.minMaxVec(x, &lo, &hi)
		if !seen {
			tailLo, tailHi, tailNaN := minMaxGeneric(x[done:])
			if tailNaN >= 0 {
				tailNaN += done
			}
			if done < len(x) {
				lo, hi = min(lo, tailLo), max(hi, tailHi)
			}
			return lo + 0, hi + 0, tailNaN
		}
	}
	return minMaxGeneric(x) // of the first rung: there is a NaN to find
}

// minMaxGeneric is the definition of MinMax.
func minMaxGeneric(x []float32) (lo, hi float32, nan int) {
	nan = -1
	seen := false
	for i, v := range x {
		switch {
		case v != v:
			if nan < 0 {
				nan = i
			}
		case !seen:
			lo, hi, seen = v, v, true
		case v < lo:
			lo = v
		case v > hi:
			hi = v
		}
	}
	return lo + 0, hi + 0, nan // -0 + 0 is 0
}

func (t *isa) minMaxChannels(lo, hi, x []float32, channels int) (nan int) {
	nan = -1
	r := rows(len(x), channels)
	lo, hi = lo[:channels], hi[:channels]
	clear(lo)
	clear(hi)
	for c := range channels {
		seen := false
		for i := range r {
			switch v := x[i*channels+c]; {
			case v != v:
				if at := i*channels + c; nan < 0 || at < nan {
					nan = at
				}
			case !seen:
				lo[c], hi[c], seen = v+0, v+0, true
			case v < lo[c]:
				lo[c] = v + 0 // -0 + 0 is 0
			case v > hi[c]:
				hi[c] = v + 0
			}
		}
	}
	return nan
}

func (t *isa) absMaxChannels(dst, x []float32, channels int) (nan int) {
	rows(len(x), channels)
	dst = dst[:channels]
	clear(dst)
	done, seen := t.absMaxVec(dst, x, channels)
	nan = -1
	if seen {
		nan = firstNaN(x)
	}
	c := done % channels
	for i, v := range x[done:] {
		if v < 0 {
			v = -v
		}
		if v > dst[c] {
			dst[c] = v
		} else if v != v && nan < 0 {
			nan = done + i
		}
		if c++; c == channels {
			c = 0
		}
	}
	return nan
}
