package kernel

// Global average pooling: x holds n images of cells pixels of channels values
// each, the result one value per image and channel.

// MeanSums adds up the codes of each channel, exactly:
//
//	acc[i,c] = sum over cells of (q - zero)
func MeanSums(acc []int32, x []uint8, zero int32, n, cells, channels int) {
	acc, x = acc[:n*channels], x[:n*cells*channels]
	for i := range acc {
		acc[i] = -zero * int32(cells)
	}
	for i := range n {
		row := acc[i*channels:][:channels]
		for p := range cells {
			for c, q := range x[(i*cells+p)*channels:][:channels] {
				row[c] += int32(q)
			}
		}
	}
}

// MeanRequant is MeanSums followed by requantization with one multiplier:
//
//	dst = int32(rint(clamp(float32(acc)*m, lo-zero, hi-zero))) + zero
func MeanRequant(dst, x []uint8, xZero int32, m float32, zero, lo, hi int32, n, cells, channels int, s *Scratch) {
	dst = dst[:n*channels]
	acc := grow(&s.acc, len(dst))
	MeanSums(acc, x, xZero, n, cells, channels)
	requantGeneric(dst, acc, nil, []float32{m}, zero, lo, hi, 0)
}

// GlobalAvg writes the mean of each channel: float32 sums over the cells in row
// order, then one division.
func GlobalAvg(dst, x []float32, n, cells, channels int) {
	dst, x = dst[:n*channels], x[:n*cells*channels]
	clear(dst)
	for i := range n {
		row := dst[i*channels:][:channels]
		for p := range cells {
			for c, v := range x[(i*cells+p)*channels:][:channels] {
				row[c] += v
			}
		}
		for c := range row {
			row[c] /= float32(cells)
		}
	}
}

// GlobalAvgGrad gives each cell its part of the gradient: dx = dy / cells.
func GlobalAvgGrad(dx, dy []float32, n, cells, channels int) {
	dx, dy = dx[:n*cells*channels], dy[:n*channels]
	for i := range n {
		row := dy[i*channels:][:channels]
		first := dx[i*cells*channels:][:channels]
		for c, v := range row {
			first[c] = v / float32(cells)
		}
		for p := 1; p < cells; p++ {
			copy(dx[(i*cells+p)*channels:][:channels], first)
		}
	}
}
