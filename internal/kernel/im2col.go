package kernel

// im2col writes the patch matrix of one image: row p = oy*OutW+ox holds the
// KH*KW*Cin inputs of output pixel p in weight order, cells outside the image
// being pad. Rows are ld apart; elements between the row's end and ld are pad
// as well, so that integer kernels may read whole groups of four. Pixels of x
// are pitch apart.
func im2col[T any](cols []T, ld int, x []T, pitch int, pad T, g ConvGeom) {
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
				line := x[iy*g.W*pitch:]
				if dw == 1 && pitch == g.Cin {
					copy(cell[lo*g.Cin:hi*g.Cin], line[(ix+lo)*g.Cin:])
					continue
				}
				copyPixels(cell[lo*g.Cin:], line[(ix+lo*dw)*pitch:], dw*pitch, g.Cin, hi-lo)
			}
			fill(row[g.KH*run:], pad)
		}
	}
}

// col2im adds a patch matrix of row stride ld back onto the image it came
// from, in row-major order of patches. Pixels of x are pitch apart.
func col2im(x []float32, pitch int, cols []float32, ld int, g ConvGeom) {
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
					at := (iy*g.W + ix + kw*dw) * pitch
					addTo(x[at:at+g.Cin], row[kh*run+kw*g.Cin:][:g.Cin])
				}
			}
		}
	}
}

// copyPixels writes n pixels of channels elements side by side; those of x are
// pitch apart. Few channels are moved by themselves: a call of copy takes longer.
func copyPixels[T any](dst, x []T, pitch, channels, n int) {
	for i := range n {
		out, in := dst[i*channels:][:channels], x[i*pitch:][:channels]
		switch {
		case channels == 4:
			*(*[4]T)(out) = *(*[4]T)(in)
		case channels == 8:
			*(*[8]T)(out) = *(*[8]T)(in)
		case channels == 16:
			*(*[16]T)(out) = *(*[16]T)(in)
		case channels < 8:
			//lint:ignore S1001 a call of copy takes longer
			for c, v := range in {
				out[c] = v
			}
		default:
			copy(out, in)
		}
	}
}

// fill sets all of x to v: the first few one by one, the rest from those.
func fill[T any](x []T, v T) {
	n := min(len(x), 16)
	for i := range x[:n] {
		x[i] = v
	}
	for ; n < len(x) && n > 0; n *= 2 {
		copy(x[n:], x[:n])
	}
}

func addTo(dst, src []float32) {
	for i, v := range src {
		dst[i] += v
	}
}
