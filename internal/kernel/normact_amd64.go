package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// allPass is the mask of kernels that have none; it is never written.
var allPass = [2]uint8{255, 255}

// passMask is mask as a kernel reads it: where it begins and how far it moves
// with step bytes of a real one.
func passMask(mask []uint8, step int) (*uint8, int) {
	if mask == nil {
		return &allPass[0], 0
	}
	return &mask[0], step
}

func (t *isa) normSumsVec(dgamma, dbeta []float64, dy []float32, mask []uint8, x, mean, inv []float32, rows, channels int) (done int) {
	done = channels &^ (vecLanes - 1)
	if t.tier == cpu.Generic || rows == 0 || done == 0 || mask != nil && channels%8 != 0 {
		return 0
	}
	step := rowsTogether(channels)
	for r := 0; r < rows; r += step {
		n := min(step, rows-r)
		for c := 0; c < done; c += vecLanes {
			at, pass := r*channels+c, mask
			if mask != nil {
				pass = mask[at/8:]
			}
			m, maskStep := passMask(pass, channels/8)
			if t.tier == cpu.AVX512VNNI {
				normSumsZ(&dgamma[c], &dbeta[c], &dy[at], m, &x[at], &mean[c], &inv[c], n, 4*channels, maskStep)
			} else {
				normSumsY(&dgamma[c], &dbeta[c], &dy[at], m, &x[at], &mean[c], &inv[c], n, 4*channels, maskStep)
			}
		}
	}
	return done
}

// whole is how many leading elements of v the streams of p take.
func (t *isa) whole(v []float32, p *NormParams) int {
	if t.tier == cpu.Generic || p.period == 0 {
		return 0
	}
	return len(v) &^ (vecLanes - 1)
}

func (t *isa) normGradVec(dx, dy []float32, mask []uint8, x []float32, p *NormParams) int {
	n := t.whole(x, p)
	if n == 0 {
		return 0
	}
	m, step := passMask(mask, 2)
	if t.tier == cpu.AVX512VNNI {
		normGradZ(&dx[0], &dy[0], m, &x[0], &p.rows[0], n, p.period, step)
	} else {
		normGradY(&dx[0], &dy[0], m, &x[0], &p.rows[0], n, p.period, step)
	}
	return n
}

func (t *isa) normValuesVec(a *NormAct, y []float32, mask []uint8, v []float32) int {
	n, p := t.whole(v, a.Norm), a.Norm
	switch wide := t.tier == cpu.AVX512VNNI; {
	case n == 0:
	case !a.ReLU && wide:
		normZ(&y[0], &mask[0], &v[0], &p.rows[0], n, p.period)
	case !a.ReLU:
		normY(&y[0], &mask[0], &v[0], &p.rows[0], n, p.period)
	case a.Cap > 0 && wide:
		normCapZ(&y[0], &mask[0], &v[0], &p.rows[0], n, p.period, a.Cap)
	case a.Cap > 0:
		normCapY(&y[0], &mask[0], &v[0], &p.rows[0], n, p.period, a.Cap)
	case wide:
		normReLUZ(&y[0], &mask[0], &v[0], &p.rows[0], n, p.period)
	default:
		normReLUY(&y[0], &mask[0], &v[0], &p.rows[0], n, p.period)
	}
	return n
}

func (t *isa) normQuantizeVec(a *NormAct, dst, mask []uint8, v []float32, scale, lo, hi float32, zero int32, st *RequantStats) (n int, odd bool) {
	n = t.whole(v, a.Norm)
	wide := t.tier == cpu.AVX512VNNI
	if n == 0 || st.Min != st.Min || wide && !moderate(scale) {
		return 0, false
	}
	var stats statLanes
	stats.spread(st)
	p, found := a.Norm, 0
	by := 1 / scale
	least, most := roundedTo(lo, hi)
	switch {
	case a.ReLU && a.Cap > 0 && wide:
		found = normQuantizeCapZ(&dst[0], &mask[0], &v[0], &p.rows[0], &stats[0], n, p.period, scale, by, least, most, zero, a.Cap)
	case a.ReLU && a.Cap > 0:
		found = normQuantizeCapY(&dst[0], &mask[0], &v[0], &p.rows[0], &stats[0], n, p.period, scale, by, least, most, zero, a.Cap)
	case a.ReLU && wide:
		found = normQuantizeReLUZ(&dst[0], &mask[0], &v[0], &p.rows[0], &stats[0], n, p.period, scale, by, least, most, zero)
	case a.ReLU:
		found = normQuantizeReLUY(&dst[0], &mask[0], &v[0], &p.rows[0], &stats[0], n, p.period, scale, by, least, most, zero)
	case wide:
		found = normQuantizeZ(&dst[0], &mask[0], &v[0], &p.rows[0], &stats[0], n, p.period, scale, by, least, most, zero)
	default:
		found = normQuantizeY(&dst[0], &mask[0], &v[0], &p.rows[0], &stats[0], n, p.period, scale, by, least, most, zero)
	}
	stats.join(st)
	return n, found != 0
}

// normScaleGradVec adds elements from element from on, a multiple of sixteen;
// it returns where it stopped.
func (t *isa) normScaleGradVec(a *NormAct, lane *[16]float32, dy []float32, up []uint8, v []float32, codes, mask []uint8, from int, inverse float32, zero int32, capped bool) int {
	p := a.Norm
	n := t.whole(v[from:], p)
	if n == 0 {
		return from
	}
	if up != nil {
		up = up[from/8:]
	}
	u, step := passMask(up, 2)
	d, x, q, m, w, first := &dy[from], &v[from], &codes[from], &mask[from/8], &p.rows[0], from%p.period
	limit := a.Cap
	if !capped { // no element is it
		limit = -1
	}
	switch wide := t.tier == cpu.AVX512VNNI; {
	case a.ReLU && a.Cap > 0 && wide:
		normScaleGradCapZ(&lane[0], d, u, x, w, q, m, n, p.period, first, step, inverse, zero, a.Cap, limit)
	case a.ReLU && a.Cap > 0:
		normScaleGradCapY(&lane[0], d, u, x, w, q, m, n, p.period, first, step, inverse, zero, a.Cap, limit)
	case a.ReLU && wide:
		normScaleGradReLUZ(&lane[0], d, u, x, w, q, m, n, p.period, first, step, inverse, zero)
	case a.ReLU:
		normScaleGradReLUY(&lane[0], d, u, x, w, q, m, n, p.period, first, step, inverse, zero)
	case wide:
		normScaleGradZ(&lane[0], d, u, x, w, q, m, n, p.period, first, step, inverse, zero)
	default:
		normScaleGradY(&lane[0], d, u, x, w, q, m, n, p.period, first, step, inverse, zero)
	}
	return from + n
}
