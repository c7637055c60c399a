package kernel

// AddScaleGradCodes adds ScaleGradChannels to dst and is MaskGrad, in one pass,
// for elements that have been rounded to codes (zero point 0) already:
//
//	dst[c] += sum dy * { code outside, code - x*inverse[c] inside }
//	dy      = dy inside, 0 outside
//
// Inside is where the mask bit is set; outside the code is lo or hi. inverse
// has the reciprocals of the scales, one per channel: no element is divided.
// Blocks of columnBlock rows are added in float32, in as many lanes as the
// least common multiple of channels and vecLanes, element i in lane i modulo
// their number; a block's lanes join dst as rows of AddColumns. One shard's
// part; scratch keeps the lanes.
func AddScaleGradCodes(dst []float64, dy, x, inverse []float32, codes []int8, mask []uint8, scratch *Scratch) {
	active.addScaleGradCodes(dst, dy, x, inverse, codes, mask, scratch)
}

func (t *isa) addScaleGradCodes(dst []float64, dy, x, inverse []float32, codes []int8, mask []uint8, scratch *Scratch) {
	c := len(inverse)
	rows(len(x), c)
	dst, dy, codes, mask = dst[:c], dy[:len(x)], codes[:len(x)], mask[:MaskLen(len(x))]
	period := c
	for period%vecLanes != 0 {
		period *= 2
	}
	work := grow(&scratch.cols, 2*period)
	lane, inv := work[:period], work[period:]
	for i := 0; i < period; i += c {
		copy(inv[i:], inverse)
	}
	for from := 0; from < len(x); from += columnBlock * c { // a multiple of eight elements
		to := min(from+columnBlock*c, len(x))
		clear(lane)
		t.scaleGradCodesBlock(lane, dy[from:to], x[from:to], inv, codes[from:to], mask[from/8:])
		t.addColumnSums(dst, termSum, &columnArgs{x: lane}, c)
	}
}

func (t *isa) scaleGradCodesBlock(lane, dy, x, inverse []float32, codes []int8, mask []uint8) {
	for i := t.scaleGradCodesVec(lane, dy, x, inverse, codes, mask); i < len(x); i++ {
		k := i % len(lane)
		up, slope := dy[i], float32(codes[i])
		if mask[i>>3]>>(i&7)&1 == 0 {
			dy[i] = 0
		} else {
			slope -= float32(x[i] * inverse[k])
		}
		lane[k] += float32(up * slope)
	}
}

// ScaleGradU8 is ScaleGrad for elements that QuantizeU8 has rounded to codes
// already, with their mask and the reciprocal of the scale:
//
//	sum dy * { q-zero outside, (q-zero) - x*inverse inside }
//
// over 16 float32 lanes in blocks of 4096 elements, blocks added in float64.
// No element is divided. dy counts where the bit of up is set; up is nil where
// all does.
func ScaleGradU8(dy []float32, up []uint8, x []float32, inverse float32, codes, mask []uint8, zero int32) float64 {
	return active.scaleGradU8(dy, up, x, inverse, codes, mask, zero)
}

func (t *isa) scaleGradU8(dy []float32, up []uint8, x []float32, inverse float32, codes, mask []uint8, zero int32) float64 {
	dy, codes, mask = dy[:len(x)], codes[:len(x)], mask[:MaskLen(len(x))]
	if up != nil {
		up = up[:len(mask)]
	}
	var total float64
	for from := 0; from < len(x); from += laneBlock {
		part := x[:min(from+laneBlock, len(x))]
		var lane [16]float32
		for i := t.scaleGradU8Vec(&lane, dy, up, part, inverse, codes, mask, from, zero); i < len(part); i++ {
			if up != nil && up[i>>3]>>(i&7)&1 == 0 {
				continue
			}
			slope := float32(int32(codes[i]) - zero)
			if mask[i>>3]>>(i&7)&1 == 1 {
				slope -= float32(x[i] * inverse)
			}
			lane[i%16] += float32(dy[i] * slope)
		}
		total += float64(tree16(&lane))
	}
	return total
}

// ScaleGradRows is ScaleGradU8 for codes that RequantTrain made of rows of
// accumulators, whose values float32(acc+bias)*m are already in units of the
// scale; bias may be nil. Blocks are as many whole rows as 4096 elements hold,
// a multiple of eight if they are more.
func ScaleGradRows(dy []float32, acc, bias []int32, m []float32, codes, mask []uint8, zero int32) float64 {
	return active.scaleGradRows(dy, acc, bias, m, codes, mask, zero)
}

func (t *isa) scaleGradRows(dy []float32, acc, bias []int32, m []float32, codes, mask []uint8, zero int32) float64 {
	channels := len(m)
	rows(len(acc), channels)
	dy, codes, mask = dy[:len(acc)], codes[:len(acc)], mask[:MaskLen(len(acc))]
	if bias != nil {
		bias = bias[:channels]
	}
	block := max(1, laneBlock/channels)
	if block > 8 {
		block &^= 7
	}
	block *= channels
	var total float64
	for from := 0; from < len(acc); from += block {
		to := min(from+block, len(acc))
		var lane [16]float32
		done := 0
		if from%8 == 0 {
			done = t.scaleGradRowsVec(&lane, dy[from:to], acc[from:to], bias, m, codes[from:to], mask[from/8:], zero)
		}
		for i, c := from+done, done%channels; i < to; i++ {
			slope := float32(int32(codes[i]) - zero)
			if mask[i>>3]>>(i&7)&1 == 1 {
				v := acc[i]
				if bias != nil {
					v += bias[c]
				}
				slope -= float32(float32(v) * m[c])
			}
			lane[(i-from)%16] += float32(dy[i] * slope)
			if c++; c == channels {
				c = 0
			}
		}
		total += float64(tree16(&lane))
	}
	return total
}
