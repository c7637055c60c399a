package kernel

// im2col writes the patch matrix of one image: row p = oy*OutW+ox holds the
// KH*KW*Cin inputs of output pixel p in weight order, cells outside the image
// being pad. Rows are ld apart; elements between the row's end and ld are pad
// as well, so that integer kernels may read whole groups of four.
func im2col[T any](cols []T, ld int, x []T, pad T, g ConvGeom) {
	outH, outW, run := g.OutH(), g.OutW(), g.KW*g.Cin
	dh, dw := g.dilH(), g.dilW()
	for oy := range outH {
		for ox := range outW {
			row := cols[(oy*outW+ox)*ld:][:ld]
			ix := ox*g.StrideW - g.PadLeft
			lo, hi := taps(ix, dw, g.KW, g.W)
			for kh := range g.KH {
				cell := row[kh*run:][:run]
				iy := oy*g.StrideH - g.PadTop + kh*dh
				if iy < 0 || iy >= g.H || lo >= hi {
					fill(cell, pad)
					continue
				}
				fill(cell[:lo*g.Cin], pad)
				fill(cell[hi*g.Cin:], pad)
				line := x[iy*g.W*g.Cin:][:g.W*g.Cin]
				if dw == 1 {
					copy(cell[lo*g.Cin:hi*g.Cin], line[(ix+lo)*g.Cin:])
					continue
				}
				for kw := lo; kw < hi; kw++ {
					copy(cell[kw*g.Cin:(kw+1)*g.Cin], line[(ix+kw*dw)*g.Cin:])
				}
			}
			fill(row[g.KH*run:], pad)
		}
	}
}

// col2im adds a patch matrix of row stride ld back onto the image it came
// from, in row-major order of patches.
func col2im(x []float32, cols []float32, ld int, g ConvGeom) {
	outH, outW, run := g.OutH(), g.OutW(), g.KW*g.Cin
	dh, dw := g.dilH(), g.dilW()
	for oy := range outH {
		for ox := range outW {
			row := cols[(oy*outW+ox)*ld:][:g.KH*run]
			ix := ox*g.StrideW - g.PadLeft
			lo, hi := taps(ix, dw, g.KW, g.W)
			for kh := range g.KH {
				iy := oy*g.StrideH - g.PadTop + kh*dh
				if iy < 0 || iy >= g.H {
					continue
				}
				for kw := lo; kw < hi; kw++ {
					at := (iy*g.W + ix + kw*dw) * g.Cin
					addTo(x[at:at+g.Cin], row[kh*run+kw*g.Cin:][:g.Cin])
				}
			}
		}
	}
}

func fill[T any](x []T, v T) {
	for i := range x {
		x[i] = v
	}
}

func addTo(dst, src []float32) {
	for i, v := range src {
		dst[i] += v
	}
}
