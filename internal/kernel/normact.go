package kernel

// NormAct is what follows a product in training: batch norm, a ReLU where there
// is one, and its upper limit where that is not 0:
//
//	y = min(max((v-mean)*a + beta, 0), Cap)
//
// with the rules of Normalize, ReLU and ReLUCap. Norm is that of
// [NormParams.Set]. Masks have the bit of an element set where the gradient of
// y passes on to v: 0 < y and y < Cap.
type NormAct struct {
	Norm *NormParams
	ReLU bool
	Cap  float32
}

// Values writes y and the mask.
func (n *NormAct) Values(y []float32, mask []uint8, v []float32) { active.normValues(n, y, mask, v) }

// Quantize is QuantizeU8 of y, which is not stored. A mask bit is set where the
// gradient passes both; st is the extremes of y. Where nan says that there is a
// NaN, nothing else is specified.
func (n *NormAct) Quantize(dst, mask []uint8, v []float32, scale float32, zero, lo, hi int32) (st RequantStats, nan int) {
	return active.normQuantize(n, dst, mask, v, scale, zero, lo, hi)
}

// ScaleGrad is ScaleGradU8 of y for the codes and the mask of Quantize. dy
// counts where the bit of up is set; up is nil where all does.
func (n *NormAct) ScaleGrad(dy []float32, up []uint8, v []float32, codes, mask []uint8, scale float32, zero, lo, hi int32) float64 {
	return active.normScaleGrad(n, dy, up, v, codes, mask, scale, zero, lo, hi)
}

// of is the definition of y, for channel c.
func (n *NormAct) of(v float32, c int) float32 {
	p := n.Norm
	y := float32((v-p.rows[p.at(c, 0)])*p.rows[p.at(c, 1)]) + p.rows[p.at(c, 2)]
	if n.ReLU {
		if y <= 0 {
			y = 0
		}
		if n.Cap > 0 && y > n.Cap {
			y = n.Cap
		}
	}
	return y
}

// passes reports that the gradient of y passes.
func (n *NormAct) passes(y float32) bool {
	return !n.ReLU || y > 0 && (n.Cap == 0 || y < n.Cap)
}

func (t *isa) normValues(n *NormAct, y []float32, mask []uint8, v []float32) {
	rows(len(v), n.Norm.channels)
	y, mask = y[:len(v)], mask[:MaskLen(len(v))]
	m := maskBits{mask: mask}
	done := t.normValuesVec(n, y, mask, v)
	for i, c := done, done%n.Norm.channels; i < len(v); i++ {
		y[i] = n.of(v[i], c)
		m.put(i, n.passes(y[i]))
		if c++; c == n.Norm.channels {
			c = 0
		}
	}
	if len(v)&7 != 0 {
		m.flush(len(v))
	}
}

func (t *isa) normQuantize(n *NormAct, dst, mask []uint8, v []float32, scale float32, zero, lo, hi int32) (st RequantStats, nan int) {
	rows(len(v), n.Norm.channels)
	dst, mask = dst[:len(v)], mask[:MaskLen(len(v))]
	if len(v) == 0 {
		return st, -1
	}
	flo, fhi := float32(lo-zero), float32(hi-zero)
	first := n.of(v[0], 0)
	st = RequantStats{first, first}
	m := maskBits{mask: mask}
	done, odd := t.normQuantizeVec(n, dst, mask, v, scale, flo, fhi, zero, &st)
	if odd {
		done, st = 0, RequantStats{first, first}
	}
	for i, c := done, done%n.Norm.channels; i < len(v); i++ {
		y := n.of(v[i], c)
		if y != y {
			return st, i
		}
		st.Min, st.Max = min(st.Min, y), max(st.Max, y)
		q, in := round(y, scale, flo, fhi)
		dst[i] = uint8(int32(q) + zero)
		m.put(i, in && n.passes(y))
		if c++; c == n.Norm.channels {
			c = 0
		}
	}
	if len(v)&7 != 0 {
		m.flush(len(v))
	}
	return RequantStats{st.Min + 0, st.Max + 0}, -1 // -0 + 0 is 0
}

func (t *isa) normScaleGrad(n *NormAct, dy []float32, up []uint8, v []float32, codes, mask []uint8, scale float32, zero, lo, hi int32) float64 {
	rows(len(v), n.Norm.channels)
	dy, codes, mask = dy[:len(v)], codes[:len(v)], mask[:MaskLen(len(v))]
	if up != nil {
		up = up[:len(mask)]
	}
	inverse := 1 / scale
	// The mask says where the quantizer passes, but for what is at the limit.
	_, capped := round(n.Cap, scale, float32(lo-zero), float32(hi-zero))
	var total float64
	for from := 0; from < len(v); from += laneBlock {
		part := v[:min(from+laneBlock, len(v))]
		var lane [16]float32
		for i := t.normScaleGradVec(n, &lane, dy, up, part, codes, mask, from, inverse, zero, capped); i < len(part); i++ {
			if up != nil && up[i>>3]>>(i&7)&1 == 0 {
				continue
			}
			y, slope := n.of(v[i], i%n.Norm.channels), float32(int32(codes[i])-zero)
			if mask[i>>3]>>(i&7)&1 == 1 || capped && n.Cap > 0 && n.ReLU && y == n.Cap {
				slope -= float32(y * inverse)
			}
			lane[i%16] += float32(dy[i] * slope)
		}
		total += float64(tree16(&lane))
	}
	return total
}
