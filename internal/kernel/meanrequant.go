package kernel

// Global average pooling: x holds n images of cells pixels of channels values
// each, the result one value per image and channel.

// MeanSums adds up the codes of each channel, exactly:
//
//	acc[i,c] = sum over cells of (q - zero)
func MeanSums(acc []int32, x []uint8, zero int32, n, cells, channels int) {
	active.meanSums(acc, x, zero, n, cells, channels)
}

func (t *isa) meanSums(acc []int32, x []uint8, zero int32, n, cells, channels int) {
	acc, x = acc[:n*channels], x[:n*cells*channels]
	for i := range acc {
		acc[i] = -zero * int32(cells)
	}
	for i := range n {
		row, img := acc[i*channels:][:channels], x[i*cells*channels:][:cells*channels]
		done := t.meanSumsVec(row, img, cells)
		for p := range cells {
			for c := done; c < channels; c++ {
				row[c] += int32(img[p*channels+c])
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
	active.requantRows(dst, acc, nil, []float32{m}, zero, lo, hi, 1)
}

// GlobalAvg writes the mean of each channel: float32 sums over the cells in row
// order, then one division.
func GlobalAvg(dst, x []float32, n, cells, channels int) {
	active.globalAvg(dst, x, n, cells, channels)
}

func (t *isa) globalAvg(dst, x []float32, n, cells, channels int) {
	dst, x = dst[:n*channels], x[:n*cells*channels]
	clear(dst)
	for i := range n {
		row, img := dst[i*channels:][:channels], x[i*cells*channels:][:cells*channels]
		done := t.meanVec(row, img, cells)
		for p := range cells {
			for c := done; c < channels; c++ {
				row[c] += img[p*channels+c]
			}
		}
		for c := done; c < channels; c++ {
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
